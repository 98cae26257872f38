//! Copies of volumes that a host has: the storage daemon that serves it copies it as it is at one moment, while writes go on
//! (QEMU's `blockdev-backup`: what a write would change is copied before).

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use nova_core::ids::{HostName, VolumeId};
use serde_json::{Value, json};

use super::door::{file_node, node_name, refused};
use super::qmp::{Qmp, QmpError};
use super::{NbdVolumes, Result, VolumeDriverError};
use crate::volume::driver::pool::LiveCopier;
use crate::volume::driver::tools;

const DURING: &str = "copying a volume that is in use";
/// How often the daemon is asked how far it is, at first and at most.
const ASK: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(250));

#[async_trait]
impl LiveCopier for NbdVolumes {
    async fn copy_live(&self, volume: VolumeId, _from: &Path, to: &Path) -> Result<()> {
        let hosts: BTreeSet<HostName> =
            self.pool.entry(volume)?.connections.into_values().map(|granted| granted.host).collect();
        let mut hosts = hosts.into_iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            // Each host has a daemon of its own, which sees its own writes only.
            return Err(VolumeDriverError::busy(volume, "is connected to several hosts"));
        };
        let qmp = self.door(&host).await?.daemon().await?;
        let job = Job { node: node_name(volume), name: format!("copy-{}", node_name(volume)) };
        // One of a process that ended in the middle would be in the way.
        job.clear(&qmp).await.map_err(refused)?;
        let copied = tokio::time::timeout(self.options.pool.tool_limit, job.run(&qmp, to)).await;
        // The target is closed whatever became of it: its file is removed.
        let cleared = job.clear(&qmp).await;
        match copied {
            Ok(copied) => copied?,
            Err(_) => {
                return Err(VolumeDriverError::TimedOut { during: DURING, after: self.options.pool.tool_limit });
            }
        }
        cleared.map_err(refused)
    }
}

struct Job {
    node: String,
    /// Of the job and of its target. A node's name has at most 31 bytes, so that of the target is another.
    name: String,
}

impl Job {
    fn target(&self) -> String {
        format!("t{}", &self.node[1..])
    }

    async fn run(&self, qmp: &Qmp, to: &Path) -> Result<()> {
        let mut target = file_node(&self.target(), to);
        target["detect-zeroes"] = "unmap".into();
        qmp.run("blockdev-add", target).await.map_err(refused)?;
        let arguments = json!({"job-id": self.name, "device": self.node, "target": self.target(), "sync": "full",
                               "auto-dismiss": false});
        qmp.run("blockdev-backup", arguments).await.map_err(refused)?;
        let mut wait = ASK.0;
        loop {
            match self.state(qmp).await.map_err(refused)? {
                Some((status, error)) if status == "concluded" => return ended(error),
                Some(_) => {}
                None => return Err(VolumeDriverError::failed(DURING, "the copy is gone")),
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(ASK.1);
        }
    }

    /// The job's status and why it failed, if there is one.
    async fn state(&self, qmp: &Qmp) -> std::result::Result<Option<(String, Option<String>)>, QmpError> {
        let jobs = qmp.run("query-jobs", json!({})).await?;
        let mine = jobs.as_array().into_iter().flatten().find(|job| job["id"] == self.name.as_str());
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Ok(mine.map(|job| (text(&job["status"]).unwrap_or_default(), text(&job["error"]))))
    }

    /// Ends the job, if there is one, and closes its target.
    async fn clear(&self, qmp: &Qmp) -> std::result::Result<(), QmpError> {
        const ROUNDS: usize = 2000;
        for _ in 0..ROUNDS {
            match self.state(qmp).await? {
                None => break,
                Some((status, _)) if status == "concluded" => {
                    ignore_refusal(qmp.run("job-dismiss", json!({"id": self.name})).await)?;
                }
                Some(_) => {
                    ignore_refusal(qmp.run("job-cancel", json!({"id": self.name})).await)?;
                    tokio::time::sleep(ASK.0).await;
                }
            }
        }
        ignore_refusal(qmp.run("blockdev-del", json!({"node-name": self.target()})).await)
    }
}

fn ended(error: Option<String>) -> Result<()> {
    match error {
        None => Ok(()),
        Some(text) if tools::says_no_space(&text) => {
            Err(VolumeDriverError::NoSpace { during: DURING, source: text.into() })
        }
        Some(text) => Err(VolumeDriverError::failed(DURING, text)),
    }
}

/// What could not be ended was not there, or has ended meanwhile: the state is asked for again.
fn ignore_refusal(answer: std::result::Result<Value, QmpError>) -> std::result::Result<(), QmpError> {
    match answer {
        Ok(_) | Err(QmpError::Refused { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
