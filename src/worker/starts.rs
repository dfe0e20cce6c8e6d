//! Taking starts: what arrives in the app's `workflows` queue. Only a worker that holds a lane takes them, because a new instance needs a home.

use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, warn};

use super::activation::arrive;
use super::consume::{consume, open};
use super::delivery::{Arrival, Ticket};
use super::in_hand::Held;
use super::runtime::Runtime;
use crate::backend::{Created, Delivery, Properties, Queue, Result};
use crate::engine::NewInstance;
use crate::fault::fault_point;
use crate::model::{Failure, InstanceRef, MessageId, kinds};
use crate::wire::{Bundle, DecodeError, Item, RawStart, StartItem};

/// Before a start (or a task) is published again for a worker that knows its name.
pub(super) const PASS_ON_AFTER: Duration = Duration::from_millis(100);

/// Before a start is handed back that cannot be taken here: it comes again at once.
const PAUSE_BEFORE_HANDING_BACK: Duration = Duration::from_secs(1);

/// Takes starts until the worker drains; lets go of the queue while no lane is held.
pub(super) async fn run(runtime: Arc<Runtime>) {
    let queue = Queue::Workflows(runtime.app.clone());
    while !runtime.draining.is_cancelled() {
        tokio::select! {
            biased;
            () = runtime.lanes.wait_until(|held| held > 0) => {}
            () = runtime.draining.cancelled() => return,
        }
        let until = async {
            tokio::select! {
                biased;
                () = runtime.lanes.wait_until(|held| held == 0) => {}
                () = runtime.draining.cancelled() => {}
            }
        };
        consume(&runtime, &queue, runtime.settings.prefetch, until, |delivery| {
            let work = take(runtime.clone(), delivery);
            runtime.tracker.spawn(work);
        })
        .await;
    }
}

async fn take(runtime: Arc<Runtime>, delivery: Delivery) {
    let is_bundle = delivery.properties.content_type.as_deref() == Some(crate::backend::BUNDLE_TYPE);
    let outcome = if is_bundle {
        take_bundle(&runtime, delivery).await
    } else {
        take_raw(&runtime, delivery).await
    };
    if let Err(error) = outcome
        && !runtime.draining.is_cancelled()
    {
        warn!(%error, "a start could not be taken; its message is handed back");
    }
}

async fn take_bundle(runtime: &Arc<Runtime>, delivery: Delivery) -> Result<()> {
    let origin = Queue::Workflows(runtime.app.clone());
    let Some((bundle, delivery)) = open(runtime, delivery, &origin).await? else {
        return Ok(());
    };
    let is_redelivered = delivery.redelivered;
    let tickets = Ticket::split(delivery, bundle.items.len());
    // All of them before any has to wait: a marker that comes behind them must find them in hand.
    let held: Vec<Held> = bundle
        .items
        .iter()
        .map(|item| runtime.in_hand.take(item, runtime.now()))
        .collect();
    let mut items = bundle.items.into_iter().zip(held).zip(tickets);
    while let Some(((item, held), ticket)) = items.next() {
        if let Err(error) = take_item(runtime, item, held, ticket, is_redelivered, &origin).await {
            // The message is handed back, and those behind the item with it.
            items.for_each(|((_, held), _)| held.comes_again(runtime.now()));
            return Err(error);
        }
    }
    Ok(())
}

async fn take_item(
    runtime: &Arc<Runtime>,
    item: Item,
    held: Held,
    ticket: Ticket,
    is_redelivered: bool,
    origin: &Queue,
) -> Result<()> {
    match item {
        Item::Probe(probe) => {
            probe.marker.into_iter().for_each(|marker| runtime.in_hand.note(marker));
            ticket.done();
        }
        Item::Start(start) => {
            tokio::select! {
                biased;
                () = runtime.room.for_a_start() => {}
                () = runtime.draining.cancelled() => {}
            }
            begin(runtime, start, held, ticket, is_redelivered).await?;
        }
        other => {
            bury_item(runtime, &other, origin, "only starts belong into a workflows queue").await?;
            ticket.done();
        }
    }
    Ok(())
}

/// Puts one item among the dead: it came to the wrong place, or takes down whoever runs it.
pub(super) async fn bury_item(runtime: &Runtime, item: &Item, origin: &Queue, reason: &str) -> Result<()> {
    let body = Bundle::new(vec![item.clone()]).encode();
    let properties = Properties {
        content_type: Some(crate::backend::BUNDLE_TYPE.into()),
        ..Default::default()
    };
    runtime.bury(body, &properties, &origin.local_name(), reason).await
}

