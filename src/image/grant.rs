//! Leave to read or to write one image for a while: what a compute host shows in the place of a token.
//!
//! To read, `EXPIRY.MAC`: EXPIRY is a Unix time in seconds, MAC is HMAC-SHA-256 (RFC 2104), in lower-case hexadecimal, over
//! `image-download:IMAGE:EXPIRY`. The conductor puts one into each order that names an image; the image service checks it
//! without asking anybody. To write an image's data once, `w.EXPIRY.LIMIT.MAC`: LIMIT is how many bytes there may be, and the MAC
//! is over `image-upload:IMAGE:EXPIRY:LIMIT`; an image that has its data takes no other. The key never leaves the control services, so a host can neither make a grant nor stretch one.

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use nova_core::entropy::Entropy;
use nova_core::ids::{ImageId, TaskId};
use nova_core::image::ImageGrant;
use nova_db::{SecretStore, StoreError};
use sha2::Sha256;

/// Under this name the key is in the store.
const NAME: &str = "image/grant-key/1";
/// Longer texts are not looked at: 20 digits, a dot, 64 hexadecimal digits.
const LONGEST: usize = 85;
/// The same with "w.", a limit of 20 digits and its dot.
const LONGEST_UPLOAD: usize = LONGEST + 23;

/// The key that makes and checks grants. Cheap to clone.
#[derive(Clone)]
pub struct GrantKey {
    mac: Hmac<Sha256>,
}

impl GrantKey {
    /// A key of these bytes; it should be 32 that nobody can guess.
    pub fn new(key: &[u8]) -> Self {
        // HMAC takes keys of any length; the error is of a trait that other codes share.
        let mac = Hmac::new_from_slice(key).unwrap_or_else(|_| Hmac::new(&Default::default()));
        Self { mac }
    }

    /// The key that all services of this deployment share; the first of them makes it.
    ///
    /// # Errors
    /// Whatever the store says.
    pub async fn shared(store: &dyn SecretStore, entropy: &dyn Entropy) -> Result<Self, StoreError> {
        let mut fresh = [0; 32];
        entropy.fill(&mut fresh);
        Ok(Self::new(&store.secret(NAME, &fresh).await?))
    }

    /// Leave to read this image until then.
    pub fn grant(&self, image: ImageId, until: Timestamp) -> ImageGrant {
        let expiry = until.as_second();
        let tag = self.over(image, expiry).finalize().into_bytes();
        let hex: String = tag.iter().map(|byte| format!("{byte:02x}")).collect();
        ImageGrant::new(format!("{expiry}.{hex}"))
    }

    /// Does this text give leave to read this image now? The comparison takes the same time wherever it fails.
    pub fn admits(&self, text: &str, image: ImageId, now: Timestamp) -> bool {
        let Some((expiry, tag)) = parse(text) else { return false };
        self.over(image, expiry).verify_slice(&tag).is_ok() && now.as_second() < expiry
    }

    /// The secret that lets one host fetch the disks of a guest from another, while one task lasts.
    pub fn disk_grant(&self, task: TaskId, until: Timestamp) -> String {
        let mut mac = self.mac.clone();
        mac.update(format!("disk-transfer:{task}:{}", until.as_second()).as_bytes());
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Leave to write this image's data, up to so many bytes, until then.
    pub fn grant_upload(&self, image: ImageId, limit: u64, until: Timestamp) -> ImageGrant {
        let expiry = until.as_second();
        let tag = self.over_upload(image, expiry, limit).finalize().into_bytes();
        let hex: String = tag.iter().map(|byte| format!("{byte:02x}")).collect();
        ImageGrant::new(format!("w.{expiry}.{limit}.{hex}"))
    }

    /// How many bytes of data this text gives leave to write into this image now; `None`: it does not.
    pub fn upload_limit(&self, text: &str, image: ImageId, now: Timestamp) -> Option<u64> {
        let (expiry, limit, tag) = parse_upload(text)?;
        let good = self.over_upload(image, expiry, limit).verify_slice(&tag).is_ok() && now.as_second() < expiry;
        good.then_some(limit)
    }

    fn over(&self, image: ImageId, expiry: i64) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        mac.update(format!("image-download:{image}:{expiry}").as_bytes());
        mac
    }

    fn over_upload(&self, image: ImageId, expiry: i64, limit: u64) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        mac.update(format!("image-upload:{image}:{expiry}:{limit}").as_bytes());
        mac
    }
}

impl std::fmt::Debug for GrantKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GrantKey(***)")
    }
}

/// Expiry and MAC, of exactly the form in which they are written: a grant has one spelling.
fn parse(text: &str) -> Option<(i64, [u8; 32])> {
    if text.len() > LONGEST {
        return None;
    }
    let (expiry, hex) = text.split_once('.')?;
    let number: i64 = expiry.parse().ok()?;
    (number.to_string() == expiry).then_some((number, tag_of(hex)?))
}

/// Expiry, limit and MAC of a leave to write, as strictly.
fn parse_upload(text: &str) -> Option<(i64, u64, [u8; 32])> {
    if text.len() > LONGEST_UPLOAD {
        return None;
    }
    let (expiry, rest) = text.strip_prefix("w.")?.split_once('.')?;
    let (limit, hex) = rest.split_once('.')?;
    let (until, bytes): (i64, u64) = (expiry.parse().ok()?, limit.parse().ok()?);
    (until.to_string() == expiry && bytes.to_string() == limit).then_some((until, bytes, tag_of(hex)?))
}

