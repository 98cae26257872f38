//! One connection to libvirt, kept up by a thread of its own.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use tokio::sync::watch;
use virt::connect::Connect;
use virt::error::Error;

use super::ffi::{RawEvent, Registration};

/// How often a good connection is looked at. That costs no call to the daemon.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The delay before the first new attempt; it doubles with each, up to the next.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(2);
/// After so many seconds without an answer, so many times, a connection is given up.
const KEEPALIVE_SECONDS: i32 = 5;
const KEEPALIVE_COUNT: u32 = 3;

/// What the connection is like now.
#[derive(Clone)]
pub(super) enum Link {
    /// It works, as far as is known.
    Up(Connect),
    /// There is none, and this is why.
    Down(Arc<str>),
}

/// Called on libvirt's event thread, and must not call libvirt.
pub(super) type OnEvent = Arc<dyn Fn(RawEvent) + Send + Sync>;
/// Called with each new connection, before anyone else gets it.
pub(super) type OnConnect = Box<dyn Fn(&Connect) + Send>;

/// A handle to the thread that opens the connection, looks after it and opens it again. Dropping it ends the thread.
pub(super) struct Connection {
    shared: Arc<Shared>,
    link: watch::Receiver<Link>,
}

struct Shared {
    nudge: Condvar,
    nudged: Mutex<bool>,
}

impl Connection {
    /// Begins to connect to `uri`, which may take as long as it wants.
    pub(super) fn start(uri: String, on_event: OnEvent, on_connect: OnConnect) -> std::io::Result<Self> {
        start_event_loop()?;
        let shared = Arc::new(Shared { nudge: Condvar::new(), nudged: Mutex::new(false) });
        let (publish, link) = watch::channel(Link::Down("not connected yet".into()));
        let keeper = Keeper { uri, on_event, on_connect, publish, shared: Arc::downgrade(&shared) };
        thread::Builder::new().name("libvirt-keeper".into()).spawn(move || keeper.run())?;
        Ok(Self { shared, link })
    }

    /// The connection; waits so long for one. `Err` says why there is none.
    pub(super) async fn get(&self, wait: Duration) -> Result<Connect, Arc<str>> {
        let mut link = self.link.clone();
        let usable = |link: &Link| matches!(link, Link::Up(conn) if is_alive(conn));
        if let Link::Up(conn) = &*link.borrow()
            && is_alive(conn)
        {
            return Ok(conn.clone());
        }
        self.look_now();
        // The guard must not outlive this statement: it locks the channel.
        let found = tokio::time::timeout(wait, link.wait_for(usable)).await.map(|found| found.map(|link| link.clone()));
        match found {
            Ok(Ok(Link::Up(conn))) => Ok(conn),
            Ok(Ok(Link::Down(why))) => Err(why),
            Ok(Err(_)) => Err("the connection's keeper has ended".into()),
            Err(_) => match &*self.link.borrow() {
                Link::Up(_) => Err("the connection is lost".into()),
                Link::Down(why) => Err(why.clone()),
            },
        }
    }

    /// Has the keeper look at the connection at once.
    pub(super) fn look_now(&self) {
        *lock(&self.shared.nudged) = true;
        self.shared.nudge.notify_all();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.look_now();
    }
}

struct Keeper {
    uri: String,
    on_event: OnEvent,
    on_connect: OnConnect,
    publish: watch::Sender<Link>,
    shared: Weak<Shared>,
}

impl Keeper {
    fn run(self) {
        let mut delay = FIRST_DELAY;
        let mut last_error = None;
        while self.shared.strong_count() > 0 {
            match self.open() {
                Ok((conn, registration)) => {
                    (delay, last_error) = (FIRST_DELAY, None);
                    tracing::info!(uri = self.uri, "connected to libvirt");
                    let _ = self.publish.send(Link::Up(conn.clone()));
                    self.watch(&conn);
                    let _ = self.publish.send(Link::Down("the connection was lost".into()));
                    drop(registration);
                }
                Err(error) => {
                    // The same trouble every two seconds is worth one line.
                    if last_error.as_ref() != Some(&error) {
                        tracing::warn!(uri = self.uri, %error, "can't connect to libvirt; trying again");
                    }
                    let _ = self.publish.send(Link::Down(error.to_string().into()));
                    last_error = Some(error);
                    self.rest(delay);
                    delay = (delay * 2).min(LONGEST_DELAY);
                }
            }
        }
    }

    fn open(&self) -> Result<(Connect, Registration), Error> {
        let conn = Connect::open(Some(&self.uri))?;
        let on_event = self.on_event.clone();
        let registration = Registration::new(&conn, Box::new(move |event| on_event(event)))?;
        // Drivers inside this process (test:, embed) have nothing to keep alive.
        if let Err(error) = conn.set_keep_alive(KEEPALIVE_SECONDS, KEEPALIVE_COUNT) {
            tracing::debug!(%error, "no keepalive");
        }
        (self.on_connect)(&conn);
        Ok((conn, registration))
    }

    /// Returns when the connection is dead or nobody wants it any more.
    fn watch(&self, conn: &Connect) {
        while self.shared.strong_count() > 0 && is_alive(conn) {
            self.rest(LOOK_EVERY);
        }
        if self.shared.strong_count() > 0 {
            tracing::warn!(uri = self.uri, "lost the connection to libvirt");
        }
    }

    fn rest(&self, longest: Duration) {
        let Some(shared) = self.shared.upgrade() else { return };
        let nudged = lock(&shared.nudged);
        let waited = shared.nudge.wait_timeout_while(nudged, longest, |nudged| !*nudged);
        *waited.unwrap_or_else(PoisonError::into_inner).0 = false;
    }
}

/// Whether the connection is not known to be dead. Asks nobody.
fn is_alive(conn: &Connect) -> bool {
    conn.is_alive().unwrap_or(false)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// libvirt has one event loop per process. It must be there before the first connection is opened.
pub(super) fn start_event_loop() -> std::io::Result<()> {
    static START: Once = Once::new();
    let mut result = Ok(());
    START.call_once(|| {
        // Otherwise libvirt prints every error to stderr, besides returning it.
        virt::error::clear_error_callback();
        if let Err(error) = virt::event::event_register_default_impl() {
            result = Err(std::io::Error::other(error));
            return;
        }
        result = thread::Builder::new().name("libvirt-events".into()).spawn(run_event_loop).map(drop);
    });
    result
}

fn run_event_loop() {
    loop {
        if let Err(error) = virt::event::event_run_default_impl() {
            tracing::error!(%error, "libvirt's event loop failed");
            thread::sleep(LONGEST_DELAY);
        }
    }
}
