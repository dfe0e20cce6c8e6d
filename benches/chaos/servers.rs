//! The private broker and store, and what is done to them.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use deadpool_redis::redis;
use tokio::process::Command;

use crate::options::Fsync;

/// A command of the script takes at most about a minute by itself.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(180);

/// A broker and a store that nobody else uses. They run until [`stop`](Self::stop).
pub(crate) struct Servers {
    script: PathBuf,
    directory: PathBuf,
    fsync: Fsync,
    pub(crate) broker_port: u16,
    pub(crate) redis_port: u16,
}

impl Servers {
    /// The project's script, or the one that the environment names.
    fn script() -> PathBuf {
        let named = std::env::var_os("LEVERET_TEST_SERVERS").map(PathBuf::from);
        named.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers"))
    }

    /// Starts both below the directory.
    ///
    /// # Errors
    /// What the script says. Nothing runs then.
    pub(crate) async fn start(directory: &Path, fsync: Fsync) -> Result<Self, String> {
        let mut servers = Self {
            script: Self::script(),
            directory: directory.join("servers"),
            fsync,
            broker_port: 0,
            redis_port: 0,
        };
        let ready = async {
            servers.tell("start").await?;
            servers.broker_port = servers.noted("LEVERET_TEST_BROKER_PORT")?;
            servers.redis_port = servers.noted("LEVERET_TEST_REDIS_PORT")?;
            servers.set_fsync().await
        };
        if let Err(problem) = ready.await {
            servers.stop().await;
            return Err(problem);
        }
        Ok(servers)
    }

    /// A number that the script wrote down.
    fn noted(&self, name: &str) -> Result<u16, String> {
        let path = self.directory.join("env");
        let env = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let line = env
            .lines()
            .find_map(|line| line.strip_prefix(&format!("export {name}=")));
        line.and_then(|number| number.parse().ok())
            .ok_or_else(|| format!("{} does not name {name}", path.display()))
    }

    /// A command of the script; returns when its effect is there.
    ///
    /// # Errors
    /// That it failed, and the last line of what it said; all of it is in `servers.log`, as long as the directory is there.
    pub(crate) async fn tell(&self, command: &str) -> Result<(), String> {
        let log = self.directory.with_file_name("servers.log");
        let out = std::fs::File::options().create(true).append(true).open(&log);
        let out = out.map_err(|error| format!("{}: {error}", log.display()))?;
        let told = Command::new(&self.script)
            .arg(command)
            .arg(&self.directory)
            .stdin(Stdio::null())
            .stdout(out.try_clone().map_or_else(|_| Stdio::null(), Stdio::from))
            .stderr(out)
            // The terminal's Ctrl-C is ours: it must not end the script half-way.
            .process_group(0)
            .status();
        let failed = |what: String| {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            let said = said.lines().last().unwrap_or("it said nothing").to_owned();
            format!("{} {command}: {what}: {said}", self.script.display())
        };
        match tokio::time::timeout(COMMAND_TIMEOUT, told).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(failed(status.to_string())),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed(format!("not done after {COMMAND_TIMEOUT:?}"))),
        }
    }

    /// Messages that the broker has received since it was started.
    #[allow(dead_code, reason = "the bench of throughput counts them")]
    pub(crate) async fn messages(&self) -> Result<u64, String> {
        let counted = Command::new(&self.script)
            .arg("count-broker")
            .arg(&self.directory)
            .output();
        let output = counted.await.map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout);
        let number = text.trim().parse();
        number.map_err(|_| format!("count-broker: {text:?} {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// Starts Redis again, with its file synced as the options say.
    pub(crate) async fn start_redis(&self) -> Result<(), String> {
        self.tell("start-redis").await?;
        self.set_fsync().await
    }

    async fn set_fsync(&self) -> Result<(), String> {
        self.set_redis("appendfsync", self.fsync.name()).await
    }

    /// Sets one of Redis's settings.
    pub(crate) async fn set_redis(&self, name: &str, value: &str) -> Result<(), String> {
        let problem = |error: redis::RedisError| format!("CONFIG SET {name} {value}: {error}");
        let mut connection = self.redis().await.map_err(problem)?;
        let mut set = redis::cmd("CONFIG");
        set.arg("SET").arg(name).arg(value);
        set.query_async::<()>(&mut connection).await.map_err(problem)
    }

    /// With `everysec`, holds up whoever writes and waits until all that Redis has answered is with the kernel: while its disk is slow Redis answers what
    /// it has in its own memory alone, and a kill then loses that, as docs/guarantees.md says.
    ///
    /// # Errors
    /// That Redis does not answer, or that its disk does not keep up for a long time.
    #[allow(dead_code, reason = "the bench of throughput kills nobody")]
    pub(crate) async fn let_redis_write(&self) -> Result<(), String> {
        if self.fsync == Fsync::Always {
            return Ok(());
        }
        let problem = |error: redis::RedisError| format!("before Redis is killed: {error}");
        let mut connection = self.redis().await.map_err(problem)?;
        let mut pause = redis::cmd("CLIENT");
        pause.arg("PAUSE").arg(COMMAND_TIMEOUT.as_millis() as u64).arg("WRITE");
        pause.query_async::<()>(&mut connection).await.map_err(problem)?;
        let until = tokio::time::Instant::now() + COMMAND_TIMEOUT;
        while tokio::time::Instant::now() < until {
            let mut info = redis::cmd("INFO");
            let info: String = info
                .arg("persistence")
                .query_async(&mut connection)
                .await
                .map_err(problem)?;
            let is_none = |name: &str| info.lines().any(|line| line.trim_end() == format!("{name}:0"));
            if is_none("aof_buffer_length") && is_none("aof_pending_bio_fsync") {
                return Ok(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        Err(format!("Redis has not written its file within {COMMAND_TIMEOUT:?}"))
    }

    /// A connection that goes past the proxy.
    pub(crate) async fn redis(&self) -> redis::RedisResult<redis::aio::MultiplexedConnection> {
        redis::Client::open(self.redis_url(self.redis_port))?
            .get_multiplexed_async_connection()
            .await
    }

    pub(crate) fn amqp_url(&self, port: u16) -> String {
        format!("amqp://guest:guest@127.0.0.1:{port}/%2f")
    }

    pub(crate) fn redis_url(&self, port: u16) -> String {
        format!("redis://127.0.0.1:{port}/")
    }

    /// Ends what an interrupted start has left below the directory.
    pub(crate) async fn stop_in(directory: &Path) {
        let directory = directory.join("servers");
        if directory.exists() {
            let left = Self {
                script: Self::script(),
                directory,
                fsync: Fsync::Always,
                broker_port: 0,
                redis_port: 0,
            };
            left.stop().await;
        }
    }

    /// Ends both, in whatever state they are.
    pub(crate) async fn stop(&self) {
        if let Err(problem) = self.tell("stop").await {
            eprintln!("the servers may still run: {problem}");
        }
    }
}
