//! LVM's commands, and what they print. Names and sizes are the only words that vary, and are made here.

use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;

use super::Result;
use crate::volume::driver::VolumeDriverError;
use crate::volume::driver::tools;

/// Who runs the commands: a test answers from a transcript.
#[async_trait]
pub(super) trait Runner: Send + Sync {
    async fn run(&self, program: &'static str, words: &[&str]) -> Result<String>;
}

/// The machine's LVM.
pub(super) struct Machine {
    pub(super) limit: Duration,
}

#[async_trait]
impl Runner for Machine {
    async fn run(&self, program: &'static str, words: &[&str]) -> Result<String> {
        tools::administer(program, words, "changing logical volumes", self.limit).await
    }
}

/// A logical volume as `lvs` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Shown {
    #[serde(rename = "lv_name")]
    pub(super) name: String,
    #[serde(rename = "lv_size")]
    pub(super) size: String,
    #[serde(rename = "lv_tags", default)]
    pub(super) tags: String,
    #[serde(rename = "pool_lv", default)]
    pub(super) pool: String,
    #[serde(default)]
    pub(super) data_percent: String,
    #[serde(default)]
    pub(super) zero: String,
}

impl Shown {
    pub(super) fn bytes(&self) -> u64 {
        self.size.trim_end_matches('B').parse().unwrap_or(0)
    }
}

/// Words that make `lvs` print what is read here.
pub(super) const SHOW: &[&str] = &[
    "--reportformat",
    "json",
    "--units",
    "b",
    "--nosuffix",
    "-o",
    "lv_name,lv_size,lv_tags,pool_lv,data_percent,zero",
];

#[derive(Deserialize)]
struct Report {
    report: Vec<Page>,
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    lv: Vec<Shown>,
}

/// Reads what `lvs` printed.
pub(super) fn shown(printed: &str) -> Result<Vec<Shown>> {
    let report: Report = serde_json::from_str(printed)
        .map_err(|error| VolumeDriverError::failed("reading the list of logical volumes", error))?;
    Ok(report.report.into_iter().flat_map(|page| page.lv).collect())
}
