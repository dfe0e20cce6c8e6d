//! One of each: every kind of item and every sort of event, with every field filled in.

use std::collections::BTreeMap;
use std::time::Duration;

use leveret::replay::history::{CarriedEvent, ChildRef, HistoryEvent, Refused, TimeLimits, TimerPurpose, Turn};
use leveret::wire::{
    Command, CommandItem, CompletionItem, EventItem, FreshRecord, Item, Outcome, ParentLink, ProbeItem, Ran, StartItem,
    TaskItem, TaskRef, TimerItem, WakeItem,
};
use leveret::{AppId, BuildId, Failure, InstanceId, InstanceRef, MessageId, Payload, Timestamp};
use serde_json::json;
use uuid::Uuid;

fn app(name: &str) -> AppId {
    AppId::new(name).expect("valid")
}

fn instance() -> InstanceRef {
    InstanceRef::new(app("orders"), InstanceId::new("order-1:0002 ünï").expect("valid"))
}

fn task() -> TaskRef {
    TaskRef {
        instance: instance(),
        execution: Uuid::from_u128(1).into(),
        sequence: u64::MAX,
    }
}

fn message_id() -> MessageId {
    MessageId::new("m-1").expect("valid")
}

fn payload() -> Payload {
    Payload::encode(&json!({ "n": 1.5, "list": [null, "x"] })).expect("it is JSON")
}

pub(crate) fn failure() -> Failure {
    let mut failure = Failure::new("CardDeclined", "no").fatal().with_details(payload());
    failure.app = Some(app("payments"));
    failure.stack = Some("at line 1".into());
    failure.caused_by(Failure::new("Deep", "down"))
}

fn parent() -> ParentLink {
    ParentLink {
        task: task(),
        lane: 7,
        detached: true,
        retried: false,
    }
}

fn task_item() -> TaskItem {
    TaskItem {
        caller: task(),
        reply_to: 3,
        app: app("payments"),
        name: "charge".into(),
        input: payload(),
        task_execution_id: Uuid::from_u128(2).into(),
        attempt: 2,
        scheduled_at: Timestamp::from_millis(5),
        claimed: true,
        timeout: Some(Duration::from_millis(1500)),
        heartbeat: None,
        retried: true,
        misses: 0,
    }
}

fn completion(outcome: Outcome) -> CompletionItem {
    CompletionItem {
        task: task(),
        task_execution_id: Some(Uuid::from_u128(2).into()),
        from: app("payments"),
        outcome,
        progressed: false,
        ran: Some(Ran {
            activity: "charge".into(),
            millis: 12,
        }),
    }
}

fn command(command: Command) -> CommandItem {
    CommandItem {
        instance: instance(),
        command,
        issued_at: Timestamp::from_millis(1),
        run: Some(Uuid::from_u128(3).into()),
        parent: Some(task()),
    }
}

fn commands() -> Vec<CommandItem> {
    let reason = || "why".to_owned();
    vec![
        command(Command::Terminate {
            reason: reason(),
            recursive: true,
        }),
        command(Command::Suspend { reason: reason() }),
        command(Command::Resume { reason: reason() }),
    ]
}

fn start_item() -> StartItem {
    StartItem {
        instance: instance(),
        execution: Uuid::from_u128(1).into(),
        workflow: "checkout".into(),
        parent: Some(parent()),
        misses: 1,
        fresh: Some(Box::new(FreshRecord {
            run: Uuid::from_u128(3).into(),
            request: message_id(),
            created_at: Timestamp::from_millis(1),
            start_at: Some(Timestamp::from_millis(2)),
            tags: BTreeMap::from([("team".into(), "blue".into())]),
            input: payload(),
            updated_at: Timestamp::from_millis(3),
        })),
    }
}

fn event_item() -> EventItem {
    EventItem {
        instance: instance(),
        name: "Approved".into(),
        payload: payload(),
        message_id: message_id(),
    }
}

