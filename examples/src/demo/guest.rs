//! The server: boots it, waits for it, shows its console.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::Screen;
use super::console::{Follower, has_banner, last_lines};
use super::prepare::KEY;
use crate::client::{Answer, Client, ClientError};

/// Runs in the guest at its first boot.
const USER_DATA: &str = "#!/bin/sh\necho \"user data: hello from $(hostname)\"\n";
const STATUS_INTERVAL: Duration = Duration::from_millis(100);
const CONSOLE_INTERVAL: Duration = Duration::from_secs(1);
/// How much of the console of a server that was found is shown.
const FOUND_LINES: usize = 8;

/// The server of that name.
pub(super) struct Guest<'a> {
    client: &'a Client,
    name: &'a str,
    deadline: Instant,
}

impl<'a> Guest<'a> {
    pub(super) fn new(client: &'a Client, name: &'a str, deadline: Instant) -> Self {
        Self { client, name, deadline }
    }

    /// Its id, if it is there.
    pub(super) fn find(&self) -> anyhow::Result<Option<String>> {
        let all = self.client.get("/servers").and_then(|a| a.list("servers"));
        let all = all.with_context(|| format!("looking for the server '{}'", self.name))?;
        Ok(all.iter().find(|s| s["name"] == self.name).and_then(|s| s["id"].as_str()).map(str::to_owned))
    }

    /// Asks for it; returns its id.
    pub(super) fn boot(&self, image: &str, flavor: &str, screen: &mut Screen) -> anyhow::Result<String> {
        let body = json!({"server": {
            "name": self.name, "imageRef": image, "flavorRef": flavor, "networks": "none", "config_drive": true,
            "key_name": KEY, "user_data": STANDARD.encode(USER_DATA),
        }});
        let doing = || format!("booting the server '{}'", self.name);
        let made = self.client.post("/servers", &body).with_context(doing)?;
        let id = made.text("/server/id").with_context(doing)?;
        screen.step(&format!("server {} accepted, id {id}", self.name))?;
        // Told once, here: nobody can ask for it later.
        if let Ok(password) = made.text("/server/adminPass") {
            screen.step(&format!("its password, if the image takes it: {password}"))?;
        }
        Ok(id)
    }

    /// Shows each change of its state until it is ACTIVE.
    pub(super) fn wait_active(&self, id: &str, screen: &mut Screen) -> anyhow::Result<()> {
        let mut last = String::new();
        loop {
            let server = self.read(id)?;
            let now = state(&server);
            if now != last {
                screen.step(&format!("server {} is {now}", self.name))?;
            }
            match server["status"].as_str() {
                Some("ACTIVE") => return Ok(()),
                Some("ERROR") => bail!("the server '{}' is in ERROR: {}", self.name, fault(&server)),
                _ => {}
            }
            self.pause(STATUS_INTERVAL, &format!("the server '{}' is still {now}", self.name))?;
            last = now;
        }
    }

    /// Shows its console as it is written. True: up to the login banner. False: the time was up before.
    pub(super) fn follow_console(&self, id: &str, screen: &mut Screen) -> anyhow::Result<bool> {
        let mut follower = Follower::default();
        loop {
            for line in follower.take(&self.console(id)?) {
                screen.guest(&line)?;
            }
            if follower.banner() {
                screen.step("the guest has booted up to its login banner")?;
                return Ok(true);
            }
            if self.pause(CONSOLE_INTERVAL, "").is_err() {
                return Ok(false);
            }
        }
    }

    /// Shows the server of an earlier run. True, unless it is still on its way and the time was up.
    pub(super) fn show_found(&self, id: &str, screen: &mut Screen) -> anyhow::Result<bool> {
        let server = self.read(id)?;
        let name = self.name;
        screen.step(&format!("server {name} found with its records: {}, id {id}", state(&server)))?;
        match server["status"].as_str() {
            Some("BUILD") => {
                self.wait_active(id, screen)?;
                return self.follow_console(id, screen);
            }
            Some("ERROR") => bail!(
                "the server '{name}' is in ERROR: {}; `openstack server delete {name}` makes room for another try",
                fault(&server)
            ),
            Some("ACTIVE") => {}
            _ => screen.step(&format!("it does not run; `openstack server start {name}` starts it"))?,
        }
        let log = match self.console(id) {
            Ok(log) => log,
            // A guest that does not run may have none.
            Err(error) if server["status"] != "ACTIVE" => {
                screen.step(&format!("no console: {error:#}"))?;
                return Ok(true);
            }
            Err(error) => return Err(error),
        };
        if server["status"] == "ACTIVE" && !has_banner(&log) {
            return self.follow_console(id, screen);
        }
        screen.step("the last lines of its console:")?;
        for line in last_lines(&log, FOUND_LINES) {
            screen.guest(&line)?;
        }
        Ok(true)
    }

    fn read(&self, id: &str) -> anyhow::Result<Value> {
        let answer = self.client.get(&format!("/servers/{id}"));
        let answer = answer.with_context(|| format!("looking at the server '{}'", self.name))?;
        Ok(answer.json()["server"].take())
    }

    fn console(&self, id: &str) -> anyhow::Result<String> {
        let doing = || format!("reading the console of '{}'", self.name);
        let ask = json!({"os-getConsoleOutput": {}});
        let answer = self.client.compute("POST", &format!("/servers/{id}/action"), Some(&ask)).with_context(doing)?;
        output(answer).with_context(doing)
    }

    /// A new address of its screen; none where there are no screens.
    pub(super) fn console_address(&self, id: &str) -> Option<String> {
        let ask = json!({"remote_console": {"protocol": "vnc", "type": "novnc"}});
        let client = self.client.at(Some("2.6"));
        let answer = client.compute("POST", &format!("/servers/{id}/remote-consoles"), Some(&ask)).ok()?;
        answer.accepted().ok()?.text("/remote_console/url").ok()
    }

    /// Waits a little, unless the time is up.
    fn pause(&self, time: Duration, otherwise: &str) -> anyhow::Result<()> {
        if Instant::now() + time > self.deadline {
            bail!("the time is up: {otherwise}");
        }
        std::thread::sleep(time);
        Ok(())
    }
}

/// A guest that is not ready yet (409) has written nothing.
fn output(answer: Answer) -> Result<String, ClientError> {
    match answer.status {
        409 => Ok(String::new()),
        _ => answer.accepted()?.text("/output"),
    }
}

/// Status and, in brackets, what is being done.
fn state(server: &Value) -> String {
    let status = server["status"].as_str().unwrap_or("UNKNOWN");
    match server["OS-EXT-STS:task_state"].as_str() {
        Some(task) => format!("{status} ({task})"),
        None => status.to_owned(),
    }
}

fn fault(server: &Value) -> &str {
    server["fault"]["message"].as_str().unwrap_or("no reason given")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_tells_what_is_being_done() {
        assert_eq!(state(&json!({"status": "BUILD", "OS-EXT-STS:task_state": "spawning"})), "BUILD (spawning)");
        assert_eq!(state(&json!({"status": "ACTIVE", "OS-EXT-STS:task_state": null})), "ACTIVE");
    }

    #[test]
    fn an_error_without_a_fault_says_so() {
        assert_eq!(fault(&json!({"fault": {"code": 500, "message": "No valid host"}})), "No valid host");
        assert_eq!(fault(&json!({})), "no reason given");
    }
}
