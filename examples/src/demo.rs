//! What `make run` shows once the services are up: an image, a flavor, a key pair, a server that boots, its console up
//! to the login banner, and how to go on. A second run finds the server with its records and boots nothing.

mod console;
mod guest;
mod image;
mod prepare;
mod screen;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::client::{Account, Client};
use crate::clouds;
pub use screen::Screen;

/// Of Nova's Train release: `networks: none` is known, and answers look alike in all later ones.
const MICROVERSION: &str = "2.79";

/// What the demonstration is told.
#[derive(Debug, Clone, clap::Args)]
pub struct DemoOptions {
    /// The state folder of nova-all or nova-api, where clouds.yaml is
    #[arg(long, value_name = "DIR")]
    pub state_path: PathBuf,
    /// Where the services log, to be named when something fails; without it nova-all.log in the state folder
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// The guest image, qcow2 or raw; without it a tiny one with nothing on it, for the fake driver
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,
    /// Name of the server
    #[arg(long, value_name = "NAME", default_value = "demo-1")]
    pub name: String,
    /// How long the server may take to its login banner
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub timeout: u32,
}

/// Shows it all.
///
/// # Errors
/// The step that failed, why, and where to look.
pub fn run(options: &DemoOptions, screen: &mut Screen) -> anyhow::Result<()> {
    let log = options.log.clone().unwrap_or_else(|| options.state_path.join("nova-all.log"));
    show(options, screen).with_context(|| format!("see {} for what the services say", log.display()))
}

fn show(options: &DemoOptions, screen: &mut Screen) -> anyhow::Result<()> {
    let config = clouds::path(&options.state_path);
    let sign_in = |cloud: &str| {
        let account = Account::read(&config, cloud)?;
        Client::sign_in(&account, Some(MICROVERSION)).with_context(|| format!("signing in as '{}'", account.username))
    };
    let (admin, demo) = (sign_in("nova")?, sign_in("nova-demo")?);
    screen.step("signed in as admin and demo")?;
    let image = image::ensure(&admin, options.image.as_deref(), screen)?;
    let flavor = prepare::flavor(&admin, screen)?;
    let guest = guest::Guest::new(&demo, &options.name, screen.deadline(Duration::from_secs(options.timeout.into())));
    let (id, banner) = match guest.find()? {
        Some(id) => {
            let banner = guest.show_found(&id, screen)?;
            (id, banner)
        }
        None => {
            prepare::key_pair(&demo, &options.state_path, screen)?;
            let id = guest.boot(&image, &flavor, screen)?;
            guest.wait_active(&id, screen)?;
            let banner = guest.follow_console(&id, screen)?;
            (id, banner)
        }
    };
    screen.text(&how_to_go_on(options, guest.console_address(&id).as_deref()))?;
    if !banner {
        bail!(
            "no login banner within {} s; the guest may still be booting: `openstack console log show {}`",
            options.timeout,
            options.name
        );
    }
    Ok(())
}

/// The last thing shown.
fn how_to_go_on(options: &DemoOptions, console: Option<&str>) -> String {
    let config = clouds::path(&options.state_path);
    let name = shell_word(&options.name);
    let mut text = String::new();
    let _ = write!(
        text,
        "
To go on, in another terminal (the client, once: pip install python-openstackclient):

  export OS_CLIENT_CONFIG_FILE={} OS_CLOUD=nova-demo
  openstack server list
  openstack console log show {name}
  openstack server delete {name}

Accounts and passwords are in that file; OS_CLOUD=nova is the administrator.
",
        shell_word(&config.display().to_string()),
    );
    if let Some(address) = console {
        let _ = write!(
            text,
            "
Its screen, in a browser, once and within a minute (`openstack console url show --novnc {name}` gives another address):

  {address}
",
        );
    }
    text
}

/// The text as one word of a shell.
fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./+:@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_name_the_real_things() {
        let options = DemoOptions {
            state_path: "/tmp/a cloud".into(),
            log: None,
            image: None,
            name: "demo-1".into(),
            timeout: 1,
        };
        let text = how_to_go_on(&options, Some("http://cloud/x"));
        assert!(
            text.contains("export OS_CLIENT_CONFIG_FILE='/tmp/a cloud/clouds.yaml' OS_CLOUD=nova-demo\n"),
            "{text}"
        );
        assert!(text.contains("openstack server delete demo-1\n"), "{text}");
        assert!(text.ends_with("\n\n  http://cloud/x\n"), "{text}");
        assert!(!how_to_go_on(&options, None).contains("screen"));
    }

    #[test]
    fn a_name_cannot_end_its_quotes() {
        assert_eq!(shell_word("it's"), r"'it'\''s'");
        assert_eq!(shell_word(""), "''");
        assert_eq!(shell_word("demo-1"), "demo-1");
    }
}