pub(crate) fn history() -> Vec<HistoryEvent> {
    use HistoryEvent::*;
    let sequence = 4;
    let limits = TimeLimits {
        schedule_to_start: Some(Duration::from_secs(1)),
        timeout: Some(Duration::from_secs(2)),
        heartbeat: None,
    };
    let carried = || {
        vec![CarriedEvent {
            name: "Approved".into(),
            payload: payload(),
        }]
    };
    let seen = || vec![(message_id(), Timestamp::from_millis(9))];
    let child = || ChildRef {
        instance: instance(),
        sequence,
    };
    let timer = |purpose| TimerCreated {
        sequence,
        due: Timestamp::from_millis(99),
        purpose,
    };
    let refused = |what| CallRefused {
        sequence,
        what,
        failure: failure(),
    };
    vec![
        ExecutionStarted {
            workflow: "checkout".into(),
            input: payload(),
            run: Uuid::from_u128(3).into(),
            generation: 2,
            parent: Some(parent()),
            tags: BTreeMap::from([("colour".into(), "red".into())]),
            carried: carried(),
            seen: seen(),
        },
        TaskCompleted {
            sequence,
            output: payload(),
        },
        TaskFailed {
            sequence,
            failure: failure(),
        },
        ChildCompleted {
            sequence,
            output: payload(),
        },
        ChildFailed {
            sequence,
            failure: failure(),
            terminate: Some(child()),
        },
        TimerFired { sequence },
        EventRaised {
            name: "Approved".into(),
            payload: payload(),
            message_id: message_id(),
        },
        ExecutionSuspended { reason: "why".into() },
        ExecutionResumed { reason: "why".into() },
        ExecutionTerminated {
            reason: "why".into(),
            recursive: true,
            children: vec![child()],
        },
        TaskScheduled {
            sequence,
            app: app("payments"),
            name: "charge".into(),
            input: payload(),
            task_execution_id: Uuid::from_u128(2).into(),
            attempt: 1,
            limits,
            retried: true,
        },
        ChildScheduled {
            sequence,
            instance: instance(),
            workflow: "ship".into(),
            input: payload(),
            attempt: 1,
            limits,
            retried: true,
            detached: true,
        },
        timer(TimerPurpose::Timer),
        timer(TimerPurpose::EventTimeout {
            name: "Approved".into(),
        }),
        timer(TimerPurpose::Retry {
            app: app("payments"),
            name: "charge".into(),
            attempt: 2,
        }),
        TimerCancelled { sequence },
        EventSent {
            sequence,
            instance: instance(),
            name: "Approved".into(),
            payload: payload(),
        },
        refused(Refused::Call),
        refused(Refused::Event),
        refused(Refused::CustomStatus),
        refused(Refused::NextInput),
        refused(Refused::Output),
        PatchMarked { name: "better".into() },
        ExecutionCompleted { output: payload() },
        ExecutionFailed { failure: failure() },
        ContinuedAsNew {
            input: payload(),
            carried: carried(),
            seen: seen(),
        },
    ]
}

/// One of each kind, and of each outcome and command.
pub(crate) fn items() -> Vec<Item> {
    let mut items = vec![
        Item::Start(start_item()),
        Item::Task(task_item()),
        Item::Completion(completion(Outcome::Completed(payload()))),
        Item::Completion(completion(Outcome::Failed(failure()))),
        Item::Event(event_item()),
        Item::Timer(TimerItem {
            task: task(),
            deadline: true,
        }),
        Item::Wake(WakeItem { instance: instance() }),
        Item::Probe(ProbeItem {
            worker: Uuid::from_u128(5).into(),
            marker: Some(Uuid::from_u128(6).into()),
        }),
    ];
    items.extend(commands().into_iter().map(Item::Command));
    items
}

/// A turn with one of each sort of event.
pub(crate) fn turn() -> Turn {
    Turn {
        version: 1,
        commit: Uuid::from_u128(6).into(),
        at: Timestamp::from_millis(1_790_000_000_000),
        build: Some(BuildId::new("build 7").expect("valid")),
        events: history(),
    }
}
