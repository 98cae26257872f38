//! Servers that only one test has, so that it can end them.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::support::assert_success;

/// A broker or a database: started by the scripts in `dev`, killed at the end.
pub struct Server {
    script: PathBuf,
    folder: TempDir,
    /// How it is reached; stays the same when it is started again.
    pub url: String,
}

impl Server {
    /// Starts one: `rabbitmq`, `postgresql` or `mariadb`.
    pub fn start(name: &str) -> Self {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../dev").join(name);
        let folder = tempfile::Builder::new().prefix("nova-it-").tempdir_in("/tmp").unwrap();
        let mut server = Self { script, folder, url: String::new() };
        server.url = server.run("start");
        server
    }

    /// Any word that the script knows: `start`, `stop`, `kill`.
    pub fn run(&self, verb: &str) -> String {
        let done = Command::new(&self.script).arg(verb).arg(self.folder.path()).output().unwrap();
        assert_success(&format!("{} {verb}", self.script.display()), &done);
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Not `run`: the test may be failing already.
        let _ = Command::new(&self.script).arg("kill").arg(self.folder.path()).output();
    }
}
