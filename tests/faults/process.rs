//! Processes that the tests start, kill and stop: this test program again, running `worker_process` alone.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use super::soon::{PATIENCE, soon};

/// What the process is: app IDs, `starter`, `raw-starter`, `watcher`, `crowd`, with spaces between.
pub(crate) const ROLES: &str = "LEVERET_TEST_ROLES";
/// Where it leaves its traces.
pub(crate) const DIRECTORY: &str = "LEVERET_TEST_DIRECTORY";
/// The workflow that a starter starts, a space, and its input as JSON.
pub(crate) const SUBJECT: &str = "LEVERET_TEST_SUBJECT";

/// A process of the tests. It is killed when it is dropped: a failing test leaves none behind.
pub(crate) struct Process {
    roles: String,
    child: Child,
}

impl Process {
    pub(crate) fn start(directory: &Path, roles: &str, environment: &[(&str, String)]) -> Self {
        let child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "worker_process", "--nocapture"])
            .env(ROLES, roles)
            .env(DIRECTORY, directory)
            .envs(environment.iter().map(|(name, value)| (*name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log(directory, roles))
            .spawn()
            .expect("started");
        Self {
            roles: roles.to_owned(),
            child,
        }
    }

    pub(crate) fn has(&self, role: &str) -> bool {
        self.roles.split(' ').any(|one| one == role)
    }

    pub(crate) fn roles(&self) -> &str {
        &self.roles
    }

    /// SIGKILL, and returns when it is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("killed");
        let _ = self.child.wait();
    }

    /// True once it has died of a SIGKILL. It must not end in any other way.
    pub(crate) fn was_killed(&mut self) -> bool {
        match self.ended() {
            None => false,
            Some(status) if status.signal() == Some(9) => true,
            Some(status) => panic!(
                "process `{}` was to be killed and ended otherwise: {status}",
                self.roles
            ),
        }
    }

    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of ours")
    }

    /// SIGTERM, and no wait for its end.
    pub(crate) fn tell_to_end(&self) {
        let id = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &id]).status();
    }

    /// SIGTERM. It must end in order.
    pub(crate) fn stop(mut self) {
        // A starter or a watcher may have ended by itself.
        if self.ended().is_none() {
            self.tell_to_end();
        }
        let status = soon("the end after SIGTERM", PATIENCE, || self.ended());
        assert!(status.success(), "process `{}` ended with {status}", self.roles);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One file for each process of these roles: restarts are told apart.
fn log(directory: &Path, roles: &str) -> File {
    let name = roles.replace(' ', "-");
    let free: PathBuf = (1..)
        .map(|number| directory.join(format!("{name}.{number}.log")))
        .find(|path| !path.exists())
        .expect("a free name");
    File::create(free).expect("a log file")
}
