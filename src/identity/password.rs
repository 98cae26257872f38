//! Passwords: argon2id (RFC 9106) in PHC form, computed on a bounded number of threads that may block.

use std::sync::Arc;

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{ARGON2ID_IDENT, Algorithm, Argon2, Block, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use nova_core::contracts::BoxError;
use nova_core::entropy::Entropy;
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

use super::PasswordOptions;

/// A password in clear, which nothing prints.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Takes the password.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Draws a password of 132 random bits, of letters, digits, `-` and `_`.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        let mut bytes = [0; 18];
        entropy.fill(&mut bytes);
        let mut text = URL_SAFE_NO_PAD.encode(bytes);
        text.truncate(22);
        Self(text)
    }

    /// The password in clear, for whoever has to hand it to its owner.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(***)")
    }
}

/// Why a password could not be dealt with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PasswordError {
    /// Too many are waiting already: come back later.
    #[error("too many logins at once")]
    Busy,
    /// The hash function refused its parameters, or its thread died.
    #[error("a password could not be hashed")]
    Failed(#[source] BoxError),
}

/// Hashes and checks passwords.
pub(super) struct Passwords {
    params: Params,
    inline: bool,
    /// Who may wait.
    queue: Arc<Semaphore>,
    /// Who may compute.
    running: Arc<Semaphore>,
    /// The hash of nobody's password, checked where there is no user.
    nobody: String,
    entropy: Arc<dyn Entropy>,
}

impl Passwords {
    pub(super) fn new(options: &PasswordOptions, entropy: Arc<dyn Entropy>) -> Result<Self, PasswordError> {
        let params = Params::new(options.memory_kib, options.passes, options.lanes, None)
            .map_err(|error| PasswordError::Failed(Box::new(error)))?;
        let mut random = [0; 48];
        entropy.fill(&mut random);
        let (salt, output) = random.split_at(16);
        let nobody = format!(
            "$argon2id$v=19$m={},t={},p={}${}${}",
            options.memory_kib,
            options.passes,
            options.lanes,
            STANDARD_NO_PAD.encode(salt),
            STANDARD_NO_PAD.encode(output)
        );
        Ok(Self {
            params,
            inline: options.inline,
            queue: Arc::new(Semaphore::new(options.max_waiting.saturating_add(options.threads))),
            running: Arc::new(Semaphore::new(options.threads.max(1))),
            nobody,
            entropy,
        })
    }

    /// The hash to be stored, in PHC form.
    pub(super) async fn hash(&self, password: Password) -> Result<String, PasswordError> {
        let mut salt = [0; 16];
        self.entropy.fill(&mut salt);
        let params = self.params.clone();
        self.compute(move || hash(params, &password, &salt).map_err(PasswordError::Failed)).await?
    }

    /// Is it the password of that hash? Without a hash the same work is done, and the answer is no.
    pub(super) async fn verify(&self, password: Password, hash: Option<&str>) -> Result<bool, PasswordError> {
        let known = hash.is_some();
        let text = hash.unwrap_or(&self.nobody).to_owned();
        let matches = self.compute(move || verify(&password, &text).unwrap_or(false)).await?;
        Ok(matches && known)
    }

    async fn compute<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, PasswordError> {
        let Ok(place) = Arc::clone(&self.queue).try_acquire_owned() else { return Err(PasswordError::Busy) };
        let failed = |error: BoxError| PasswordError::Failed(error);
        let turn = Arc::clone(&self.running).acquire_owned().await.map_err(|error| failed(Box::new(error)))?;
        if self.inline {
            return Ok(work());
        }
        // The permits go with the work: a client that gives up does not make room for another before its work is done.
        tokio::task::spawn_blocking(move || {
            let result = work();
            drop((turn, place));
            result
        })
        .await
        .map_err(|error| failed(Box::new(error)))
    }
}

/// The PHC form of a password's hash.
fn hash(params: Params, password: &Password, salt: &[u8]) -> Result<String, BoxError> {
    let output = derive(&params, password, salt, Params::DEFAULT_OUTPUT_LEN)?;
    let hash = PasswordHash {
        algorithm: ARGON2ID_IDENT,
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(&params)?,
        salt: Some(Salt::new(salt)?),
        hash: Some(Output::new(&output)?),
    };
    Ok(hash.to_string())
}