async fn begin(
    runtime: &Arc<Runtime>,
    start: StartItem,
    held: Held,
    ticket: Ticket,
    is_redelivered: bool,
) -> Result<()> {
    if runtime.registry.find_workflow(&start.workflow).is_none() {
        if let Err(error) = unknown(runtime, start, &held).await {
            runtime.pause(PAUSE_BEFORE_HANDING_BACK).await;
            held.comes_again(runtime.now());
            return Err(error);
        }
        ticket.done();
        return Ok(());
    }
    let instance = start.instance.clone();
    arrive(
        runtime,
        &instance,
        Arrival {
            held,
            item: Item::Start(start),
            ticket,
            is_redelivered,
            lane: None,
        },
    );
    Ok(())
}

/// The workflow is not registered here: a live worker that knows it gets the start; if there is none, the instance fails and says so.
async fn unknown(runtime: &Arc<Runtime>, mut start: StartItem, held: &Held) -> Result<()> {
    let engine = &runtime.engine;
    let workers = engine
        .retrying("workers", || engine.store().workers(&runtime.app))
        .await?;
    if workers
        .iter()
        .any(|worker| worker.id != runtime.id && worker.workflows.contains(&start.workflow))
    {
        runtime.pause(PASS_ON_AFTER).await;
        held.comes_again(runtime.now());
        start.misses += 1;
        return engine
            .outbox
            .send(Queue::Workflows(runtime.app.clone()), Item::Start(start))
            .await;
    }
    let message = format!(
        "workflow `{}` is not registered by any live worker of app {}",
        start.workflow, runtime.app
    );
    let failure = Failure::new(kinds::WORKFLOW_NOT_REGISTERED, message).at(&runtime.app);
    engine.fail_start(&start, failure).await
}

/// A start that somebody published by hand.
async fn take_raw(runtime: &Arc<Runtime>, delivery: Delivery) -> Result<()> {
    let (body, properties) = (delivery.body.clone(), delivery.properties.clone());
    let ticket = Ticket::split(delivery, 1).pop();
    let created = match create_raw(runtime, &body, &properties).await {
        Err(error) => {
            runtime.pause(PAUSE_BEFORE_HANDING_BACK).await;
            return Err(error);
        }
        Ok(created) => created,
    };
    if let Err(reason) = created {
        warn!(%reason, "a start message is put among the dead");
        let origin = Queue::Workflows(runtime.app.clone()).local_name();
        runtime.bury(body, &properties, &origin, &reason).await?;
    }
    fault_point("raw-start-taken");
    if let Some(ticket) = ticket {
        ticket.done();
    }
    Ok(())
}

/// Creates the instance as a client would. Its start is published then: whoever takes that one runs the first turn. The inner error says why it cannot
/// be started, with the field that is wrong.
async fn create_raw(runtime: &Arc<Runtime>, body: &[u8], properties: &Properties) -> Result<Result<(), String>> {
    let decoded = RawStart::decode(
        body,
        properties.content_type.as_deref(),
        properties.message_id.as_deref(),
    );
    let (raw, id, mut request) = match decoded {
        Ok(decoded) => decoded,
        Err(problem) => return Ok(Err(problem.to_string())),
    };
    let limit = runtime.settings.limits.payload_bytes;
    if raw.input.len() > limit {
        let problem = format!(
            "has {} bytes and the limit is {limit}: raise LEVERET_PAYLOAD_BYTES or pass a reference",
            raw.input.len()
        );
        return Ok(Err(DecodeError::Field {
            field: "input",
            problem,
        }
        .to_string()));
    }
    let instance = InstanceRef::new(runtime.app.clone(), id);
    loop {
        let root = NewInstance::root(
            instance.clone(),
            raw.workflow.clone(),
            raw.input.clone(),
            request.clone(),
        );
        let new = NewInstance {
            start_at: raw.start_at,
            tags: raw.tags.clone(),
            ..root
        };
        match runtime.engine.begin(&new).await? {
            Created::Created(_) | Created::Repeated { .. } => break,
            // We were so slow that the check gave up on us. All takers of this message go on to the same next request.
            Created::Refused => request = next_request(&request),
            Created::Exists(occupant) => {
                return Ok(Err(format!(
                    "field `instance_id`: instance {instance} exists already and is {}",
                    occupant.status
                )));
            }
        }
    }
    debug!(%instance, "raw start taken");
    Ok(Ok(()))
}

fn next_request(request: &MessageId) -> MessageId {
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, format!("after:{request}").as_bytes()).into()
}
