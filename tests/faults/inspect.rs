//! Looking at what is in the store and in the queues.

use std::collections::BTreeSet;

use leveret::backend::{Backend, DueKind, Queue};
use leveret::client::Filter;
use leveret::replay::history::HistoryEvent;
use leveret::wire::{Bundle, Item};
use leveret::{AppId, Client, InstanceRef, Lane};

use super::apps::{APPS, LANES};
use super::soon::PATIENCE;

fn apps() -> impl Iterator<Item = AppId> {
    APPS.into_iter().map(|app| app.parse().expect("valid"))
}

fn queues() -> Vec<Queue> {
    let of_app = |app: AppId| {
        let lanes = (0..LANES).map({
            let app = app.clone();
            move |lane: Lane| Queue::Events(app.clone(), lane)
        });
        let others = [
            Queue::Workflows(app.clone()),
            Queue::Activities(app.clone()),
            Queue::Dead(app),
        ];
        lanes.chain(others).collect::<Vec<_>>()
    };
    apps().flat_map(of_app).chain([Queue::Unrouted]).collect()
}

/// Everything that is not as it must be when all instances are over and nothing is on its way, a line each. Dead letters are no matter of tidiness.
pub(crate) async fn untidy(backend: &Backend) -> Vec<String> {
    let mut left = Vec::new();
    for app in apps() {
        for kind in [DueKind::Check, DueKind::Timer, DueKind::Lease, DueKind::Parked] {
            let entries = backend.store().due_entries(&app, kind, 10).await.expect("answered");
            left.extend(entries.iter().map(|entry| format!("{app}: due entry {entry:?}")));
        }
    }
    for instance in instances(backend).await {
        let record = backend.store().record(&instance).await.expect("answered");
        let record = record.expect("it is in the index");
        if !record.status.is_terminal() || !record.marks.is_empty() {
            left.push(format!("{instance} is {} with marks {:?}", record.status, record.marks));
        }
    }
    let dead = |queue: &Queue| matches!(queue, Queue::Dead(_));
    for queue in queues().into_iter().filter(|queue| !dead(queue)) {
        let depth = backend.broker().depth(&queue).await.expect("answered");
        left.extend(
            depth
                .filter(|depth| depth.messages > 0)
                .map(|depth| format!("{queue} holds {} messages", depth.messages)),
        );
    }
    left
}

/// All instances of the world.
pub(crate) async fn instances(backend: &Backend) -> Vec<InstanceRef> {
    let client = Client::new(backend.clone());
    let all = client.list(Filter::all_apps()).collect().await.expect("listed");
    all.into_iter().map(|summary| summary.instance).collect()
}

/// What no queue may hold once all workers have stopped. Probes may be left: they ask who is there.
pub(crate) async fn messages_left(backend: &Backend) -> Vec<String> {
    let mut left = Vec::new();
    for queue in queues() {
        let Some(depth) = backend.broker().depth(&queue).await.expect("answered") else {
            continue;
        };
        if depth.messages == 0 {
            continue;
        }
        // None is settled: after a look everything is where it was.
        let prefetch = u16::try_from(depth.messages).unwrap_or(u16::MAX);
        let mut consumer = backend.broker().consume(&queue, prefetch).await.expect("subscribed");
        for _ in 0..depth.messages {
            let Ok(delivery) = tokio::time::timeout(PATIENCE, consumer.next()).await else {
                left.push(format!("{queue}: {depth:?}, and fewer come"));
                break;
            };
            let delivery = delivery.expect("a message");
            let items = Bundle::decode(&delivery.body).map_or_else(|_| Vec::new(), |bundle| bundle.items);
            if items.is_empty() || items.iter().any(|item| !matches!(item, Item::Probe(_))) {
                left.push(format!("{queue}: {items:?} {:?}", delivery.properties.headers));
            }
        }
        consumer.cancel().await.expect("cancelled");
    }
    left
}

/// Every instance has ended well, with each completion, timer and event in its history once.
pub(crate) async fn assert_histories(backend: &Backend) {
    let client = Client::new(backend.clone());
    for instance in instances(backend).await {
        let history = client.handle(instance.clone()).history().await.expect("a history");
        let events: Vec<_> = history.iter().flat_map(|turn| &turn.events).collect();
        let (mut completed, mut scheduled, mut raised, mut started, mut ended) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new(), 0, 0);
        for event in &events {
            let is_new = match event {
                HistoryEvent::TaskCompleted { sequence, .. }
                | HistoryEvent::TaskFailed { sequence, .. }
                | HistoryEvent::ChildCompleted { sequence, .. }
                | HistoryEvent::ChildFailed { sequence, .. }
                | HistoryEvent::TimerFired { sequence } => completed.insert(*sequence),
                HistoryEvent::TaskScheduled { sequence, .. }
                | HistoryEvent::ChildScheduled { sequence, .. }
                | HistoryEvent::TimerCreated { sequence, .. } => scheduled.insert(*sequence),
                HistoryEvent::EventRaised { message_id, .. } => raised.insert(message_id.clone()),
                HistoryEvent::ExecutionStarted { seen, .. } => {
                    started += 1;
                    raised.extend(seen.iter().map(|(id, _)| id.clone()));
                    true
                }
                HistoryEvent::ExecutionCompleted { .. } | HistoryEvent::ExecutionFailed { .. } => {
                    ended += 1;
                    true
                }
                _ => true,
            };
            assert!(is_new, "{instance}: twice in history: {event:?}\n{events:#?}");
        }
        assert_eq!((started, ended), (1, 1), "{instance}: {events:#?}");
        assert_eq!(scheduled, completed, "{instance}: {events:#?}");
    }
}
