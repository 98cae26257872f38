//! `clouds.yaml`: how the unmodified clients find the cloud and log in.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nova::identity::{Account, IdentityManager};

use crate::cli::StartError;

/// The file in a state folder.
pub fn path(state: &Path) -> PathBuf {
    state.join("clouds.yaml")
}

/// Makes users and passwords at the first start and writes the file. A first start that was cut short is done again:
/// until the file is there, nobody can have used the passwords.
pub async fn write_at_first_start(
    identity: &IdentityManager,
    state: &Path,
    public_url: &str,
) -> Result<bool, StartError> {
    let unfinished = state.join("clouds.yaml.unfinished");
    let failed = |error: &dyn std::error::Error| StartError::new("the first users cannot be made", error);
    let _turn = turn(state).await.map_err(|e| failed(&e))?;
    let resumed = unfinished.exists();
    // A cloud that has its accounts from elsewhere is none that this folder began: its passwords stay what they are.
    if !path(state).exists() && !identity.has_admin().await.map_err(|e| failed(&e))? {
        File::create(&unfinished).map_err(|e| failed(&e))?;
    }
    let mut made = identity.bootstrap().await.map_err(|e| failed(&e))?;
    if resumed && !path(state).exists() {
        let lost = ["admin", "demo"].into_iter().filter(|name| made.accounts.iter().all(|a| a.user != *name));
        for name in lost.collect::<Vec<_>>() {
            if let Some(password) = identity.reset_password(name).await.map_err(|e| failed(&e))? {
                let domain = "Default".to_owned();
                made.accounts.push(Account { user: name.into(), project: name.into(), domain, password });
            }
        }
    }
    if made.accounts.is_empty() {
        let _ = std::fs::remove_file(&unfinished);
        return Ok(false);
    }
    write(&path(state), &render(&made.accounts, public_url)).map_err(|e| failed(&e))?;
    std::fs::remove_file(&unfinished).map_err(|e| failed(&e))?;
    Ok(true)
}

/// One process after the other: what is unfinished may be another's that is at it now.
async fn turn(state: &Path) -> std::io::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(state.join("clouds.yaml.lock"))?;
    let locked = tokio::task::spawn_blocking(move || file.lock().map(|()| file)).await;
    locked.map_err(std::io::Error::other)?
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let part = path.with_extension("part");
    let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(&part)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&part, path)
}

fn render(accounts: &[Account], public_url: &str) -> String {
    let mut text = String::from("clouds:\n");
    for account in accounts {
        let cloud = if account.user == "admin" { "nova".to_owned() } else { format!("nova-{}", account.user) };
        text.push_str(&format!(
            "  {cloud}:\n    auth:\n      auth_url: {public_url}/identity/v3\n      username: {}\n      password: {:?}\n      \
             project_name: {}\n      user_domain_name: {domain}\n      project_domain_name: {domain}\n    \
             region_name: RegionOne\n    identity_api_version: 3\n",
            account.user,
            account.password.reveal(),
            account.project,
            domain = account.domain,
        ));
    }
    text
}
