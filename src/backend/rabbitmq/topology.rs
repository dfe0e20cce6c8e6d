//! Exchanges and queues: which there are, and with which arguments.
//!
//! ```text
//! leveret.{n} (direct) --- n.a.workflows, n.a.activities, n.a.events.{lane} --- dead-letters ---> n.a.dead
//!      \ alternate
//!       leveret.{n}.unrouted (fanout) --- n.unrouted
//! ```
//!
//! The arguments of an existing queue cannot be changed, and declaring it with others is refused. So every process, of every release and towards
//! every version of the server, sends the same ones:
//!
//! - `x-queue-type`: a setting, the same for a whole namespace.
//! - `x-overflow: reject-publish`: without a length limit it does nothing; where an operator's policy sets one, a publish is refused and sent
//!   again, instead of the oldest message being dropped.
//! - `x-delivery-limit: 2147483647` (quorum): in effect off, on every server. Absent, it means 20 to RabbitMQ 4, which then drops the message. The
//!   -1 that turns it off there is worse on 3.10.8: it is taken, and the *first* return drops the message. And with a limit, a message that is
//!   returned keeps its place, while without one 3.10.8 puts it behind everything that waits.
//! - `x-dead-letter-exchange: ""`, `x-dead-letter-routing-key: n.a.dead`: nothing dead-letters by itself here, but an operator's policy (a lower
//!   delivery limit, a time to live) may, and then the message is kept. With `x-dead-letter-strategy: at-least-once` (quorum) it is not lost on
//!   the way either; that strategy needs the overflow setting above and, on 3.10, the feature flag `stream_queue`.
//! - `x-single-active-consumer` on the event queues.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};

use super::fault;
use super::names::{Names, queues_of};
use crate::backend::{Queue, Result};
use crate::model::{AppId, QueueType};

/// Out of reach: a return takes the broker some 20 us, so that this many take half a day of nothing else.
const NO_DELIVERY_LIMIT: i32 = i32::MAX;

/// Makes what the whole namespace shares: both exchanges and the unrouted queue.
pub(super) async fn declare_shared(channel: &Channel, names: &Names, kind: QueueType) -> Result<()> {
    let alternate = names.alternate_exchange();
    declare_exchange(channel, &alternate, ExchangeKind::Fanout, FieldTable::default()).await?;
    declare_queue(channel, names, &Queue::Unrouted, kind).await?;
    bind(channel, &names.queue(&Queue::Unrouted), &alternate).await?;

    let mut arguments = FieldTable::default();
    arguments.insert("alternate-exchange".into(), text(&alternate));
    declare_exchange(channel, names.exchange(), ExchangeKind::Direct, arguments).await?;
    // A dead-lettered or hand-fed message for the unrouted queue takes the same way as any other.
    bind(channel, &names.queue(&Queue::Unrouted), names.exchange()).await
}

/// Makes the queues of an app.
pub(super) async fn declare_app(
    channel: &Channel,
    names: &Names,
    kind: QueueType,
    app: &AppId,
    lanes: u16,
) -> Result<()> {
    for queue in queues_of(app, lanes) {
        declare_queue(channel, names, &queue, kind).await?;
        bind(channel, &names.queue(&queue), names.exchange()).await?;
    }
    Ok(())
}

/// Deletes the queues of an app with all they hold. One that does not exist is deleted already.
pub(super) async fn delete_app(channel: &Channel, names: &Names, app: &AppId, lanes: u16) -> Result<()> {
    // The dead queue last: what the others still dead-letter has somewhere to go.
    for queue in queues_of(app, lanes).iter().rev() {
        let name = names.queue(queue);
        channel
            .queue_delete(name.as_str().into(), QueueDeleteOptions::default())
            .await
            .map_err(|error| fault::request(&format!("cannot delete queue {name}"), error))?;
    }
    Ok(())
}

async fn declare_exchange(channel: &Channel, name: &str, kind: ExchangeKind, arguments: FieldTable) -> Result<()> {
    let options = ExchangeDeclareOptions {
        durable: true,
        ..Default::default()
    };
    channel
        .exchange_declare(name.into(), kind, options, arguments)
        .await
        .map_err(|error| fault::request(&format!("cannot declare exchange {name}"), error))
}

async fn declare_queue(channel: &Channel, names: &Names, queue: &Queue, kind: QueueType) -> Result<()> {
    let name = names.queue(queue);
    let options = QueueDeclareOptions {
        durable: true,
        ..Default::default()
    };
    channel
        .queue_declare(name.as_str().into(), options, arguments(names, queue, kind))
        .await
        .map_err(|error| fault::request(&format!("cannot declare queue {name}"), error))?;
    Ok(())
}

/// Binds a queue to an exchange by its own name.
async fn bind(channel: &Channel, queue: &str, exchange: &str) -> Result<()> {
    channel
        .queue_bind(
            queue.into(),
            exchange.into(),
            queue.into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
        .map_err(|error| fault::request(&format!("cannot bind queue {queue} to exchange {exchange}"), error))
}

fn arguments(names: &Names, queue: &Queue, kind: QueueType) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text(kind.argument()));
    arguments.insert("x-overflow".into(), text("reject-publish"));
    if kind == QueueType::Quorum {
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(NO_DELIVERY_LIMIT));
    }
    if matches!(queue, Queue::Events(..)) {
        arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
    }
    if let Queue::Workflows(app) | Queue::Activities(app) | Queue::Events(app, _) = queue {
        arguments.insert("x-dead-letter-exchange".into(), text(""));
        arguments.insert(
            "x-dead-letter-routing-key".into(),
            text(&names.queue(&Queue::Dead(app.clone()))),
        );
        if kind == QueueType::Quorum {
            arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
        }
    }
    arguments
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}
