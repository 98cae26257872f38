//! Certificates of volume hosts and of the compute hosts that reach them (docs/interop/nbd and docs/system/tls of QEMU).
//!
//! A cloud has one authority for them, whose key only volume hosts have. A compute host gets a certificate of its name once,
//! by an operator's hand; the server of its volumes lets in that name and no other.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nova_core::ids::HostName;

use crate::volume::driver::pool::files;
use crate::volume::driver::tools::{self, blocking};
use crate::volume::driver::{BoxError, VolumeDriverError};

type Result<T> = std::result::Result<T, VolumeDriverError>;

const DURING: &str = "making certificates";
const LIMIT: Duration = Duration::from_secs(60);
const DAYS: &str = "3650";
const CURVE: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

/// A volume host's folder of certificates: `ca-cert.pem`, `server-cert.pem`, `server-key.pem`, and `ca-key.pem` where it
/// gives them out. Compute hosts' are below `hosts/NAME`: `ca-cert.pem`, `client-cert.pem`, `client-key.pem`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFolder {
    /// The folder.
    pub path: PathBuf,
    /// The name in the server's certificate.
    pub server_name: String,
}

/// The subject of a host's certificate, as QEMU writes it.
pub(super) fn subject(host: &HostName) -> String {
    format!("CN={host}")
}

/// A name that can stand in a certificate, in a path and in QEMU's rules, and means itself there.
fn check_name(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if (1..=64).contains(&name.len()) && name.chars().all(plain) && !name.starts_with(['-', '.']) {
        return Ok(());
    }
    let source: BoxError = format!("{name:?} is no name for a certificate").into();
    Err(VolumeDriverError::failed(DURING, source))
}

impl TlsFolder {
    /// Makes authority and server certificate, as far as they are not there. Where an operator has put a certificate of an
    /// authority of theirs, nothing is made.
    pub async fn ensure(&self) -> Result<()> {
        check_name(&self.server_name)?;
        let folder = self.path.clone();
        blocking(DURING, move || private_folder(&folder)).await?;
        if !self.path.join("ca-cert.pem").exists() {
            self.make_authority().await?;
        }
        if !self.path.join("server-cert.pem").exists() {
            self.sign(&self.path, "server", &self.server_name).await?;
        }
        Ok(())
    }

    /// The folder of a host's certificate, made if it is not there. What was begun and did not end is made anew.
    pub async fn issue(&self, host: &HostName) -> Result<PathBuf> {
        check_name(host.as_str())?;
        let folder = self.path.join("hosts").join(host.as_str());
        if folder.join("client-cert.pem").exists() {
            return Ok(folder);
        }
        if !self.path.join("ca-key.pem").exists() {
            let source: BoxError = format!("the authority's key, ca-key.pem, is not in {}", self.path.display()).into();
            return Err(VolumeDriverError::failed(DURING, source));
        }
        let (made, authority) = (folder.clone(), self.path.join("ca-cert.pem"));
        blocking(DURING, move || {
            private_folder(&made)?;
            fs::copy(authority, made.join("ca-cert.pem")).map(drop)
        })
        .await?;
        self.sign(&folder, "client", host.as_str()).await?;
        Ok(folder)
    }

    /// As [`TlsFolder::issue`], in the place of one that is there. The old one is not withdrawn.
    pub async fn renew(&self, host: &HostName) -> Result<PathBuf> {
        check_name(host.as_str())?;
        let old = self.path.join("hosts").join(host.as_str()).join("client-cert.pem");
        blocking(DURING, move || files::remove(&old)).await?;
        self.issue(host).await
    }

    async fn make_authority(&self) -> Result<()> {
        let (key, cert) = (self.path.join("ca-key.pem"), files::unfinished(&self.path.join("ca-cert.pem")));
        let mut words: Vec<&std::ffi::OsStr> = ["req", "-x509"].iter().chain(CURVE).map(AsRef::as_ref).collect();
        let rest = [
            "-days",
            DAYS,
            "-subj",
            "/CN=Nova volumes",
            "-addext",
            "basicConstraints=critical,CA:TRUE",
            "-addext",
            "keyUsage=critical,keyCertSign,cRLSign",
            "-keyout",
        ];
        words.extend(rest.iter().map(AsRef::<std::ffi::OsStr>::as_ref));
        words.extend([key.as_os_str(), "-out".as_ref(), cert.as_os_str()]);
        openssl(words).await?;
        named(&cert, &self.path.join("ca-cert.pem")).await
    }

    /// Makes `KIND-key.pem` and `KIND-cert.pem` for that name.
    async fn sign(&self, folder: &Path, kind: &'static str, name: &str) -> Result<()> {
        let key = folder.join(format!("{kind}-key.pem"));
        let cert = folder.join(format!("{kind}-cert.pem"));
        let (request, made) = (folder.join("request.new"), files::unfinished(&cert));
        let rules = folder.join("rules.new");
        let usage = if kind == "server" { "serverAuth" } else { "clientAuth" };
        let text = format!(
            "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage={usage}\n\
             subjectAltName=DNS:{name}\n"
        );
        let path = rules.clone();
        blocking(DURING, move || fs::write(path, text)).await?;
        let subject = format!("/CN={name}");
        let mut words: Vec<&std::ffi::OsStr> = ["req"].iter().chain(CURVE).map(AsRef::as_ref).collect();
        words.extend(["-subj", &subject, "-keyout"].map(AsRef::<std::ffi::OsStr>::as_ref));
        words.extend([key.as_os_str(), "-out".as_ref(), request.as_os_str()]);
        openssl(words).await?;
        let (ca, ca_key) = (self.path.join("ca-cert.pem"), self.path.join("ca-key.pem"));
        let mut words: Vec<&std::ffi::OsStr> =
            ["x509", "-req", "-days", DAYS, "-in"].iter().map(AsRef::as_ref).collect();
        words.extend([request.as_os_str(), "-CA".as_ref(), ca.as_os_str(), "-CAkey".as_ref(), ca_key.as_os_str()]);
        words.extend(["-CAcreateserial".as_ref(), "-extfile".as_ref(), rules.as_os_str(), "-out".as_ref()]);
        words.push(made.as_os_str());
        openssl(words).await?;
        named(&made, &cert).await?;
        blocking(DURING, move || {
            files::remove(&request)?;
            files::remove(&rules)
        })
        .await
    }
}

async fn openssl(words: Vec<&std::ffi::OsStr>) -> Result<()> {
    tools::administer("openssl", words, DURING, LIMIT).await.map(drop)
}

/// Gives a finished certificate its name: what stands there is whole, and has its key beside it.
async fn named(from: &Path, to: &Path) -> Result<()> {
    let (from, to) = (from.to_owned(), to.to_owned());
    blocking(DURING, move || {
        fs::set_permissions(&from, fs::Permissions::from_mode(0o600))?;
        files::finish(&fs::File::open(&from)?, &from, &to)
    })
    .await
}

fn private_folder(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_that_could_mean_something_else_are_refused() {
        let temp = tempfile::tempdir().unwrap();
        let folder = TlsFolder { path: temp.path().to_owned(), server_name: "volumes1".into() };
        for name in ["", "..", "a/b", "a,O=x", "*", "a b", "-x", &"x".repeat(65), "ä"] {
            folder.issue(&name.into()).await.unwrap_err();
        }
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
        assert_eq!(subject(&"compute1.example".into()), "CN=compute1.example");
    }
}