fn tag_of(hex: &str) -> Option<[u8; 32]> {
    if hex.len() != 64 {
        return None;
    }
    let mut tag = [0; 32];
    for (byte, pair) in tag.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(tag)
}

fn digit(text: u8) -> Option<u8> {
    match text {
        b'0'..=b'9' => Some(text - b'0'),
        b'a'..=b'f' => Some(text - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use nova_core::entropy::SeededEntropy;

    use super::*;

    const IMAGE: &str = "70a599e0-31e7-49b7-b260-868f441e862b";

    fn image() -> ImageId {
        IMAGE.parse().unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_grant_is_good_for_its_image_until_its_last_second() {
        let key = GrantKey::new(&[7; 32]);
        let grant = key.grant(image(), at(1000) + SignedDuration::from_millis(1));
        assert!(grant.reveal().starts_with("1000."), "{}", grant.reveal());
        assert!(key.admits(grant.reveal(), image(), at(0)));
        assert!(key.admits(grant.reveal(), image(), at(1000) - SignedDuration::from_nanos(1)));
        assert!(!key.admits(grant.reveal(), image(), at(1000)));
        let other = "80a599e0-31e7-49b7-b260-868f441e862b".parse().unwrap();
        assert!(!key.admits(grant.reveal(), other, at(0)));
        assert!(!GrantKey::new(&[8; 32]).admits(grant.reveal(), image(), at(0)));
    }

    /// From another implementation: `hmac.new(bytes([7]) * 32, b"image-download:70a5…:1000", "sha256").hexdigest()`.
    #[test]
    fn the_form_is_the_documented_one() {
        let known = "1000.a58eadb2c3aecaff2aeb9e400a1ce6975904b984323b4f8247ab4dcb6741792c";
        assert_eq!(GrantKey::new(&[7; 32]).grant(image(), at(1000)).reveal(), known);
    }

    #[test]
    fn leave_to_write_is_of_one_image_and_a_size_and_none_to_read() {
        let key = GrantKey::new(&[7; 32]);
        let grant = key.grant_upload(image(), 5000, at(1000));
        let text = grant.reveal();
        assert!(text.starts_with("w.1000.5000."), "{text}");
        assert_eq!(key.upload_limit(text, image(), at(999)), Some(5000));
        assert_eq!(key.upload_limit(text, image(), at(1000)), None);
        let other = "80a599e0-31e7-49b7-b260-868f441e862b".parse().unwrap();
        assert_eq!(key.upload_limit(text, other, at(0)), None);
        assert_eq!(key.upload_limit(&text.replace(".5000.", ".50000."), image(), at(0)), None);
        assert_eq!(GrantKey::new(&[8; 32]).upload_limit(text, image(), at(0)), None);
        assert!(!key.admits(text, image(), at(0)));
        assert_eq!(key.upload_limit(key.grant(image(), at(1000)).reveal(), image(), at(0)), None);
        for place in 0..text.len() {
            assert_eq!(key.upload_limit(&text[..place], image(), at(0)), None, "{place}");
        }
    }

    #[test]
    fn no_change_goes_unnoticed() {
        let key = GrantKey::new(&[7; 32]);
        let grant = key.grant(image(), at(1000)).reveal().to_owned();
        for place in 0..grant.len() {
            for other in ["0", "9", "a", "f", "A", ".", "-", " ", ""] {
                let mut forged = grant.clone();
                forged.replace_range(place..=place, other);
                assert!(forged == grant || !key.admits(&forged, image(), at(0)), "{forged}");
            }
            assert!(!key.admits(&grant[..place], image(), at(0)), "{place}");
        }
        let (expiry, tag) = grant.split_once('.').unwrap();
        for text in
            [format!("{grant}0"), format!("+{grant}"), format!("0{grant}"), format!("{expiry}.{}", tag.to_uppercase())]
        {
            assert!(!key.admits(&text, image(), at(0)), "{text}");
        }
    }

    #[test]
    fn garbage_is_no_grant() {
        let key = GrantKey::new(&[7; 32]);
        let long = "9".repeat(100_000);
        let zeros = "0".repeat(64);
        let texts =
            ["", ".", "..", "1000", "1000.", &format!("99999999999999999999.{zeros}"), &format!(".{zeros}"), &long];
        for text in texts.into_iter().chain(["1000.\u{e4}\u{e4}", "\u{0}", &format!("1000.{}", "\u{e4}".repeat(32))]) {
            assert!(!key.admits(text, image(), at(0)), "{text:.40}");
        }
        for (text, until) in [("the first second", Timestamp::MIN), ("the last second", Timestamp::MAX)] {
            let grant = key.grant(image(), until);
            assert_eq!(key.admits(grant.reveal(), image(), at(0)), until == Timestamp::MAX, "{text}");
        }
    }

    #[tokio::test]
    async fn all_services_get_the_same_key_and_none_shows_it() {
        let store = nova_db::MemoryStore::new();
        let one = GrantKey::shared(&store, &SeededEntropy::new(1)).await.unwrap();
        let two = GrantKey::shared(&store, &SeededEntropy::new(2)).await.unwrap();
        assert!(two.admits(one.grant(image(), at(10)).reveal(), image(), at(0)));
        assert_eq!(format!("{one:?}"), "GrantKey(***)");
    }
}