/// `None` for a text that is no hash of ours.
fn verify(password: &Password, text: &str) -> Option<bool> {
    let hash = PasswordHash::new(text).ok()?;
    let (salt, expected) = (hash.salt?, hash.hash?);
    if hash.algorithm != ARGON2ID_IDENT || hash.version != Some(Version::V0x13.into()) {
        return None;
    }
    let params = Params::try_from(&hash).ok()?;
    let output = derive(&params, password, salt.as_ref(), expected.as_bytes().len()).ok()?;
    Some(output.ct_eq(expected.as_bytes()).into())
}

/// More than glibc ever takes from its own heaps: the memory of a hash is given back to the system at once, where it would
/// otherwise stay with each thread that ever hashed. What is not used of it costs nothing.
const RESERVED: usize = 33 * 1024;

fn derive(params: &Params, password: &Password, salt: &[u8], length: usize) -> Result<Vec<u8>, BoxError> {
    let blocks = params.block_count();
    let mut memory = Vec::new();
    memory.try_reserve_exact(blocks.max(RESERVED))?;
    memory.resize(blocks, Block::new());
    let mut output = vec![0; length];
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
    argon.hash_password_into_with_memory(password.0.as_bytes(), salt, &mut output, &mut memory)?;
    Ok(output)
}

impl std::fmt::Debug for Passwords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Passwords").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use argon2::{PasswordHasher, PasswordVerifier};
    use nova_core::entropy::SeededEntropy;

    use super::*;

    fn passwords(options: PasswordOptions) -> Passwords {
        Passwords::new(&options, Arc::new(SeededEntropy::new(1))).unwrap()
    }

    #[tokio::test]
    async fn a_hash_knows_its_password_and_no_other() {
        let passwords = passwords(PasswordOptions::cheap());
        let hash = passwords.hash(Password::new("secret")).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=8,t=1,p=1$"), "{hash}");
        assert!(passwords.verify(Password::new("secret"), Some(&hash)).await.unwrap());
        assert!(!passwords.verify(Password::new("Secret"), Some(&hash)).await.unwrap());
        assert!(!passwords.verify(Password::new("secret"), Some("damaged")).await.unwrap());
        assert_ne!(hash, passwords.hash(Password::new("secret")).await.unwrap(), "every hash has a salt of its own");
    }

    #[tokio::test]
    async fn hashes_are_what_others_make_of_them() {
        let passwords = passwords(PasswordOptions::cheap());
        let hash = passwords.hash(Password::new("secret")).await.unwrap();
        Argon2::default().verify_password(b"secret", &PasswordHash::new(&hash).unwrap()).unwrap();
        let params = Params::new(64, 3, 2, None).unwrap();
        let theirs = Argon2::from(params).hash_password_with_salt(b"secret", b"saltsaltsalt").unwrap().to_string();
        assert!(passwords.verify(Password::new("secret"), Some(&theirs)).await.unwrap());
        let other_kind = theirs.replace("argon2id", "argon2i");
        assert!(!passwords.verify(Password::new("secret"), Some(&other_kind)).await.unwrap());
    }

    #[tokio::test]
    async fn a_user_that_is_not_there_costs_a_full_hash() {
        let passwords = passwords(PasswordOptions::cheap());
        assert!(!passwords.verify(Password::new("secret"), None).await.unwrap());
        let nobody = PasswordHash::new(&passwords.nobody).unwrap();
        let hash = passwords.hash(Password::new("secret")).await.unwrap();
        let real = PasswordHash::new(&hash).unwrap();
        assert_eq!((nobody.algorithm, nobody.params), (real.algorithm, real.params));
    }

    #[tokio::test]
    async fn those_that_wait_are_bounded() {
        let passwords = passwords(PasswordOptions { max_waiting: 0, ..PasswordOptions::cheap() });
        let all = passwords.queue.available_permits() as u32;
        let _held = passwords.queue.acquire_many(all).await.unwrap();
        assert!(matches!(passwords.hash(Password::new("x")).await, Err(PasswordError::Busy)));
    }

    #[test]
    fn a_password_is_never_printed() {
        let password = Password::generate(&SeededEntropy::new(3));
        assert_eq!(password.reveal().len(), 22);
        assert!(!format!("{password:?}").contains(password.reveal()));
    }
}
