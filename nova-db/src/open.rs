//! From a connection text to a store.

use std::sync::Arc;
use std::time::Duration;

use crate::{MemoryStore, Store, StoreError};

/// How to open a store.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OpenOptions {
    /// How many connections read a SQLite file at the same time.
    pub readers: u32,
    /// How many connections to a database server are open at most; what needs one more waits in line.
    pub connections: u32,
    /// How long to wait for another's lock: on a SQLite file, or on a row of a server.
    pub lock_timeout: Duration,
    /// How long an operation goes on trying while a database server is away, so that its restart is no error. Opening
    /// and `ping` do not wait.
    pub patience: Duration,
}

impl Default for OpenOptions {
    fn default() -> Self {
        let (lock_timeout, patience) = (Duration::from_secs(10), Duration::from_secs(5));
        Self { readers: 4, connections: 16, lock_timeout, patience }
    }
}

/// Opens the store that `database.connection` names: `memory:`, `sqlite:PATH`, `postgresql://…`, `mysql://…`, as far as
/// the features of that name are on. The schema is left as it is; see [`crate::Maintenance::migrate`]. A SQLite file is
/// created if its folder exists, readable by its owner only; a server's database must exist.
///
/// # Errors
/// [`StoreError::Connection`] for a text that cannot be used or a path that cannot be written,
/// [`StoreError::Unavailable`] for a database that does not answer.
pub async fn open(url: &str, options: &OpenOptions) -> Result<Arc<dyn Store>, StoreError> {
    let Some((scheme, rest)) = url.split_once(':') else {
        return Err(refused(url, "it is no URL: it begins with none of memory:, sqlite:, postgresql://, mysql://"));
    };
    // SQLAlchemy's name of a driver, as in `mysql+pymysql`, says nothing here.
    let database = scheme.split_once('+').map_or(scheme, |(database, _)| database);
    match database {
        "memory" if rest.is_empty() => Ok(Arc::new(MemoryStore::new())),
        "memory" => Err(refused(url, "nothing can follow 'memory:'")),
        "sqlite" => open_sqlite(url, rest, options).await,
        "postgresql" | "postgres" | "mysql" | "mariadb" if !rest.starts_with("//") => {
            Err(refused(url, &format!("it must begin with {database}://")))
        }
        #[cfg(feature = "postgres")]
        "postgresql" | "postgres" => Ok(Arc::new(crate::PostgresStore::connect(url, options).await?)),
        #[cfg(feature = "mysql")]
        "mysql" | "mariadb" => Ok(Arc::new(crate::MysqlStore::connect(url, options).await?)),
        #[cfg(not(feature = "postgres"))]
        "postgresql" | "postgres" => Err(refused(url, "support for postgresql is not built in")),
        #[cfg(not(feature = "mysql"))]
        "mysql" | "mariadb" => Err(refused(url, "support for mysql is not built in")),
        _ => Err(refused(url, "the scheme is unknown: known are memory:, sqlite:, postgresql://, mysql://")),
    }
}

#[cfg(feature = "sqlite")]
async fn open_sqlite(url: &str, rest: &str, options: &OpenOptions) -> Result<Arc<dyn Store>, StoreError> {
    // `sqlite:///var/lib/nova.db` is how SQLAlchemy writes it.
    let path = rest.strip_prefix("//").unwrap_or(rest);
    if path.is_empty() {
        return Err(refused(url, "the path of the file is missing"));
    }
    if path.starts_with(':') || path.contains('?') {
        return Err(refused(url, "only a path can follow 'sqlite:'; for a store in memory say 'memory:'"));
    }
    let store = crate::SqliteStore::open(path.as_ref(), options).await?;
    Ok(Arc::new(store))
}

#[cfg(not(feature = "sqlite"))]
async fn open_sqlite(url: &str, _rest: &str, _options: &OpenOptions) -> Result<Arc<dyn Store>, StoreError> {
    Err(refused(url, "support for sqlite is not built in"))
}

/// The error for a connection text, told without its password.
pub(crate) fn refused(url: &str, problem: &str) -> StoreError {
    StoreError::Connection { url: without_password(url), problem: problem.to_owned() }
}

/// `mysql://nova:secret@host/nova` as `mysql://nova:***@host/nova`. Whatever looks like a place for secrets is cut.
fn without_password(url: &str) -> String {
    let (address, query) = match url.split_once('?') {
        Some((address, _)) => (address, "?***"),
        None => (url, ""),
    };
    let Some((scheme, rest)) = address.split_once("://") else { return format!("{address}{query}") };
    let hidden = match rest.rsplit_once('@') {
        None => rest.to_owned(),
        Some((login, place)) => match login.split_once(':') {
            Some((user, _)) => format!("{user}:***@{place}"),
            None => rest.to_owned(),
        },
    };
    format!("{scheme}://{hidden}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_never_shown() {
        let cases = [
            ("mysql://nova:p@ss:w@db/nova", "mysql://nova:***@db/nova"),
            ("postgresql://nova@db/nova", "postgresql://nova@db/nova"),
            ("postgresql://db/nova?user=a&password=b", "postgresql://db/nova?***"),
            ("sqlite:/var/lib/nova.db", "sqlite:/var/lib/nova.db"),
        ];
        for (url, shown) in cases {
            assert_eq!(without_password(url), shown);
        }
    }

    #[tokio::test]
    async fn urls_that_cannot_be_used_are_refused_by_name() {
        for url in
            ["", "nova.db", "memory:x", "sqlite:", "sqlite::memory:", "postgresql:x", "mysql:x", "redis://u:geheim@h"]
        {
            let error = open(url, &OpenOptions::default()).await.err().unwrap();
            assert!(matches!(error, StoreError::Connection { .. }), "{url}: {error:?}");
            assert!(!error.to_string().contains("geheim"), "{error}");
        }
    }
}
