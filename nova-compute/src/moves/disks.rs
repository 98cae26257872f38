//! Disks on their way from host to host, without a third party: the source serves copies of a guest's disks to whoever holds
//! the grant of the move, and the destination fetches them and compares what came with what was sent.
//!
//! A grant is worth something for one task, for as long as that may take, and for the bytes of its disks.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use nova_core::clock::Clock;
use nova_core::ids::{InstanceId, TaskId};
use nova_core::options::Address;
use nova_core::rpc::compute::DiskGrant;
use nova_virt::{DiskFormat, DiskRole};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha512};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

/// The header that a grant travels in.
const HEADER: &str = "x-nova-disk-grant";
/// Bytes that are read at once.
const PIECE: usize = 256 << 10;
/// How long whoever connects may take to say what it wants.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Disks that are sent at once.
const CONNECTIONS: usize = 8;

/// Why a disk did not travel.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    /// The disk of this host.
    #[error("a copy of a disk cannot be kept")]
    Disk(#[from] std::io::Error),
    /// The other host.
    #[error("the other host does not send the disk")]
    Connection(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It refuses.
    #[error("the other host answered {0}")]
    Status(StatusCode),
    /// Not what was sent.
    #[error("the disk that came is not the one that was sent")]
    Damaged,
}

/// What a source says of the disks that it serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Offer {
    /// Where.
    pub(crate) address: String,
    /// The disks, in order.
    pub(crate) disks: Vec<OfferedDisk>,
    /// The end of what the guest wrote to its console here.
    #[serde(default)]
    pub(crate) console: String,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OfferedDisk {
    pub(crate) role: DiskRole,
    pub(crate) format: DiskFormat,
    pub(crate) size: u64,
    pub(crate) sha512: String,
}

struct Export {
    instance: InstanceId,
    grant: DiskGrant,
    files: Vec<PathBuf>,
}

/// Where it is served, for as long as this is kept.
type Server = (String, AbortOnDropHandle<()>);

/// What this host serves. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Exports {
    listen: Address,
    clock: Arc<dyn Clock>,
    exports: Arc<Mutex<BTreeMap<TaskId, Export>>>,
    serving: Arc<tokio::sync::Mutex<Option<Server>>>,
}

impl Exports {
    pub(crate) fn new(listen: Address, clock: Arc<dyn Clock>) -> Self {
        Self { listen, clock, exports: Arc::default(), serving: Arc::default() }
    }

    fn exports(&self) -> std::sync::MutexGuard<'_, BTreeMap<TaskId, Export>> {
        self.exports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves these files to the holder of the grant, from now on.
    pub(crate) async fn serve(
        &self,
        task: TaskId,
        instance: InstanceId,
        grant: DiskGrant,
        files: Vec<(DiskRole, PathBuf)>,
    ) -> Result<Offer, DiskError> {
        let address = self.address().await?;
        let mut disks = Vec::new();
        for (role, path) in &files {
            let (size, sha512) = digest(path).await?;
            disks.push(OfferedDisk { role: *role, format: DiskFormat::Qcow2, size, sha512 });
        }
        let files = files.into_iter().map(|(_, path)| path).collect();
        self.exports().insert(task, Export { instance, grant, files });
        Ok(Offer { address, disks, console: String::new() })
    }

    /// Nothing of that instance is served any more, and the copies go.
    pub(crate) async fn end(&self, instance: InstanceId) {
        let mut old = Vec::new();
        self.exports().retain(|_, export| {
            let keep = export.instance != instance;
            if !keep {
                old.append(&mut export.files);
            }
            keep
        });
        for path in old {
            remove(&path).await;
        }
    }

    async fn address(&self) -> Result<String, DiskError> {
        let mut serving = self.serving.lock().await;
        if let Some((address, task)) = &*serving
            && !task.is_finished()
        {
            return Ok(address.clone());
        }
        let listener = TcpListener::bind(self.listen.to_string()).await?;
        let port = listener.local_addr()?.port();
        let address = Address { port, ..self.listen.clone() }.to_string();
        let accepting = AbortOnDropHandle::new(tokio::spawn(accept(self.clone_without_server(), listener)));
        *serving = Some((address.clone(), accepting));
        Ok(address)
    }

