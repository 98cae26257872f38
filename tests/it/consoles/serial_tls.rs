//! Serial ports over TLS between proxy and host.

use std::path::{Path, PathBuf};

use nova::console::CONSOLE_OPTIONS;
use nova::console::proxy::ProxyOptions;
use nova_compute::SerialTls;
use nova_core::options::{Config, Registry, Source, common};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::rig::{Browser, Rig, serve_serial_ports_with};

/// An authority and the two certificates that it has signed, as files.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
        write("ca.pem", root.pem());
        for (name, of) in [("host", "127.0.0.1"), ("proxy", "proxy")] {
            let key = KeyPair::generate().unwrap();
            let signed = CertificateParams::new(vec![of.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
            write(&format!("{name}.pem"), signed.pem());
            write(&format!("{name}.key"), key.serialize_pem());
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What hosts serve with.
    fn host(&self) -> SerialTls {
        SerialTls {
            certificate: self.path("host.pem"),
            key: self.path("host.key"),
            client_authorities: Some(self.path("ca.pem")),
        }
    }

    /// What proxies are told by their configuration.
    fn proxy(&self, certificate: bool) -> String {
        let own = format!("client_cert = {0}/proxy.pem\nclient_key = {0}/proxy.key\n", self.folder.path().display());
        format!(
            "[serial_console]\nca_certs = {}\n{}",
            self.path("ca.pem").display(),
            if certificate { &own } else { "" }
        )
    }
}

fn options(text: &str) -> Result<ProxyOptions, String> {
    let registry = Registry::new().with(common::OPTIONS).with(CONSOLE_OPTIONS);
    let text = format!("[DEFAULT]\nstate_path = /state\n{text}");
    let config = Config::load(&registry, [(Source::File { path: "nova.conf".into() }, text.as_str())]).unwrap();
    ProxyOptions::from_config(&config).map_err(|error| error.to_string())
}

/// What a user is told who opens a serial port of such a host through such a proxy.
async fn opened(host: Option<SerialTls>, proxy: &str) -> Result<(Rig, Browser), u16> {
    serve_serial_ports_with(host);
    let tls = options(proxy).unwrap().serial_tls;
    let rig = Rig::with(|options| options.serial_tls.clone_from(&tls), Default::default(), 1).await;
    let id = rig.server().await;
    let token = rig.token_for(id, "serial", "serial").await;
    let (client, _) = rig.connect(&token).await?;
    Ok((rig, Browser::new(client)))
}

#[tokio::test]
async fn certificates_on_both_sides() {
    let files = Files::new();
    let (rig, mut browser) = opened(Some(files.host()), &files.proxy(true)).await.unwrap();
    assert!(browser.read(5).await.starts_with(b"\r\n"));
    browser.send(b"root\n").await;
    let mut said = Vec::new();
    while !said.ends_with(b"root\n") {
        said.extend_from_slice(&browser.read(1).await);
    }
    drop(rig);
}

#[tokio::test]
async fn the_wrong_certificate_none_and_no_tls() {
    let (files, other) = (Files::new(), Files::new());
    let refused = |host, proxy: String| async move { opened(host, &proxy).await.err() };
    assert_eq!(refused(Some(files.host()), other.proxy(true)).await, Some(502), "a host of another authority");
    assert_eq!(refused(Some(files.host()), files.proxy(false)).await, Some(502), "a proxy without a certificate");
    assert_eq!(refused(Some(files.host()), String::new()).await, Some(502), "a proxy without TLS");
    assert_eq!(refused(None, files.proxy(true)).await, Some(502), "a host without TLS");
    // Of another name: the address at which it is reached is not in it.
    let elsewhere = SerialTls { certificate: files.path("proxy.pem"), key: files.path("proxy.key"), ..files.host() };
    assert_eq!(refused(Some(elsewhere), files.proxy(true)).await, Some(502));
    let lenient = SerialTls { client_authorities: None, ..files.host() };
    assert_eq!(refused(Some(lenient), files.proxy(false)).await, None, "the host asks for none");
}

#[test]
fn what_does_not_go_together_is_refused_at_start() {
    let files = Files::new();
    let folder = |path: &Path| path.display().to_string();
    let (ca, cert) = (folder(&files.path("ca.pem")), folder(&files.path("proxy.pem")));
    for (group, prefix, more) in [("serial_console", "", ""), ("vnc", "vencrypt_", "auth_schemes = vencrypt\n")] {
        let error = |text: String| options(&format!("[{group}]\n{more}{text}")).err().unwrap_or_default();
        let alone = error(format!("{prefix}ca_certs = {ca}\n{prefix}client_cert = {cert}\n"));
        assert!(alone.starts_with(&format!("{group}.{prefix}client_key: ")), "{alone}");
        let empty = error(format!("{prefix}ca_certs = /dev/null\n"));
        assert!(empty.starts_with(&format!("{group}.{prefix}ca_certs: /dev/null: ")), "{empty}");
        let key =
            error(format!("{prefix}ca_certs = {ca}\n{prefix}client_cert = {cert}\n{prefix}client_key = {cert}\n"));
        assert!(key.starts_with(&format!("{group}.{prefix}client_key: ")), "{key}");
    }
    assert!(options("[vnc]\nauth_schemes = vencrypt\n").err().unwrap().starts_with("vnc.vencrypt_ca_certs: "));
    let own = format!("[serial_console]\nclient_cert = {cert}\nclient_key = {}\n", folder(&files.path("proxy.key")));
    assert!(options(&own).err().unwrap().starts_with("serial_console.ca_certs: "));
    assert!(options("").unwrap().serial_tls.is_none());
}
