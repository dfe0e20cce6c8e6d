//! Lua scripts, called by their hash.

use std::sync::OnceLock;

use deadpool_redis::redis::{Arg, Cmd, ErrorKind, ServerErrorKind, ToRedisArgs, cmd};

use super::link::{Failed, Links};
use super::reply::Reply;
use super::together::Answer;
use crate::backend::Result;

/// Bytes of a call that others may be sent together with.
const SMALL: usize = 16 * 1024;

fn size_of_argument(argument: Arg<&[u8]>) -> usize {
    match argument {
        Arg::Simple(bytes) => bytes.len(),
        _ => 0,
    }
}

/// A script of `scripts/`. Its file says what its keys, arguments and reply are, and what repeating it does.
pub(super) struct Script {
    name: &'static str,
    source: &'static str,
    hash: OnceLock<String>,
}

macro_rules! scripts {
    ($($constant:ident = $name:literal;)*) => {
        $(
            pub(super) static $constant: Script = Script {
                name: $name,
                source: include_str!(concat!("scripts/", $name, ".lua")),
                hash: OnceLock::new(),
            };
        )*
    };
}

scripts! {
    BEAT = "beat";
    CLAIM = "claim";
    CLAIM_DUE = "claim_due";
    CLEAR_MARK = "clear_mark";
    COMMIT = "commit";
    CREATE = "create";
    DELETE = "delete";
    DELIVER = "deliver";
    INDEX = "index";
    LOAD = "load";
    PAGE = "page";
    PROGRESS = "progress";
    REFUSE = "refuse";
    SCHEDULE = "schedule";
    SETTLE_CLAIM = "settle_claim";
    SETTLE_DUE = "settle_due";
    STRAY = "stray";
    TURNS = "turns";
    UNINDEX = "unindex";
    WORKERS = "workers";
}

impl Script {
    /// A call with these keys, which are all that the script touches.
    pub(super) fn on(&'static self, keys: &[&str]) -> Call {
        let hash = self
            .hash
            .get_or_init(|| deadpool_redis::redis::Script::new(self.source).get_hash().to_owned());
        // Room for what most calls have: growing costs as much as all else here.
        let mut command = Cmd::with_capacity(32, 1024);
        command.arg("EVALSHA");
        command.arg(hash).arg(keys.len());
        for key in keys {
            command.arg(*key);
        }
        Call { script: self, command }
    }
}

/// A call of a script, to which arguments are added.
pub(super) struct Call {
    script: &'static Script,
    command: Cmd,
}

impl Call {
    /// Adds an argument. `None` adds nothing at all.
    pub(super) fn arg(mut self, argument: impl ToRedisArgs) -> Self {
        self.command.arg(argument);
        self
    }

    /// Runs it. A Redis that does not know the script (it was restarted, or its scripts were flushed) is told, and asked again.
    pub(super) async fn send(self, links: &Links) -> Result<Reply> {
        let answer = links.try_send(&self.command).await;
        self.settle(links, answer).await
    }

    /// The same, of a script whose reply is small: if the call is small too, in one go with others that are there.
    pub(super) async fn send_small(self, links: &Links) -> Result<Reply> {
        let size: usize = self.command.args_iter().map(size_of_argument).sum();
        if size > SMALL {
            return self.send(links).await;
        }
        let answer = links.try_send_small(self.command.clone()).await;
        self.settle(links, answer).await
    }

    async fn settle(self, links: &Links, answer: Answer) -> Result<Reply> {
        let name = self.script.name;
        let value = match answer {
            Err(Failed::Sent(error)) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                let mut load = cmd("SCRIPT");
                links
                    .send("SCRIPT LOAD", load.arg("LOAD").arg(self.script.source))
                    .await?;
                links.try_send(&self.command).await
            }
            other => other,
        };
        match value {
            Ok(value) => Ok(Reply::new(name, value)),
            Err(failed) => Err(failed.problem(links.address(), &format!("`{name}`")).error()),
        }
    }
}