    /// For the server itself, which must not keep itself alive.
    fn clone_without_server(&self) -> Self {
        Self { serving: Arc::default(), ..self.clone() }
    }

    /// The file that this request may have.
    fn admitted(&self, request: &Request<Incoming>, now: Timestamp) -> Option<PathBuf> {
        let said = request.headers().get(HEADER)?.as_bytes();
        let (task, place) = request.uri().path().strip_prefix("/disks/")?.split_once('/')?;
        let (task, place): (TaskId, usize) = (task.parse().ok()?, place.parse().ok()?);
        let exports = self.exports();
        let export = exports.get(&task).filter(|export| export.grant.until > now)?;
        same(said, export.grant.secret.as_bytes()).then(|| export.files.get(place).cloned()).flatten()
    }
}

/// Takes the same time wherever they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (x, y)| differ | (x ^ y)) == 0
}

async fn accept(exports: Exports, listener: TcpListener) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else { continue };
        let exports = exports.clone();
        tokio::spawn(async move {
            let _slot = slot;
            let service = service_fn(|request| {
                let exports = exports.clone();
                async move { Ok::<_, Infallible>(answer(&exports, &request).await) }
            });
            let mut connection = hyper::server::conn::http1::Builder::new();
            connection.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
            // Whoever went away asks again, or does not.
            let _ = connection.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

async fn answer(exports: &Exports, request: &Request<Incoming>) -> Response<Body> {
    let opened = match exports.admitted(request, exports.clock.now()) {
        Some(path) => tokio::fs::File::open(path).await.ok(),
        None => None,
    };
    let Some(file) = opened else {
        let nothing = Empty::new().map_err(|never: Infallible| match never {}).boxed_unsync();
        let mut refused = Response::new(nothing);
        *refused.status_mut() = StatusCode::NOT_FOUND;
        return refused;
    };
    let pieces = stream::try_unfold(file, |mut file| async move {
        let mut piece = vec![0; PIECE];
        let read = file.read(&mut piece).await?;
        piece.truncate(read);
        Ok::<_, std::io::Error>((read > 0).then(|| (Frame::data(Bytes::from(piece)), file)))
    });
    Response::new(StreamBody::new(pieces.boxed()).boxed_unsync())
}

async fn digest(path: &Path) -> Result<(u64, String), DiskError> {
    let mut file = tokio::fs::File::open(path).await?;
    let (mut hash, mut size, mut piece) = (Sha512::new(), 0, vec![0; PIECE]);
    loop {
        let read = file.read(&mut piece).await?;
        if read == 0 {
            return Ok((size, hex(&hash.finalize())));
        }
        size += read as u64;
        hash.update(&piece[..read]);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Removes a copy; none is fine.
pub(crate) async fn remove(path: &Path) {
    match tokio::fs::remove_file(path).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), "a copy of a disk was not removed: {error}");
        }
        _ => {}
    }
}

/// Fetches one disk of an offer into a new file, and compares it. A file that is not whole goes.
pub(crate) async fn fetch(
    offer: &Offer,
    place: usize,
    task: TaskId,
    grant: &DiskGrant,
    path: &Path,
) -> Result<(), DiskError> {
    remove(path).await;
    let Some(disk) = offer.disks.get(place) else { return Err(DiskError::Damaged) };
    let fetched = fetch_into(&offer.address, place, task, grant, disk, path).await;
    if fetched.is_err() {
        remove(path).await;
    }
    fetched
}

