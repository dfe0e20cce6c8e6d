//! The clients: each root's lives, one after the other, with all that is done to them.

use std::future::IntoFuture;
use std::time::Duration;

use futures_util::future::join_all;
use leveret::client::Error;
use leveret::testing::Process;
use leveret::{Client, Status};

use crate::code::{self, RUN};
use crate::invariants::at_once;
use crate::model::Ended;
use crate::plan::{APPS, Command, GOES_ON, HeldUp, Life, Raised, Root, Seen, event_value};
use crate::scenario::Play;

/// The ID of the instance that is held up.
pub(crate) const HELD_UP: &str = "held-up";

/// How one life of a root went.
pub(crate) struct Lived {
    pub(crate) ended: Ended,
    pub(crate) was_terminated: bool,
}

impl Play<'_> {
    fn client(&self) -> Client {
        self.client_of(&self.world.process("client").spared())
    }

    fn client_of(&self, process: &Process) -> Client {
        Client::builder(process.backend())
            .retention(self.script.kept())
            .patience(Duration::from_secs(5))
            .build()
    }

    /// A root's lives, one after the other.
    pub(crate) async fn drive(&self, root: &Root) -> Result<Vec<Lived>, String> {
        let mut lives = Vec::new();
        for (number, life) in root.lives.iter().enumerate() {
            tokio::time::sleep(Duration::from_millis(life.at)).await;
            lives.push(self.live(root, number, life).await?);
        }
        Ok(lives)
    }

    async fn live(&self, root: &Root, number: usize, life: &Life) -> Result<Lived, String> {
        let request = format!("{}-{number}", root.id);
        let start = |client: &Client| {
            client
                .start_named::<Vec<Seen>>(&root.app, RUN, life.plan.clone().begin())
                .id(&root.id)
                .request_id(&request)
        };
        if number == 0 {
            // Some events come before the instance does.
            join_all(
                life.raises
                    .iter()
                    .filter(|raised| raised.at < 500)
                    .map(|raised| self.raise(raised, &request)),
            )
            .await;
        }
        if life.is_abandoned_once {
            let process = self.world.process("doomed");
            let started = start(&self.client_of(&process));
            let _ = tokio::time::timeout(Duration::from_millis(life.at % 200), started.into_future()).await;
            process.kill();
        }
        let client = self.client();
        let run = insist(|| start(&client).into_future())
            .await
            .map_err(|error| format!("its start: {error}"))?;
        let raises = life.raises.iter().filter(|raised| number > 0 || raised.at >= 500);
        let raises = join_all(raises.map(async |raised| {
            tokio::time::sleep(Duration::from_millis(raised.at)).await;
            self.raise(raised, &request).await;
        }));
        let commands = self.command(root, life, &run);
        let result = async {
            loop {
                match run.result().within(Duration::from_secs(600)).await {
                    Ok(seen) => return Ok(Ended::Completed(seen)),
                    Err(Error::Failed(failure)) => return Ok(Ended::Failed(failure.kind)),
                    Err(Error::Terminated { .. }) => return Ok(Ended::Terminated),
                    // Kept for a shorter time than a slow client takes to ask.
                    Err(Error::NotFound { .. } | Error::RunGone { .. }) if self.script.retention.is_some() => {
                        return Err(None);
                    }
                    Err(Error::NotFound { .. } | Error::RunGone { .. }) if root.is_purged_at_any_time() => {
                        return Ok(Ended::Unknown);
                    }
                    Err(error) if error.retryable() == leveret::backend::Retryable::Permanent => {
                        return Err(Some(format!("its result: {error}")));
                    }
                    Err(_) => {}
                }
            }
        };
        let (_, was_terminated, ended) = tokio::join!(raises, commands, result);
        let ended = match ended {
            Ok(ended) => ended,
            Err(Some(problem)) => return Err(problem),
            Err(None) if was_terminated || root.is_purged_at_any_time() => Ended::Unknown,
            Err(None) => return Err("its outcome was not kept for as long as promised".into()),
        };
        if life.is_purged {
            if life.is_abandoned_once {
                let process = self.world.process("doomed");
                let instance = self.client_of(&process).handle(code::instance(&root.app, &root.id));
                let _ =
                    tokio::time::timeout(Duration::from_millis(life.at % 300), instance.purge().into_future()).await;
                process.kill();
            }
            loop {
                match insist(|| run.handle().purge().into_future()).await {
                    Ok(_) | Err(Error::NotFound { .. } | Error::RunGone { .. }) => break,
                    // A child of it is active still.
                    Err(Error::StillActive { .. }) => tokio::time::sleep(Duration::from_secs(1)).await,
                    Err(error) => return Err(format!("its purge: {error}")),
                }
            }
            let left = self
                .watcher
                .descendants(&self.world, &code::instance(&root.app, &root.id));
            // Those of a life that was replaced, and of an earlier execution, are nobody's children.
            let is_whole = self.script.retention.is_none()
                && root.lives[..number].iter().all(|life| life.is_purged)
                && !root.lives[..=number].iter().any(|life| life.plan.repeats_children());
            if let Some(left) = left.first().filter(|_| is_whole) {
                return Err(format!("it was purged, and its child {left} is there"));
            }
        }
        Ok(Lived { ended, was_terminated })
    }

    /// Starts the instance that is held up, if there is one.
    pub(crate) async fn hold_up(&self) -> Option<leveret::Run<Vec<Seen>>> {
        let cause = self.script.held_up?;
        let client = self.client();
        let start = || {
            let start = client.start_named::<Vec<Seen>>(APPS[0], RUN, cause.plan().begin());
            start.id(HELD_UP).request_id(HELD_UP).into_future()
        };
        let run = insist(start).await.expect("nobody else has this ID");
        if cause == HeldUp::Suspended {
            let suspended = insist(|| run.handle().suspend("until the end").into_future()).await;
            suspended.expect("it is active");
        }
        Some(run)
    }

    /// I6: all others are over, and it still waits, while its other branch has gone on. Nobody needs it any more.
    pub(crate) async fn let_go(&self, held_up: Option<leveret::Run<Vec<Seen>>>) -> Result<(), String> {
        let (Some(run), Some(cause)) = (held_up, self.script.held_up) else {
            return Ok(());
        };
        let waits_as = match cause {
            HeldUp::NoApp => Status::Running,
            HeldUp::Stalled => Status::Stalled,
            HeldUp::Suspended => Status::Suspended,
        };
        let is_so = || {
            let record = at_once(self.world.servers().store().record(&code::instance(APPS[0], HELD_UP)));
            let has_gone_on = cause != HeldUp::NoApp || self.journal.calls(GOES_ON, 0) > 0;
            has_gone_on && record.is_some_and(|record| record.status == waits_as)
        };
        let until_it_is = async {
            while !is_so() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(600), until_it_is)
            .await
            .is_err()
        {
            return Err(format!(
                "I6: what is held up by {cause:?} is not {waits_as}, or nothing goes on beside it"
            ));
        }
        insist(|| run.handle().terminate("enough").into_future())
            .await
            .map(drop)
            .map_err(|error| format!("the end of what was held up: {error}"))
    }

    async fn raise(&self, raised: &Raised, request: &str) {
        let client = self.client();
        let instance = client.handle(code::instance(&raised.app, &raised.id));
        for _ in 0..raised.times {
            let raise = || {
                instance
                    .raise_named(&raised.name, event_value(&raised.name))
                    .message_id(format!("{request}/{}", raised.name))
                    .into_future()
            };
            // One that is over already needs no event.
            let _ = insist(raise).await;
        }
    }

    /// True if a terminate was sent to the root.
    async fn command(&self, root: &Root, life: &Life, run: &leveret::Run<Vec<Seen>>) -> bool {
        let client = self.client();
        let its_own = client.handle(code::instance(&root.app, &root.id)).of_run(run.run_id());
        let (mut before, mut was_terminated) = (0, false);
        for told in &life.commands {
            tokio::time::sleep(Duration::from_millis(told.at - before)).await;
            before = told.at;
            let child = told.child.as_ref();
            let instance = child.map_or(its_own.clone(), |(app, id)| client.handle(code::instance(app, id)));
            // One that is over already, or not there yet, cannot be told anything; one that is active is not purged.
            let _ = match told.command {
                Command::Suspend => insist(|| instance.suspend("a while").into_future()).await.map(drop),
                Command::Resume => insist(|| instance.resume("enough").into_future()).await.map(drop),
                Command::Terminate => insist(|| instance.terminate("enough").into_future()).await.map(drop),
                Command::Purge => insist(|| instance.purge().into_future()).await.map(drop),
            };
            was_terminated |= told.command == Command::Terminate && child.is_none();
        }
        was_terminated
    }
}

/// Asks until there is an answer that will not change by asking again.
async fn insist<T, F>(mut ask: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    loop {
        match ask().await {
            Err(error)
                if error.retryable() != leveret::backend::Retryable::Permanent
                    && !matches!(error, Error::StillActive { .. }) =>
            {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            answer => return answer,
        }
    }
}
