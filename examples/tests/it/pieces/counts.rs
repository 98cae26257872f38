//! What a boot costs the broker and the database, counted by these themselves.
//!
//! Messages: what RabbitMQ received (its global counter `messages_received_total`), answers, fanouts and everything else
//! included. Transactions: PostgreSQL gives a transaction a number when it first writes or locks a row, and one number
//! only, so that the distance between two readings of the next number is how many there were; `xact_commit` would count
//! questions too. Both also count what no boot asked for: heartbeats, sweeps, vacuuming. That rate is measured first,
//! with the cloud idle, and taken off.

use std::thread;
use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection};

use super::cloud::Pieces;
use crate::fleet::{Request, send_all};
use crate::support::{Project, until};

const MESSAGES_PER_BOOT: f64 = 8.0;
const COMMITS_PER_BOOT: f64 = 3.0;
/// How long the idle cloud is watched.
const IDLE: Duration = Duration::from_secs(15);
/// What a sign of life may cost beyond those of an idle cloud: a host that is at work says how busy it is, which is written apart.
const PER_BEAT: f64 = 2.0;
/// `report_interval`, in seconds.
const BEAT: f64 = 10.0;
const AT_ONCE: usize = 10;
const SERVICES: &[&str] = &["api-1", "scheduler-1", "conductor-1", "compute-1", "compute-2", "compute-3", "compute-4"];

/// A reading of all counters.
#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Instant,
    /// Received by the broker.
    messages: u64,
    /// Numbers that the database has given to transactions.
    transactions: u64,
    /// Commits that wrote, by the services' own count.
    commits: u64,
}

/// What went by between two readings.
#[derive(Debug, Clone, Copy)]
struct Rate {
    messages: f64,
    transactions: f64,
    commits: f64,
}

impl Reading {
    fn take(cloud: &Pieces) -> Self {
        let messages = cloud.broker.run("published").parse().expect("a number");
        let commits =
            ["api-1", "scheduler-1", "conductor-1"].map(|name| cloud.counted(name, "nova_store_commits_total"));
        Self {
            at: Instant::now(),
            messages,
            transactions: transactions(&cloud.database.url),
            commits: commits.iter().sum(),
        }
    }

    /// Per second, from an earlier reading to this one.
    fn rate_since(&self, earlier: &Self) -> Rate {
        let seconds = (self.at - earlier.at).as_secs_f64();
        let rate = |now: u64, before: u64| (now - before) as f64 / seconds;
        Rate {
            messages: rate(self.messages, earlier.messages),
            transactions: rate(self.transactions, earlier.transactions),
            commits: rate(self.commits, earlier.commits),
        }
    }

    /// Per boot, from an earlier reading to this one, without what happens anyhow.
    fn per_boot_since(&self, earlier: &Self, idle: Rate, boots: usize) -> Rate {
        let seconds = (self.at - earlier.at).as_secs_f64();
        let per_boot = |now: u64, before: u64, idle: f64| ((now - before) as f64 - idle * seconds) / boots as f64;
        Rate {
            messages: per_boot(self.messages, earlier.messages, idle.messages),
            transactions: per_boot(self.transactions, earlier.transactions, idle.transactions),
            commits: per_boot(self.commits, earlier.commits, idle.commits),
        }
    }
}

/// The number that the next transaction would get. Asking does not take one.
fn transactions(url: &str) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = PgConnection::connect(url).await.unwrap();
        let sql = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text";
        let (number,): (String,) = sqlx::query_as(sql).fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        number.parse().unwrap()
    })
}

/// So many boots, ten at a time, each waited for.
fn boot(project: &Project, count: usize) {
    for from in (0..count).step_by(AT_ONCE) {
        let names = from..count.min(from + AT_ONCE);
        let requests: Vec<Request> = names.map(|n| Request::Boot(project.request(&format!("c-{n}")))).collect();
        let ((), ids) = send_all(project, &requests, |_| {});
        assert_eq!(ids.len(), requests.len(), "all were accepted");
        until("the ten are ACTIVE", || {
            let newest = project.newest(AT_ONCE);
            newest.iter().all(|s| s["status"] == "ACTIVE").then_some(())
        });
    }
}

fn count(boots: usize) {
    let cloud = Pieces::started("postgresql", "", SERVICES);
    let project = cloud.project();
    // The first boot finds things that are made once.
    boot(&project, 1);
    let begin = Reading::take(&cloud);
    thread::sleep(IDLE);
    let rested = Reading::take(&cloud);
    let idle = rested.rate_since(&begin);
    boot(&project, boots);
    let end = Reading::take(&cloud);
    let each = end.per_boot_since(&rested, idle, boots);
    println!("idle, per second: {idle:.2?}");
    println!("{boots} boots in {:.1?}, per boot: {each:.2?}", end.at - rested.at);
    // What the idle rate cannot foresee. The slower the machine, the more signs of life there are.
    let beats = SERVICES.len() as f64 * (1.0 + (end.at - rested.at).as_secs_f64() / BEAT);
    let slack = PER_BEAT * beats / boots as f64;
    assert!(each.messages <= MESSAGES_PER_BOOT + slack, "{each:?}");
    assert!(each.transactions.max(each.commits) <= COMMITS_PER_BOOT + slack, "{each:?}");
    // The counters count: without an order and a report there is no boot, nor without an intent and a result.
    assert!(each.messages >= 2.0 && each.transactions.min(each.commits) >= 2.0, "{each:?}");
    cloud.assert_checked();
}

#[test]
#[ignore = "needs NOVA_TEST_AMQP_URL and NOVA_TEST_POSTGRES_URL, which say that both are installed; starts its own"]
fn a_boot_takes_eight_messages_and_three_transactions_at_most() {
    count(300);
}

#[test]
#[ignore = "takes minutes, `make soak` runs it: a thousand boots; starts RabbitMQ and PostgreSQL of its own"]
fn soak_a_thousand_boots_take_eight_messages_and_three_transactions_each() {
    count(1000);
}
