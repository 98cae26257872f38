//! A screen says anything: the proxy's login to it ends, in success only after the screen's version and its word that all is
//! well, and takes no memory beyond its bounds.

use std::sync::{Arc, OnceLock};

use nova::console::proxy::{LoggedIn, Scheme, ServerLogin, log_in};
use tokio::io::{AsyncWriteExt, duplex};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

const VERSION: &[u8] = b"RFB 003.008\n";

/// What screens say that let a proxy in, or refuse it.
pub fn seeds() -> Vec<Vec<u8>> {
    let with_version = |rest: &[u8]| [VERSION, rest].concat();
    vec![
        with_version(b"\x01\x01\0\0\0\0"),
        with_version(b"\x02\x01\x020123456789abcdef\0\0\0\0"),
        with_version(b"\x01\x020123456789abcdef\0\0\0\x01\0\0\0\x05wrong"),
        with_version(b"\0\0\0\0\x04busy"),
        // VeNCrypt, its subtypes, and what begins as TLS does.
        with_version(b"\x01\x13\0\x02\0\x02\0\0\x01\x04\0\0\x01\x05\x01\x16\x03\x03\0\x04\x02\0\0\0"),
        with_version(b"\x01\x13\0\x02\0\x01\0\0\x01\x01"),
    ]
}

/// Runs it.
pub fn run(said: &[u8]) {
    crate::runtime().block_on(async {
        let (ours, mut screen) = duplex(said.len() + (64 << 10));
        screen.write_all(said).await.expect("there is room");
        screen.shutdown().await.expect("an end");
        match log_in(ours, "screen", login()).await {
            Ok(LoggedIn::Plain(_)) => {
                assert!(said.starts_with(VERSION));
                let word = said.windows(4).skip(VERSION.len()).any(|four| four == [0; 4]);
                assert!(word, "it did not say that all is well");
            }
            Ok(LoggedIn::Tls(_)) => panic!("nobody here has a certificate of an authority that there is not"),
            Err(_) => {}
        }
    });
}

/// Everything that a proxy may know, but no authority.
fn login() -> &'static ServerLogin {
    static LOGIN: OnceLock<ServerLogin> = OnceLock::new();
    LOGIN.get_or_init(|| {
        let config = ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        ServerLogin {
            schemes: vec![Scheme::VeNCrypt, Scheme::Password, Scheme::None],
            password: Some("secret".to_owned()),
            tls: Some(TlsConnector::from(Arc::new(config))),
        }
    })
}
