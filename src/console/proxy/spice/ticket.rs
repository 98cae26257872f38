//! The password as a screen wants it: with a zero at its end, by RSA with the screen's key (OAEP with SHA-1, as SPICE has it).

use nova_core::entropy::Entropy;
use rsa::pkcs8::DecodePublicKey;
use rsa::rand_core::{CryptoRng, Error, RngCore};
use rsa::{Oaep, RsaPublicKey};
use sha1::Sha1;

/// A screen's key (`SPICE_TICKET_PUBKEY_BYTES`): RSA of 1024 bits, DER.
pub(super) const KEY: usize = 162;
/// What is encrypted with it.
pub(super) const TICKET: usize = 128;

/// `None`: the key is none, or not of that size.
pub(super) fn encrypt(key: &[u8], password: &str, entropy: &dyn Entropy) -> Option<Vec<u8>> {
    let key = RsaPublicKey::from_public_key_der(key).ok()?;
    let text = [password.as_bytes(), &[0]].concat();
    let encrypted = key.encrypt(&mut Drawn(entropy), Oaep::new::<Sha1>(), &text).ok()?;
    (encrypted.len() == TICKET).then_some(encrypted)
}

/// Our randomness, as that crate asks for it.
struct Drawn<'a>(&'a dyn Entropy);

impl RngCore for Drawn<'_> {
    fn next_u32(&mut self) -> u32 {
        self.0.next_u64() as u32
    }

    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.0.fill(bytes);
        Ok(())
    }
}

impl CryptoRng for Drawn<'_> {}

#[cfg(test)]
pub(super) mod tests {
    use nova_core::entropy::SeededEntropy;
    use rsa::RsaPrivateKey;
    use rsa::pkcs8::DecodePrivateKey;

    use super::*;

    /// A screen's key, made once for tests.
    pub(in super::super) fn screens_key() -> RsaPrivateKey {
        RsaPrivateKey::from_pkcs8_der(include_bytes!("testdata/key.der")).unwrap()
    }

    #[test]
    fn the_screen_reads_the_password() {
        let entropy = SeededEntropy::new(1);
        let key = screens_key();
        let public: &[u8; KEY] = include_bytes!("testdata/public.der");
        let ticket = encrypt(public, "canary", &entropy).unwrap();
        assert_eq!(key.decrypt(Oaep::new::<Sha1>(), &ticket).unwrap(), b"canary\0");
        assert_ne!(encrypt(public, "canary", &entropy).unwrap(), ticket, "another time another ticket");
        assert!(encrypt(&[0; KEY], "canary", &entropy).is_none());
        assert!(encrypt(public, &"x".repeat(100), &entropy).is_none(), "longer than the key allows");
    }
}
