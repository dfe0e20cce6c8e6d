//! A broker and a store of a test's own, which it may stop and kill.

use std::path::PathBuf;
use std::process::Command;

use uuid::Uuid;

use super::world::Place;

/// A broker and a store that nobody else uses.
pub(crate) struct Servers {
    script: String,
    directory: PathBuf,
}

impl Servers {
    pub(crate) fn start() -> Self {
        let script = std::env::var("LEVERET_TEST_SERVERS")
            .expect("LEVERET_TEST_SERVERS is not set: run the tests with tests/run, which names its script of servers");
        let directory = std::env::temp_dir().join(format!("leveret-servers-{}", Uuid::new_v4().simple()));
        let servers = Self { script, directory };
        servers.tell("start");
        servers
    }

    /// A command of the script; returns when its effect is there.
    pub(crate) fn tell(&self, command: &str) {
        let status = Command::new(&self.script).arg(command).arg(&self.directory).status();
        assert!(status.expect("the script runs").success(), "tests/servers {command}");
    }

    /// With `appendfsync everysec`, Redis answers before it writes while an earlier fsync takes its time, so that a SIGKILL loses answered commits
    /// (7.0.15: the start of one instance of 500). What is asked of us is to lose nothing that the store keeps.
    pub(crate) fn sync_each_write(&self, place: &Place) {
        let Place::Servers { redis, .. } = place else { return };
        let told = Command::new("redis-cli")
            .args(["-u", redis, "config", "set", "appendfsync", "always"])
            .output()
            .expect("redis-cli is there, as tests/servers needs it");
        assert!(told.status.success() && told.stdout.starts_with(b"OK"), "{told:?}");
    }

    /// A fresh namespace on them.
    pub(crate) fn place(&self) -> Place {
        let env = std::fs::read_to_string(self.directory.join("env")).expect("the script wrote it");
        let url = |name: &str| {
            let line = env
                .lines()
                .find_map(|line| line.strip_prefix(&format!("export {name}=")));
            line.expect("named in the file").trim_matches('\'').to_owned()
        };
        Place::servers(url("LEVERET_AMQP_URL"), url("LEVERET_REDIS_URL"))
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        let _ = Command::new(&self.script).arg("stop").arg(&self.directory).status();
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}