async fn fetch_into(
    address: &str,
    place: usize,
    task: TaskId,
    grant: &DiskGrant,
    disk: &OfferedDisk,
    path: &Path,
) -> Result<(), DiskError> {
    let lost = |error: hyper::Error| DiskError::Connection(Box::new(error));
    let stream = TcpStream::connect(address).await.map_err(|error| DiskError::Connection(Box::new(error)))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(async move {
        let _ = connection.await;
    }));
    let request = Request::get(format!("/disks/{task}/{place}"))
        .header(http::header::HOST, address)
        .header(HEADER, &grant.secret)
        .body(Empty::<Bytes>::new())
        .map_err(|error| DiskError::Connection(Box::new(error)))?;
    let answer = sender.send_request(request).await.map_err(lost)?;
    if answer.status() != StatusCode::OK {
        return Err(DiskError::Status(answer.status()));
    }
    let mut file = tokio::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).await?;
    let (mut body, mut hash, mut size) = (answer.into_body(), Sha512::new(), 0);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(lost)?.into_data() else { continue };
        size += data.len() as u64;
        if size > disk.size {
            return Err(DiskError::Damaged);
        }
        hash.update(&data);
        file.write_all(&data).await?;
    }
    file.flush().await?;
    file.sync_all().await?;
    let whole = size == disk.size && hex(&hash.finalize()) == disk.sha512;
    if whole { Ok(()) } else { Err(DiskError::Damaged) }
}

#[cfg(test)]
mod tests {
    use nova_core::entropy::SeededEntropy;

    use super::*;

    /// It is always now.
    struct Now;

    impl Clock for Now {
        fn now(&self) -> Timestamp {
            Timestamp::from_second(1_800_000_000).unwrap()
        }
    }

    async fn served(until: Timestamp) -> (Exports, Offer, TaskId, InstanceId, DiskGrant, tempfile::TempDir) {
        let entropy = SeededEntropy::new(1);
        let (task, instance) = (TaskId::generate(&entropy), InstanceId::generate(&entropy));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("source");
        std::fs::write(&file, vec![7; PIECE * 2 + 3]).unwrap();
        let exports = Exports::new(Address { host: "127.0.0.1".into(), port: 0 }, Arc::new(Now));
        let grant = DiskGrant { secret: "s3cret".into(), until };
        let offer = exports.serve(task, instance, grant.clone(), vec![(DiskRole::Root, file)]).await.unwrap();
        (exports, offer, task, instance, grant, folder)
    }

    #[tokio::test]
    async fn a_disk_travels_and_is_compared() {
        let (exports, mut offer, task, instance, grant, folder) = served(Timestamp::MAX).await;
        let there = folder.path().join("there");
        fetch(&offer, 0, task, &grant, &there).await.unwrap();
        assert_eq!(std::fs::read(&there).unwrap(), vec![7; PIECE * 2 + 3]);
        offer.disks[0].sha512 = "00".into();
        assert!(matches!(fetch(&offer, 0, task, &grant, &there).await, Err(DiskError::Damaged)));
        assert!(!there.exists(), "what is not whole goes");
        exports.end(instance).await;
        assert!(matches!(fetch(&offer, 0, task, &grant, &there).await, Err(DiskError::Status(StatusCode::NOT_FOUND))));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the copy is gone");
    }

    #[tokio::test]
    async fn only_the_grants_holder_gets_it_and_only_for_a_while() {
        let (_exports, offer, task, _, grant, folder) = served(Timestamp::MAX).await;
        let there = folder.path().join("there");
        for secret in ["", "s3cre", "s3crex", "s3cretx"] {
            let wrong = DiskGrant { secret: secret.into(), ..grant.clone() };
            let refused = fetch(&offer, 0, task, &wrong, &there).await;
            assert!(matches!(refused, Err(DiskError::Status(StatusCode::NOT_FOUND))), "{secret}: {refused:?}");
        }
        let (_exports, offer, task, _, grant, folder) = served(Timestamp::UNIX_EPOCH).await;
        let late = fetch(&offer, 0, task, &grant, &folder.path().join("there")).await;
        assert!(matches!(late, Err(DiskError::Status(StatusCode::NOT_FOUND))), "{late:?}");
    }
}
