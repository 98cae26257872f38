//! Accounts in a `clouds.yaml`.
//!
//! Only the form that the binaries write is read: nested keys, two spaces a level, plain or double-quoted values.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Who signs in, and where.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    /// The identity service's URL, with `/v3`.
    pub auth_url: String,
    /// Name of the user.
    pub username: String,
    /// The password. Not shown by `Debug`.
    pub password: String,
    /// Name of the project.
    pub project: String,
    /// Name of the user's domain.
    pub user_domain: String,
    /// Name of the project's domain.
    pub project_domain: String,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Account({} in {} at {})", self.username, self.project, self.auth_url)
    }
}

/// Why an account can't be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccountError {
    /// The file can't be read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// Something is not in the file.
    #[error("{} has no {what}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The path of keys.
        what: String,
    },
}

impl Account {
    /// The account of that name.
    ///
    /// # Errors
    /// The file can't be read or does not hold the account.
    pub fn read(path: &Path, cloud: &str) -> Result<Self, AccountError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| AccountError::Unreadable { path: path.to_owned(), source })?;
        let values = leaves(&text);
        let value = |key: &str| {
            let what = format!("clouds.{cloud}.auth.{key}");
            let found = values.get(&what).filter(|v| !v.is_empty()).cloned();
            found.ok_or_else(|| AccountError::Missing { path: path.to_owned(), what })
        };
        Ok(Self {
            auth_url: value("auth_url")?,
            username: value("username")?,
            password: value("password")?,
            project: value("project_name")?,
            user_domain: value("user_domain_name")?,
            project_domain: value("project_domain_name")?,
        })
    }
}

/// Every value under its path of keys.
fn leaves(text: &str) -> BTreeMap<String, String> {
    let mut above: Vec<(usize, &str)> = Vec::new();
    let mut values = BTreeMap::new();
    for line in text.lines() {
        let bare = line.trim_start();
        let Some((key, value)) = bare.split_once(':').filter(|_| !bare.starts_with('#')) else { continue };
        let depth = line.len() - bare.len();
        above.retain(|(outer, _)| *outer < depth);
        above.push((depth, key.trim()));
        let path: Vec<&str> = above.iter().map(|(_, key)| *key).collect();
        values.insert(path.join("."), plain(value.trim()));
    }
    values
}

/// A value without its quotes.
fn plain(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')) else {
        return value.trim_matches('\'').to_owned();
    };
    let mut text = String::new();
    let mut escaped = false;
    for c in inner.chars() {
        if c == '\\' && !escaped {
            escaped = true;
            continue;
        }
        text.push(c);
        escaped = false;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# how to find the cloud
clouds:
  nova:
    auth:
      auth_url: http://127.0.0.1:8774/identity/v3
      username: admin
      password: \"a:b#c\\\"d\\\\\"
      project_name: admin
      user_domain_name: Default
      project_domain_name: Default
    region_name: RegionOne
  nova-demo:
    auth:
      username: demo
";

    fn file() -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), TEXT).unwrap();
        file
    }

    #[test]
    fn an_account_is_read_whole() {
        let account = Account::read(file().path(), "nova").unwrap();
        assert_eq!(account.auth_url, "http://127.0.0.1:8774/identity/v3");
        assert_eq!((account.username.as_str(), account.password.as_str()), ("admin", "a:b#c\"d\\"));
        assert_eq!((account.project.as_str(), account.user_domain.as_str()), ("admin", "Default"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = Account::read(file().path(), "nova-demo").unwrap_err();
        assert!(error.to_string().ends_with("has no clouds.nova-demo.auth.auth_url"), "{error}");
        let error = Account::read(Path::new("/nonexistent/clouds.yaml"), "nova").unwrap_err();
        assert_eq!(error.to_string(), "/nonexistent/clouds.yaml cannot be read");
    }

    #[test]
    fn passwords_are_not_shown() {
        let account = Account::read(file().path(), "nova").unwrap();
        assert_eq!(format!("{account:?}"), "Account(admin in admin at http://127.0.0.1:8774/identity/v3)");
    }
}
