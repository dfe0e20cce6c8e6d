//! What a client's caller may pass: IDs, names, labels, times, filters, page tokens, reasons.

use std::collections::HashMap;
use std::time::Duration;

use fastrand::Rng;
use leveret::backend::Backend;
use leveret::client::{CommandState, Error, Filter, PageToken, Raised};
use leveret::{AppId, Client, Instance, InstanceRef, Namespace, OnConflict, Status, Timestamp};
use serde_json::json;
use tokio::runtime::{Builder, Runtime};

use super::bytes;
use super::runner::{Fate, play_lots};

struct World {
    client: Client,
    runtime: Runtime,
    /// The workflow that each instance was last seen to run.
    seen: HashMap<InstanceRef, String>,
}

fn world() -> World {
    let backend = Backend::memory(Namespace::new("n").unwrap());
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let orders = AppId::new("orders").unwrap();
    runtime.block_on(backend.broker().declare(&orders, 2)).unwrap();
    World {
        client: Client::new(backend),
        runtime,
        seen: HashMap::new(),
    }
}

/// An error of the caller's making, that says what to change.
fn refused(error: &Error) -> Fate {
    let text = error.to_string();
    assert!(text.len() > 10 && text.len() < 3000, "{text}");
    match error {
        Error::Id(_)
        | Error::InvalidInput { .. }
        | Error::InstanceAlreadyExists { .. }
        | Error::InstanceOver { .. } => {}
        Error::NotFound { .. } | Error::RunGone { .. } | Error::StillActive { .. } => {}
        // A page token is the store's own.
        Error::Backend(error) => assert!(error.is_permanent() && text.contains("page"), "{text}"),
        other => panic!("nothing of the sort was passed: {other}"),
    }
    Fate::Refused
}

#[test]
fn clients() {
    play_lots("clients", world, |world, rng| {
        let World { client, runtime, seen } = world;
        runtime.block_on(async {
            match rng.u8(0..4) {
                0 | 1 => start(client, seen, rng).await,
                2 => list(client, rng).await,
                _ => steer(client, rng).await,
            }
            .unwrap_or_else(|error| refused(&error))
        })
    });
}

fn name(rng: &mut Rng, usual: &str) -> String {
    if rng.u8(0..4) == 0 {
        bytes::text(rng)
    } else {
        usual.to_owned()
    }
}

fn id(rng: &mut Rng) -> String {
    let number = rng.u8(0..40);
    name(rng, &format!("order-{number}"))
}

async fn start(client: &Client, seen: &mut HashMap<InstanceRef, String>, rng: &mut Rng) -> Result<Fate, Error> {
    let (app, workflow) = (name(rng, "orders"), name(rng, "checkout"));
    let mut start = client.start_named::<()>(&app, &workflow, json!({ "n": rng.u32(..) }));
    let chosen = rng.bool().then(|| id(rng));
    if let Some(id) = &chosen {
        start = start.id(id);
    }
    let has_request = rng.u8(0..4) == 0;
    if has_request {
        start = start.request_id(bytes::text(rng));
    }
    let tags: Vec<_> = (0..rng.usize(0..4) * rng.usize(0..14))
        .map(|_| (bytes::text(rng), bytes::text(rng)))
        .collect();
    for (key, value) in &tags {
        start = start.tag(key, value);
    }
    start = match rng.u8(0..4) {
        0 => start.at(Timestamp::from_millis(rng.u64(..) >> rng.u32(0..64))),
        1 => start.after(if rng.bool() {
            Duration::MAX
        } else {
            Duration::from_nanos(rng.u64(..) >> rng.u32(0..64))
        }),
        _ => start,
    };
    use OnConflict::*;
    let policy = [RejectActive, Reject, UseExisting, TerminateExisting][rng.usize(..4)];
    start = start.policy(policy);
    let run = start.await?;
    let info = run.get().await?;
    assert!(chosen.is_none_or(|id| id == run.id()));
    assert_eq!(info.summary.instance.app.as_str(), app);
    // Whoever had the ID, or was started by the request, may run another workflow.
    let before = seen.insert(info.summary.instance.clone(), info.summary.workflow.clone());
    let is_existing = (policy == UseExisting || has_request) && before.as_ref() == Some(&info.summary.workflow);
    assert!(is_existing || info.summary.workflow == workflow, "{info:?}");
    serde_json::to_value(&info).expect("what is shown has a JSON form");
    let mut filter = Filter::app(&app)
        .name(&info.summary.workflow)
        .status(info.summary.status);
    for (key, value) in &info.summary.tags {
        filter = filter.tag(key, value);
    }
    let found = client
        .list(filter.created_from(info.summary.created_at))
        .collect()
        .await?;
    assert!(
        found.iter().any(|listed| listed.instance == info.summary.instance),
        "it is listed: {info:?}"
    );
    if info.summary.status == Status::Pending && rng.bool() {
        let instance = client.handle(info.summary.instance.clone());
        assert_eq!(instance.terminate(bytes::text(rng)).await?, CommandState::Done);
        assert!(!instance.history().await?.is_empty());
        assert_eq!(instance.purge().await?, 1);
    }
    Ok(Fate::Taken)
}

async fn list(client: &Client, rng: &mut Rng) -> Result<Fate, Error> {
    let mut filter = if rng.bool() {
        Filter::app(name(rng, "orders"))
    } else {
        Filter::all_apps()
    };
    if rng.bool() {
        filter = filter.name(name(rng, "checkout"));
    }
    if rng.bool() {
        filter = filter
            .created_before(Timestamp::from_millis(rng.u64(..)))
            .created_from(Timestamp::from_millis(rng.u64(..)));
    }
    if rng.bool() {
        filter = filter.tag(bytes::text(rng), bytes::text(rng));
    }
    let mut list = client.list(filter).page_size(rng.usize(0..12) * rng.usize(0..120));
    let token = match rng.u8(0..4) {
        0 => Some(format!("{}/{}", name(rng, "orders"), bytes::text(rng))),
        1 => Some(format!("orders/{:016x}{}", rng.u64(..), id(rng))),
        2 => Some(bytes::text(rng)),
        _ => None,
    };
    if let Some(text) = token {
        let token: PageToken = text.parse()?;
        assert_eq!(token.to_string(), text, "a token is what it was read from");
        list = list.after(token);
    }
    let page = list.await?;
    if let Some(next) = &page.next {
        assert_eq!(&next.to_string().parse::<PageToken>()?, next);
    }
    Ok(Fate::Taken)
}

async fn steer(client: &Client, rng: &mut Rng) -> Result<Fate, Error> {
    let instance: Instance = client.instance(name(rng, "orders"), id(rng))?;
    match rng.u8(0..6) {
        0 => {
            let mut raise = instance.raise_named(name(rng, "approved"), json!(rng.u8(..)));
            if rng.bool() {
                raise = raise.message_id(bytes::text(rng));
            }
            let raised = raise.await?;
            assert!(matches!(raised, Raised::Kept(_) | Raised::KeptForLater), "{raised:?}");
        }
        1 => drop(instance.suspend(bytes::text(rng)).await?),
        2 => drop(instance.resume(bytes::text(rng)).await?),
        3 => drop(instance.terminate(bytes::text(rng)).await?),
        4 => drop(instance.purge().await?),
        _ => drop(serde_json::to_value(instance.get().await?).expect("what is shown has a JSON form")),
    }
    Ok(Fate::Taken)
}
