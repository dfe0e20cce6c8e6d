//! Small commands that are there at the same moment go out in one pipeline.
//!
//! Each command alone costs the client a timer, a channel and several allocations. None waits for others to come: what has gathered while this process
//! did something else is what goes out together. Its replies come together, too, and within one timeout: so this is for commands that are small and have small
//! replies, and each connection has a queue of its own, so that one that hangs holds up no other.

use std::sync::Arc;

use deadpool_redis::redis::{Cmd, Value};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::link::{Failed, Link};
use super::problem::Problem;

/// Commands in a pipeline at most.
const MOST: usize = 64;
/// Pipelines of a connection that are under way at most; callers wait for room then.
const UNDER_WAY: usize = 16;

pub(super) type Answer = Result<Value, Failed>;

struct Request {
    command: Cmd,
    answer: oneshot::Sender<Answer>,
}

/// See the module.
pub(super) struct Together {
    requests: mpsc::Sender<Request>,
    /// Sends them; ends with the store.
    _sender: AbortOnDropHandle<()>,
}

impl Together {
    pub(super) fn start(link: Arc<Link>, tasks: &TaskTracker) -> Self {
        let (requests, received) = mpsc::channel(MOST * UNDER_WAY);
        Self {
            requests,
            _sender: AbortOnDropHandle::new(tasks.spawn(send_all(link, received))),
        }
    }

    /// Sends a command; its reply.
    pub(super) async fn send(&self, command: Cmd) -> Answer {
        const IS_OVER: &str = "the store is being closed";
        let (answer, answered) = oneshot::channel();
        let sent = self.requests.send(Request { command, answer }).await;
        sent.map_err(|_| Failed::Closed(Problem::transient(IS_OVER)))?;
        // It may have gone out.
        answered
            .await
            .unwrap_or_else(|_| Err(Failed::Closed(Problem::unknown(IS_OVER))))
    }
}

async fn send_all(link: Arc<Link>, mut requests: mpsc::Receiver<Request>) {
    let mut under_way = FuturesUnordered::new();
    let mut gathered = Vec::with_capacity(MOST);
    loop {
        tokio::select! {
            biased;
            Some(()) = under_way.next() => {}
            count = requests.recv_many(&mut gathered, MOST), if under_way.len() < UNDER_WAY => {
                if count == 0 {
                    return;
                }
                under_way.push(send(link.clone(), std::mem::take(&mut gathered)));
            }
        }
    }
}

async fn send(link: Arc<Link>, requests: Vec<Request>) {
    // Whoever has stopped waiting before it went out does not need it any more.
    let wanted = requests.into_iter().filter(|request| !request.answer.is_closed());
    let (commands, askers): (Vec<Cmd>, Vec<_>) = wanted.map(|request| (request.command, request.answer)).unzip();
    if commands.is_empty() {
        return;
    }
    let answers = link.send(commands).await;
    for (asker, answer) in askers.into_iter().zip(answers) {
        // Whoever asked may have been cancelled.
        let _ = asker.send(answer);
    }
}
