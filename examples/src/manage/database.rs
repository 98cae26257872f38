//! `db sync`, `db version`.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use nova_core::options::{Config, common};
use nova_db::Store;

use super::Done;
use crate::cli::StartError;
use crate::parts;

pub(super) async fn sync(config: &Config, out: &mut (dyn Write + Send)) -> Done {
    parts::make_private(&config.get(&common::STATE_PATH))?;
    let store = open(config).await?;
    let (before, _) = versions(&*store).await?;
    store.migrate().await.map_err(|e| StartError::new("the database cannot be brought up to date", &e))?;
    let (after, _) = versions(&*store).await?;
    if before == after {
        writeln!(out, "the schema is current: version {after}")?;
    } else {
        writeln!(out, "the schema was brought from version {before} to {after}")?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn version(config: &Config, out: &mut (dyn Write + Send)) -> Done {
    let store = open(config).await?;
    let (found, needed) = versions(&*store).await?;
    writeln!(out, "found {found}, needed {needed}")?;
    if found < needed {
        writeln!(out, "older than this program: 'nova-manage db sync' brings it up to date")?;
    } else if found > needed {
        writeln!(out, "newer than this program: use the version of the program that made it")?;
    }
    Ok(if found == needed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn versions(store: &dyn Store) -> Result<(u32, u32), StartError> {
    store.schema_version().await.map_err(|e| StartError::new("the database cannot be used", &e))
}

/// The database of the services. One in memory is another process's, and can't be seen from here.
pub(super) async fn open(config: &Config) -> Result<Arc<dyn Store>, StartError> {
    let url = config.get(&common::DATABASE_CONNECTION);
    if url.starts_with("memory:") {
        return Err(StartError::because(
            "database.connection: what is in 'memory:' is known to the process alone that keeps it",
        ));
    }
    let path = url.strip_prefix("sqlite:").map(|path| path.strip_prefix("//").unwrap_or(path));
    // To open a file makes it; only 'db sync' is asked to.
    if let Some(folder) = path.and_then(|path| std::path::Path::new(path).parent())
        && !folder.as_os_str().is_empty()
        && !folder.exists()
    {
        return Err(StartError::because(format!("database.connection: there is no folder {}", folder.display())));
    }
    parts::open_store(config).await
}

/// The same, with the schema that this program knows.
pub(super) async fn open_current(config: &Config) -> Result<Arc<dyn Store>, StartError> {
    let store = open(config).await?;
    parts::require_current_schema(&*store).await?;
    Ok(store)
}
