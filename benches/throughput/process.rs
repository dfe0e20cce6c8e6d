//! The processes of the bench: this program again, told by its environment which part it plays.
//!
//! A driver reads rounds from its standard input, a line of JSON each, and answers with a line of JSON. The others do what they are asked for by messages.
//! All of them end with their standard input.

use std::process::{ExitCode, Stdio};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::workload::Workload;
use crate::{floor, leveret_side};

/// Which part the process plays. Its presence makes the program one of them.
pub(crate) const ROLE: &str = "THROUGHPUT_ROLE";
const SCENE: &str = "THROUGHPUT_SCENE";

/// Which of the loops that are written by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ByHand {
    /// One message an item, and a commit of three commands.
    Floor,
    /// The same, and all that goes to one queue shares messages.
    Bundled,
    /// The same, and Redis keeps all that Leveret keeps there, by Leveret's own scripts.
    Kept,
}

impl ByHand {
    /// True for the name of one of them.
    pub(crate) fn named(name: &str) -> bool {
        [Self::Floor, Self::Bundled, Self::Kept]
            .iter()
            .any(|known| known.name() == name)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Bundled => "bundled",
            Self::Kept => "kept",
        }
    }
}

/// What every process is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Scene {
    pub(crate) amqp: String,
    pub(crate) redis: String,
    pub(crate) namespace: String,
    pub(crate) workload: Workload,
    pub(crate) payload: usize,
    /// Apps that the steps of [`Workload::Apps`] are on.
    pub(crate) apps: u32,
    /// Items that share a message of Leveret's at most, if not its default.
    pub(crate) bundle: Option<usize>,
    /// Which loop by hand, for those who play one.
    pub(crate) by_hand: ByHand,
}

/// What a driver is asked for: one line of JSON.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Round {
    pub(crate) in_flight: usize,
    pub(crate) count: usize,
    /// Activities of each workflow.
    pub(crate) steps: u32,
    pub(crate) part: Part,
    /// Starts a second, whatever becomes of them, as long as no more than that are in flight; without it the next starts when one has ended.
    pub(crate) pace: Option<f64>,
}

/// Which part of the workflows' lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Part {
    Whole,
    /// They are started; what becomes of them is not waited for.
    Start,
    /// What they wait for is sent.
    Wake,
}

/// What a round came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ran {
    pub(crate) seconds: f64,
    /// Each workflow's time from its start until its end is known, in microseconds.
    pub(crate) micros: Vec<u64>,
}

/// What a worker of Leveret has counted since it began.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Times that its workflow was in memory when something came for it.
    pub(crate) live: u64,
    /// Times that its history had to be replayed.
    pub(crate) replayed: u64,
}

/// How long a round may take.
pub(crate) const LONGEST_ROUND: Duration = Duration::from_secs(3600);

/// Plays the part.
pub(crate) fn play(role: &str) -> ExitCode {
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "warn,lapin=off".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let played = async {
        let scene = std::env::var(SCENE).map_err(|error| format!("{SCENE}: {error}"))?;
        let scene: Scene = serde_json::from_str(&scene).map_err(|error| format!("{SCENE}: {error}"))?;
        match role {
            "floor-driver" => floor::driver(scene).await,
            "floor-target" => floor::target(scene).await,
            "leveret-caller" => leveret_side::caller(scene).await,
            "leveret-target" => leveret_side::target(scene).await,
            "leveret-client" => leveret_side::client(scene).await,
            other => Err(format!("{ROLE} is {other:?}")),
        }
    };
    // One thread is faster than two on two cores, for the floor and for Leveret.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime
        .map_err(|error| error.to_string())
        .and_then(|runtime| runtime.block_on(played))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{role}: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// What the bench asks of a driver, line by line; `None` when it has ended.
pub(crate) struct Requests(Lines<BufReader<tokio::io::Stdin>>);

impl Requests {
    pub(crate) fn new() -> Self {
        // Ready: whoever started us waits for it.
        println!("ready");
        Self(BufReader::new(tokio::io::stdin()).lines())
    }

    async fn line(&mut self) -> Option<String> {
        self.0.next_line().await.ok().flatten()
    }

    pub(crate) async fn next(&mut self) -> Option<Round> {
        serde_json::from_str(&self.line().await?).ok()
    }

    pub(crate) fn answer(&self, answer: &impl Serialize) {
        println!(
            "{}",
            serde_json::to_string(answer).expect("numbers and text have a JSON form")
        );
    }

    /// Answers with what was counted whenever it is asked for it, until the bench is gone.
    pub(crate) async fn tell(mut self, counts: impl Fn() -> Counts) {
        while self.line().await.is_some() {
            self.answer(&counts());
        }
    }
}

/// One of them, from outside.
pub(crate) struct Process {
    role: &'static str,
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts it and waits until it is ready.
    pub(crate) async fn start(role: &'static str, scene: &Scene) -> Result<Self, String> {
        let problem = |error: std::io::Error| format!("{role}: {error}");
        let program = std::env::current_exe().map_err(problem)?;
        let mut child = Command::new(program)
            .env(ROLE, role)
            .env(SCENE, serde_json::to_string(scene).expect("it is text and numbers"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(problem)?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(format!("{role}: it has no pipes"));
        };
        let mut process = Self {
            role,
            child,
            stdin,
            stdout: BufReader::new(stdout).lines(),
        };
        process.line(Duration::from_secs(60)).await?;
        Ok(process)
    }

    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    pub(crate) async fn run(&mut self, round: Round) -> Result<Ran, String> {
        self.ask::<Result<Ran, String>>(&round).await?
    }

    /// What a worker has counted.
    pub(crate) async fn counts(&mut self) -> Result<Counts, String> {
        self.ask(&"counts").await
    }

    async fn ask<T: DeserializeOwned>(&mut self, request: &impl Serialize) -> Result<T, String> {
        let mut line = serde_json::to_string(request).expect("numbers and text have a JSON form");
        line.push('\n');
        let written = self.stdin.write_all(line.as_bytes()).await;
        written.map_err(|error| format!("{}: {error}", self.role))?;
        let answer = self.line(LONGEST_ROUND).await?;
        serde_json::from_str(&answer).map_err(|error| format!("{}: {error}", self.role))
    }

    /// As a crash does it.
    pub(crate) async fn kill(mut self) -> Result<(), String> {
        let killed = self.child.kill().await;
        killed.map_err(|error| format!("{}: {error}", self.role))
    }

    async fn line(&mut self, longest: Duration) -> Result<String, String> {
        match tokio::time::timeout(longest, self.stdout.next_line()).await {
            Ok(Ok(Some(line))) => Ok(line),
            Ok(Ok(None)) => Err(format!("{} has ended", self.role)),
            Ok(Err(error)) => Err(format!("{}: {error}", self.role)),
            Err(_) => Err(format!("{} said nothing for {longest:?}", self.role)),
        }
    }

    pub(crate) async fn stop(mut self) {
        drop(self.stdin);
        if tokio::time::timeout(Duration::from_secs(20), self.child.wait())
            .await
            .is_err()
        {
            // Dropped, it is killed.
            eprintln!("throughput: {} did not stop in time", self.role);
        }
    }
}
