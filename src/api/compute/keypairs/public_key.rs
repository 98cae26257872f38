//! Public keys as users bring them: is it one, and what is its fingerprint? (nova/crypto.py, `generate_fingerprint`;
//! the wire forms are those of RFC 4253 section 6.6, RFC 5656, RFC 8709 and OpenSSH's PROTOCOL.u2f.)

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use nova_core::entropy::Entropy;
use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::{LineEnding, PrivateKey};

/// The comment on keys that are made here; Nova's own.
const COMMENT: &str = "Generated-by-Nova";

/// The text that all that is no key gets.
pub const NO_FINGERPRINT: &str = "failed to generate fingerprint";

/// The MD5 fingerprint, in colon form, of a key in OpenSSH's one-line form.
///
/// # Errors
/// Nova's text, for anything that is not a whole, well-formed public key of a type that OpenSSH knows.
pub fn fingerprint(public_key: &str) -> Result<String, String> {
    let blob = blob(public_key).ok_or_else(|| NO_FINGERPRINT.to_owned())?;
    Ok(colons(&Md5::digest(&blob)))
}

/// Hexadecimal pairs with colons between.
pub fn colons(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
}

/// A key pair that was made here. The private half is shown once and kept nowhere.
pub struct Generated {
    /// OpenSSH's PEM form.
    pub private_key: String,
    /// One line.
    pub public_key: String,
}

/// Makes an Ed25519 key pair.
///
/// # Errors
/// When the key cannot be encoded, which does not happen to keys of this type.
pub fn generate(entropy: &dyn Entropy) -> Result<Generated, ssh_key::Error> {
    let mut seed = [0; 32];
    entropy.fill(&mut seed);
    let pair = Ed25519Keypair::from_seed(&seed);
    let key = PrivateKey::new(KeypairData::Ed25519(pair), COMMENT)?;
    Ok(Generated {
        private_key: key.to_openssh(LineEnding::LF)?.to_string(),
        public_key: key.public_key().to_openssh()?,
    })
}

/// The binary key, if the line is `TYPE BASE64 [COMMENT]` and the blob holds a key of just that type.
fn blob(public_key: &str) -> Option<Vec<u8>> {
    let line = public_key.trim_end_matches(['\r', '\n']);
    if line.contains(['\r', '\n']) {
        return None;
    }
    let mut words = line.split([' ', '\t']).filter(|w| !w.is_empty());
    let (kind, encoded) = (words.next()?, words.next()?);
    let blob = STANDARD.decode(encoded).ok()?;
    is_key(kind, &blob).then_some(blob)
}

fn is_key(kind: &str, blob: &[u8]) -> bool {
    let mut fields = Fields(blob);
    if fields.next() != Some(kind.as_bytes()) {
        return false;
    }
    let good = match kind {
        "ssh-ed25519" => fields.next().is_some_and(|key| key.len() == 32),
        "ssh-rsa" => fields.integer().is_some() && fields.integer().is_some_and(|n| n.len() >= 64),
        "ssh-dss" => (0..4).all(|_| fields.integer().is_some()),
        "ecdsa-sha2-nistp256" => fields.point(b"nistp256", 32),
        "ecdsa-sha2-nistp384" => fields.point(b"nistp384", 48),
        "ecdsa-sha2-nistp521" => fields.point(b"nistp521", 66),
        "sk-ssh-ed25519@openssh.com" => fields.next().is_some_and(|key| key.len() == 32) && fields.application(),
        "sk-ecdsa-sha2-nistp256@openssh.com" => fields.point(b"nistp256", 32) && fields.application(),
        _ => false,
    };
    good && fields.0.is_empty()
}

/// What is left of a blob of length-prefixed fields.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let field = rest.get(..length)?;
        self.0 = rest.get(length..)?;
        Some(field)
    }

    /// A positive integer, RFC 4251's `mpint`.
    fn integer(&mut self) -> Option<&'a [u8]> {
        self.next().filter(|n| n.first().is_some_and(|high| high & 0x80 == 0))
    }

    /// A curve's name and an uncompressed point on it, two coordinates of `size` bytes.
    fn point(&mut self, curve: &[u8], size: usize) -> bool {
        self.next() == Some(curve) && self.next().is_some_and(|p| p.len() == 1 + 2 * size && p.first() == Some(&4))
    }

    fn application(&mut self) -> bool {
        self.next().is_some_and(|name| !name.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use nova_core::entropy::SeededEntropy;

    use super::*;

    /// A key and its fingerprint as `ssh-keygen -l -E md5` prints it.
    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti user@example.com";

    #[test]
    fn the_fingerprint_is_that_of_the_blob() {
        assert_eq!(fingerprint(KEY).unwrap(), "ae:6f:ba:1b:70:2c:ae:c7:5c:ab:6e:4d:5e:d4:c7:23");
        assert_eq!(fingerprint(&format!("{KEY}\n")).unwrap(), fingerprint(KEY).unwrap());
    }

    #[test]
    fn what_is_no_key_has_none() {
        let encoded = KEY.split(' ').nth(1).unwrap();
        for bad in [
            "",
            "ssh-rsa",
            "ssh-rsa JUNK",
            "ssh-rsa A",
            "junk junk junk",
            // The type in the blob must match the one before it.
            &format!("ssh-rsa {encoded}"),
            &format!("ssh-ed25519 {}", &encoded[..20]),
            &format!("ssh-ed25519 {encoded}AAAA"),
            &format!("{KEY}\n{KEY}"),
        ] {
            assert_eq!(fingerprint(bad).unwrap_err(), NO_FINGERPRINT, "{bad}");
        }
    }

    #[test]
    fn other_types_are_read_to_their_end() {
        let field = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
        let line = |kind: &str, fields: &[&[u8]]| {
            let blob: Vec<u8> =
                std::iter::once(kind.as_bytes()).chain(fields.iter().copied()).flat_map(field).collect();
            format!("{kind} {}", STANDARD.encode(blob))
        };
        let point = [&[4_u8][..], &[7; 64]].concat();
        let (e, n) = ([1_u8, 0, 1], [&[0_u8][..], &[0xff; 256]].concat());
        assert!(fingerprint(&line("ssh-rsa", &[&e, &n])).is_ok());
        assert!(fingerprint(&line("ecdsa-sha2-nistp256", &[b"nistp256", &point])).is_ok());
        assert!(fingerprint(&line("sk-ssh-ed25519@openssh.com", &[&[1; 32], b"ssh:"])).is_ok());
        assert!(fingerprint(&line("ssh-rsa", &[&e])).is_err());
        assert!(fingerprint(&line("ssh-rsa", &[&e, &n, &n])).is_err());
        assert!(fingerprint(&line("ssh-rsa", &[&e, &[3; 8]])).is_err());
        assert!(fingerprint(&line("ecdsa-sha2-nistp256", &[b"nistp384", &point])).is_err());
        assert!(fingerprint(&line("ssh-ed25519", &[&[1; 31]])).is_err());
    }

    #[test]
    fn generated_keys_are_keys_that_openssh_reads() {
        let made = generate(&SeededEntropy::new(1)).unwrap();
        assert!(fingerprint(&made.public_key).is_ok());
        assert!(made.public_key.ends_with(" Generated-by-Nova"));
        let read = PrivateKey::from_openssh(&made.private_key).unwrap();
        assert_eq!(read.public_key().to_openssh().unwrap(), made.public_key);
        assert_ne!(generate(&SeededEntropy::new(2)).unwrap().private_key, made.private_key);
    }
}
