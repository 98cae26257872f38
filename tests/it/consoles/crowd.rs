//! Many sessions on one proxy: most of them idle, some busy, some that do not read. Grants are made by the API and taken by
//! nova-consoleauth, everything else is sockets.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use nova::console::proxy::ProxyOptions;
use nova_core::state::Action;

use super::rig::{Browser, Rig};

/// So many of each kind.
struct Crowd {
    idle: usize,
    busy: usize,
    slow: usize,
    /// Answers that each of the busy waits for, 4 KiB each.
    rounds: usize,
}

const MESSAGE: usize = 4 << 10;
/// Sessions that are opened side by side, as users do it.
const AT_ONCE: usize = 25;

#[tokio::test]
async fn idle_busy_and_slow_sessions_side_by_side() {
    many(&Crowd { idle: 60, busy: 5, slow: 2, rounds: 40 }).await;
}

#[tokio::test]
#[ignore = "takes a while, `make soak` runs it: a thousand idle sessions"]
async fn soak_a_thousand_idle_and_fifty_busy_sessions() {
    raise_file_limit();
    many(&Crowd { idle: 1000, busy: 50, slow: 10, rounds: 100 }).await;
}

/// Each session is four sockets of this process.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    assert!(limit.current.is_none_or(|most| most >= 8192), "open files: ulimit -Hn is too low");
}

async fn many(crowd: &Crowd) {
    let dress = |options: &mut ProxyOptions| {
        options.stall_timeout = Duration::from_secs(5);
        options.check_interval = Duration::from_millis(400);
        // Browsers answer pings by themselves; these here do so only while they are read from.
        options.ping_interval = Duration::from_secs(600);
        options.max_sessions = crowd.idle + crowd.busy + crowd.slow;
    };
    let rig = Rig::with(dress, Default::default(), 1).await;
    let (watched, stopped) = (rig.server().await, rig.server().await);
    // Half of the idle ones look at a server that is stopped in the end.
    let mut idle = open(&rig, watched, crowd.idle - crowd.idle / 2).await;
    let mut ending = open(&rig, stopped, crowd.idle / 2).await;
    let mut slow = open(&rig, watched, crowd.slow).await;
    let busy = open(&rig, watched, crowd.busy).await;
    assert_eq!(rig.connect(&rig.token(watched).await).await.unwrap_err(), 503, "as many as may be");

    for browser in &mut slow {
        browser.send(b"flood").await;
    }
    let began = Instant::now();
    let busy = join_all(busy.into_iter().map(|browser| talk(browser, crowd.rounds))).await;
    let moved = 2 * crowd.busy * crowd.rounds * MESSAGE;
    println!("{} busy sessions moved {} MiB in {:?}", crowd.busy, moved >> 20, began.elapsed());
    assert_eq!(busy.len(), crowd.busy);
    // Those that do not read hold what sockets hold, and are let go, one after the other.
    let all = u32::try_from(crowd.slow).unwrap();
    let let_go = tokio::time::timeout(Duration::from_secs(60), rig.flood.over.acquire_many(all)).await;
    let_go.expect("slow readers are let go").unwrap().forget();
    let each = rig.flood.sent.load(Ordering::Relaxed) / crowd.slow as u64;
    assert!(each < 64 << 20, "{each} bytes were taken for each one that reads none");

    // All of the others are there, until their server is not.
    all_there(idle.iter_mut().chain(&mut ending), "there").await;
    assert!(rig.cloud.act(stopped, Action::Stop).await);
    let began = Instant::now();
    for (code, reason) in join_all(ending.iter_mut().map(Browser::closed)).await {
        assert_eq!((code, reason.as_str()), (1008, "The server has stopped."));
    }
    let took = began.elapsed();
    println!("{} sessions were cut in {took:?}", ending.len());
    // Cloud, proxy, screens and browsers are one thread: without an optimiser, and with many, that is what takes time.
    let most = if cfg!(debug_assertions) && crowd.idle >= 1000 { 3 } else { 1 };
    assert!(took < Duration::from_secs(most), "{took:?}");
    all_there(idle.iter_mut(), "still").await;
}

async fn open(rig: &Rig, id: nova_core::ids::InstanceId, count: usize) -> Vec<Browser> {
    let one = async || {
        let mut browser = rig.open(&rig.token(id).await).await;
        browser.read(8).await;
        browser
    };
    let mut opened = Vec::new();
    while opened.len() < count {
        let more = (count - opened.len()).min(AT_ONCE);
        opened.extend(join_all((0..more).map(|_| one())).await);
    }
    opened
}

/// Each says something, and hears it.
async fn all_there(browsers: impl Iterator<Item = &mut Browser>, word: &'static str) {
    join_all(browsers.map(|browser| async move {
        browser.send(word.as_bytes()).await;
        assert_eq!(browser.read(word.len()).await, word);
    }))
    .await;
}

/// Says something, waits until it is all said back, and so on.
async fn talk(mut browser: Browser, rounds: usize) -> Browser {
    for round in 0..rounds {
        let said = Bytes::from(vec![round as u8; MESSAGE]);
        browser.send(&said).await;
        assert_eq!(browser.read(MESSAGE).await, said);
    }
    browser
}
