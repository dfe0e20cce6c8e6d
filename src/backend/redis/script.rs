//! Lua scripts, called by their hash.

use std::sync::OnceLock;

use deadpool_redis::redis::{Cmd, ErrorKind, ServerErrorKind, ToRedisArgs, cmd};

use super::link::{Failed, Links};
use super::reply::Reply;
use crate::backend::Result;

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
        let mut command = cmd("EVALSHA");
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
        let name = self.script.name;
        let value = match links.try_send(&self.command).await {
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
