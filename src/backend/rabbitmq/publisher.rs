//! Publishing with confirms: many at a time on one channel.
//!
//! A publish that waits for its confirm alone makes 1,000 to 1,900 a second; side by side they make 20,000 and more. So a task owns the channel,
//! writes what it is given at once and answers each publish when its confirm comes. The window bounds what is unconfirmed, and with it memory:
//! a publish holds a place in it until it is confirmed or nobody waits for it any more.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::fault;
use super::link::Loss;
use crate::backend::{Error, Result};

/// Publishes that are taken up together.
const BATCH: usize = 128;
/// Confirms that nobody waits for any more and that never came. The client library keeps a note of each, so that a link that has so many is
/// replaced.
const FORSAKEN: usize = 4096;

/// A message in the form that it is written in.
pub(super) struct Outgoing {
    pub(super) routing_key: String,
    pub(super) body: Bytes,
    pub(super) properties: BasicProperties,
}

struct Request {
    outgoing: Outgoing,
    reply: oneshot::Sender<Result<()>>,
    _place: OwnedSemaphorePermit,
}

/// How a request ended.
enum End {
    Answered,
    Forsaken,
    /// The channel is dead.
    Broken(lapin::Error),
}

/// Hands messages to the publishing task of one link.
pub(super) struct Publisher {
    requests: mpsc::UnboundedSender<Request>,
    window: Arc<Semaphore>,
}

impl Publisher {
    /// A publisher with a window of this many messages, and the task that serves it until the link is lost. The channel has confirms on.
    pub(super) fn new(
        channel: Channel,
        exchange: String,
        window: usize,
        message_bytes: Arc<AtomicUsize>,
        loss: Loss,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (requests, inbox) = mpsc::unbounded_channel();
        let window = Arc::new(Semaphore::new(window.clamp(1, Semaphore::MAX_PERMITS)));
        let task = serve(channel, exchange, inbox, window.clone(), message_bytes, loss);
        (Self { requests, window }, task)
    }

    /// Waits for a place in the window and hands the message over: from then on it may be published. Answers where its result comes, or gives the
    /// message back if the link is lost.
    pub(super) async fn hand_over(
        &self,
        outgoing: Outgoing,
    ) -> std::result::Result<oneshot::Receiver<Result<()>>, Outgoing> {
        let Ok(place) = self.window.clone().acquire_owned().await else {
            return Err(outgoing);
        };
        let (reply, result) = oneshot::channel();
        let request = Request {
            outgoing,
            reply,
            _place: place,
        };
        match self.requests.send(request) {
            Ok(()) => Ok(result),
            Err(unsent) => Err(unsent.0.outgoing),
        }
    }
}

/// The publishing task.
async fn serve(
    channel: Channel,
    exchange: String,
    mut inbox: mpsc::UnboundedReceiver<Request>,
    window: Arc<Semaphore>,
    message_bytes: Arc<AtomicUsize>,
    loss: Loss,
) {
    let mut unconfirmed = FuturesUnordered::new();
    let mut batch = Vec::with_capacity(BATCH);
    let mut forsaken = 0;
    loop {
        tokio::select! {
            biased;
            () = loss.happened() => break,
            Some(end) = unconfirmed.next() => match end {
                End::Answered => {}
                End::Forsaken => {
                    forsaken += 1;
                    if forsaken == FORSAKEN {
                        loss.report(format!("the broker left {FORSAKEN} messages unconfirmed"));
                    }
                }
                End::Broken(error) => {
                    if let Some(limit) = fault::size_limit(&error) {
                        // Else the same message would break every channel that it is tried on.
                        message_bytes.fetch_min(limit, Ordering::Relaxed);
                    }
                    loss.report(error.to_string());
                }
            },
            taken = inbox.recv_many(&mut batch, BATCH) => {
                if taken == 0 {
                    break; // nobody is left who could publish
                }
                unconfirmed.extend(batch.drain(..).map(|request| publish(&channel, &exchange, request)));
            }
        }
    }
    window.close();
    // Confirms that are here already. What is left is dropped, and so answered as unknown.
    while let Some(Some(_)) = unconfirmed.next().now_or_never() {}
}

/// Publishes one message and waits for its confirm, or until nobody waits for the answer.
async fn publish(channel: &Channel, exchange: &str, request: Request) -> End {
    let Request {
        outgoing,
        mut reply,
        _place,
    } = request;
    let confirmed = async {
        let confirm = channel
            .basic_publish(
                exchange.into(),
                outgoing.routing_key.as_str().into(),
                // Not `mandatory`: the alternate exchange keeps what has no queue, and the client library attaches returned messages to wrong
                // confirms under load.
                BasicPublishOptions::default(),
                &outgoing.body,
                outgoing.properties.clone(),
            )
            .await?;
        confirm.await
    };
    let mut confirmed = pin!(confirmed);
    let outcome = tokio::select! {
        biased;
        outcome = &mut confirmed => outcome,
        () = reply.closed() => return End::Forsaken,
    };
    let (answer, end) = match outcome {
        Ok(Confirmation::Ack(_)) => (Ok(()), End::Answered),
        Ok(Confirmation::Nack(_)) => {
            let refused = format!(
                "the broker refuses the message for {}: its queue is full or away",
                outgoing.routing_key
            );
            (Err(Error::transient(refused)), End::Answered)
        }
        Ok(Confirmation::NotRequested) => (
            Err(Error::unknown("the publishing channel has no confirms")),
            End::Answered,
        ),
        // The message may be in its queue: of 301 confirms that were rejected so, 256 messages were.
        Err(error) => {
            let unknown = "the connection to the broker was lost before the message was confirmed";
            (
                Err(Error::unknown(unknown).caused_by(error.clone())),
                End::Broken(error),
            )
        }
    };
    // Nobody may wait for it any more; the message is where it is.
    let _ = reply.send(answer);
    end
}
