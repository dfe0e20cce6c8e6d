//! Histories that releases have written replay in the code of today.
//!
//! `fixtures/histories/v{release}/{name}.msgpack` is a list of turns, each as the store holds it. A file is never written again: a history that does
//! not replay any more is a broken promise to every instance that is running. `LEVERET_WRITE_HISTORIES=1` adds files for new names only.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use leveret::replay::history::{CarriedEvent, ChildRef, HistoryEvent, Turn};
use leveret::replay::{Code, CodeFuture, Execution};
use leveret::wire::{ParentLink, TaskRef};
use leveret::{
    Activity, AppId, BuildId, Compensations, Either, Event, ExecutionId, Failure, InstanceId, InstanceRef, Limits,
    MessageId, Payload, Result, Retry, Timestamp, Workflow, WorkflowContext, all, first, kinds, race,
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use serde_json::Value;
use uuid::Uuid;

/// Set to write histories for names that have none in this release's folder.
const WRITE: &str = "LEVERET_WRITE_HISTORIES";

const CHARGE: Activity<u64, String> = Activity::new("payments", "charge");
const REFUND: Activity<String, ()> = Activity::new("payments", "refund");
const SHIP: Workflow<u64, String> = Workflow::new("shipping", "ship");
const APPROVED: Event<bool> = Event::new("approved");

const SECOND: Duration = Duration::from_secs(1);

// --- the workflows: their code is as frozen as the files are

/// Retries, time limits, a child with a chosen ID, a custom status.
async fn checkout(ctx: WorkflowContext, amount: u64) -> Result<String> {
    ctx.set_custom_status("charging")?;
    let receipt = ctx
        .call(CHARGE, amount)
        .retry(Retry::times(3).first(SECOND).jitter(0.5).not_on("Declined"))
        .timeout(10 * SECOND)
        .schedule_to_start(60 * SECOND)
        .await?;
    ctx.set_custom_status("shipping")?;
    let tracking = ctx.child(SHIP, amount).id("ship-1").await?;
    Ok(format!("{receipt} {tracking}"))
}

/// Events with time limits, a race, an event sent on, a draw.
async fn approval(ctx: WorkflowContext, rounds: u32) -> Result<u32> {
    let mut approvals = 0;
    for _ in 0..rounds {
        match ctx.event(APPROVED).within(60 * SECOND).await? {
            Some(true) => approvals += 1,
            Some(false) => {}
            None => ctx.raise(&instance(), APPROVED, false)?,
        }
    }
    if let Either::Left(late) = race(ctx.event(APPROVED), ctx.timer(SECOND)).await {
        approvals += u32::from(late?);
    }
    if ctx.random() < 2.0 {
        ctx.child_named::<()>("report", ctx.uuid()).detach()?;
    }
    Ok(approvals)
}

/// A fan-out, then the first of three.
async fn fan_out(ctx: WorkflowContext, width: u64) -> Result<usize> {
    let retry = Retry::times(2).first(SECOND);
    let results = all((0..width).map(|n| ctx.call(CHARGE, n).retry(retry.clone()))).await;
    let charged = results.iter().filter(|result| result.is_ok()).count();
    let winner = first((0..3).map(|n| ctx.child(SHIP, n))).await.expect("three");
    winner.result?;
    Ok(charged + winner.index)
}

/// A failure that is undone, and a call that is refused.
async fn saga(ctx: WorkflowContext, amount: u64) -> Result<()> {
    let mut undo = Compensations::new();
    let receipt = ctx.call(CHARGE, amount).await?;
    undo.push(ctx.call(REFUND, receipt));
    let refused = ctx.call(CHARGE, amount).app_id("not an app").await;
    assert!(refused.is_err_and(|failure| failure.is(kinds::INVALID_CALL)));
    match ctx.child(SHIP, amount).retry(Retry::times(2)).await {
        Ok(_) => Ok(()),
        Err(failure) => Err(undo.run(failure).await),
    }
}

/// A patch, then continue-as-new with an event unread.
async fn patched_loop(ctx: WorkflowContext, rounds: u32) -> Result<u32> {
    if ctx.patched("charge-first") {
        ctx.call(CHARGE, u64::from(rounds)).await?;
    }
    ctx.event(APPROVED).await?;
    ctx.continue_as_new(rounds + 1)
}

/// Ended from outside with everything open.
async fn endless(ctx: WorkflowContext, amount: u64) -> Result<()> {
    let _timer = ctx.timer(3600 * SECOND).start();
    let _call = ctx.call(CHARGE, amount).timeout(SECOND).start();
    let _child = ctx.child(SHIP, amount).start();
    ctx.event(APPROVED).await.map(drop)
}

/// Time limits of every sort: a heartbeat, and a child that did not start in time and is ended for it.
async fn deadlines(ctx: WorkflowContext, amount: u64) -> Result<String> {
    let call = ctx
        .call(CHARGE, amount)
        .heartbeat(5 * SECOND)
        .timeout(60 * SECOND)
        .await;
    let child = ctx
        .child(SHIP, amount)
        .schedule_to_start(10 * SECOND)
        .timeout(600 * SECOND);
    match (call, child.await) {
        (Err(missed), Err(late)) => Ok(format!("{} {}", missed.kind, late.kind)),
        _ => Err(Failure::new("Unexpected", "both were too late")),
    }
}

/// Everything that can be too large. (The limit of today is not asked on replay: the history says what was refused.)
async fn too_large(ctx: WorkflowContext, megabytes: usize) -> Result<String> {
    let large = "x".repeat(megabytes << 20);
    ctx.set_custom_status(&large).expect_err("it is too large");
    ctx.raise(&instance(), Event::new("large"), large.clone())
        .expect_err("it is too large");
    ctx.call_named::<()>("charge", &large)
        .await
        .expect_err("it is too large");
    ctx.continue_as_new::<()>(&large).expect_err("it is too large");
    Ok(large)
}

/// The execution after a continue-as-new: one event was carried over, another has been seen.
async fn next_round(ctx: WorkflowContext, round: u32) -> Result<u32> {
    let carried = ctx.event(APPROVED).await?;
    let fresh = ctx.event(APPROVED).await?;
    Ok(round + u32::from(carried) + u32::from(fresh))
}

fn workflow(name: &str) -> Option<Arc<dyn Code>> {
    Some(match name {
        "checkout" => native(checkout),
        "approval" => native(approval),
        "fan_out" => native(fan_out),
        "saga" => native(saga),
        "patched_loop" => native(patched_loop),
        "endless" => native(endless),
        "deadlines" => native(deadlines),
        "too_large" => native(too_large),
        "next_round" => native(next_round),
        _ => return None,
    })
}

/// What happened to each workflow, turn by turn: seconds since the turn before, and the events.
fn scripts() -> BTreeMap<&'static str, Vec<(u64, Vec<HistoryEvent>)>> {
    let terminate = HistoryEvent::ExecutionTerminated {
        reason: "enough".into(),
        recursive: true,
        children: Vec::new(),
    };
    let suspend = HistoryEvent::ExecutionSuspended {
        reason: "maintenance".into(),
    };
    let resume = HistoryEvent::ExecutionResumed { reason: "over".into() };
    BTreeMap::from([
        (
            "checkout",
            vec![
                (0, vec![started(12_u64)]),
                (1, vec![failed(0, "Flaky")]),
                (1, vec![fired(1)]),
                (4, vec![suspend, resume, completed(2, "receipt")]),
                (1, vec![child_completed(3, "tracking")]),
            ],
        ),
        (
            "approval",
            vec![
                (0, vec![started(3_u32), raised("Approved", true, "m-1")]),
                (1, vec![raised("other", 1, "m-2"), raised("APPROVED", false, "m-3")]),
                (60, vec![fired(2)]),
                (1, vec![fired(4)]),
            ],
        ),
        (
            "fan_out",
            vec![
                (0, vec![started(5_u64)]),
                (1, vec![completed(3, "r"), failed(1, "Flaky"), completed(0, "r")]),
                (1, vec![completed(4, "r"), fired(5), completed(2, "r")]),
                (1, vec![failed(6, "Flaky")]),
                (1, vec![child_completed(8, "t"), child_completed(7, "t")]),
            ],
        ),
        (
            "saga",
            vec![
                (0, vec![started(12_u64)]),
                (1, vec![completed(0, "receipt")]),
                (1, vec![child_failed(2, "Lost")]),
                (1, vec![fired(3)]),
                (1, vec![child_failed(4, "Lost")]),
                (1, vec![completed(5, ())]),
            ],
        ),
        (
            "patched_loop",
            vec![
                (0, vec![started(0_u32)]),
                (1, vec![raised("other", 1, "m-1"), completed(0, "receipt")]),
                (1, vec![raised("approved", true, "m-2")]),
            ],
        ),
        ("endless", vec![(0, vec![started(12_u64)]), (1, vec![terminate])]),
        (
            "deadlines",
            vec![
                (0, vec![started(12_u64)]),
                (6, vec![failed(0, kinds::HEARTBEAT_MISSED)]),
                (10, vec![child_ended(1)]),
            ],
        ),
        ("too_large", vec![(0, vec![started(9_usize)])]),
        (
            "next_round",
            vec![
                (0, vec![next_started(2_u32)]),
                (1, vec![raised("approved", true, "m-2")]),
            ],
        ),
    ])
}

// --- the tests

#[test]
fn histories_of_every_release_replay_in_this_one() {
    if std::env::var_os(WRITE).is_some() {
        write_missing();
    }
    let files = stored();
    assert!(!files.is_empty(), "there are stored histories");
    for (path, turns) in files {
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a plain name");
        let code = workflow(name).unwrap_or_else(|| panic!("{}: its workflow is gone from this test", path.display()));
        let mut execution = fresh(&code);
        for turn in &turns {
            if let Err(stuck) = execution.replay(turn) {
                panic!("{} does not replay: {stuck}", path.display());
            }
        }
        assert!(execution.is_over(), "{}", path.display());
    }
}

#[test]
fn an_instance_of_an_older_release_goes_on_from_any_turn_as_it_did() {
    for (path, turns) in stored() {
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a plain name");
        let code = workflow(name).expect("its workflow is here");
        for at in 0..turns.len() {
            let mut execution = fresh(&code);
            turns[..at]
                .iter()
                .for_each(|turn| execution.replay(turn).expect("it replays"));
            execution.begin_turn(turns[at].at).expect("it goes on");
            let mut events = Vec::new();
            for event in turns[at].events.iter().filter(|event| event.is_arrived()) {
                execution.advance(event.clone(), &mut events).expect("it goes on");
            }
            let same = |(new, old): (&HistoryEvent, &HistoryEvent)| new == old || new.same_decision(old);
            assert!(
                events.len() == turns[at].events.len() && events.iter().zip(&turns[at].events).all(same),
                "{}, turn {}: now {events:#?}",
                path.display(),
                at + 1
            );
        }
    }
}

#[test]
fn every_workflow_has_a_history_of_this_release() {
    let folder = release_folder();
    for name in scripts().keys() {
        let file = folder.join(format!("{name}.msgpack"));
        assert!(
            file.exists(),
            "{} is missing: run `{WRITE}=1 cargo test --test stored_histories`",
            file.display()
        );
    }
}

/// A sort of event or a field that no stored history has could change unnoticed.
#[test]
fn the_histories_of_this_release_have_everything_that_a_history_can_have() {
    let schema = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/turn.json"));
    let schema: Value = serde_json::from_str(&schema.expect("the schema is there")).expect("a schema is JSON");
    let (mut wanted, mut found) = (BTreeSet::new(), BTreeSet::new());
    collect_names(&schema, &mut wanted);
    let here = stored()
        .into_iter()
        .filter(|(path, _)| path.starts_with(release_folder()));
    for (_, turns) in here {
        for turn in turns {
            collect_words(&serde_json::to_value(turn).expect("it has a JSON form"), &mut found);
        }
    }
    let missing: Vec<_> = wanted.difference(&found).collect();
    assert!(wanted.len() > 60, "the schema names events and fields: {wanted:?}");
    assert!(
        missing.is_empty(),
        "no stored history has {missing:?}: add a workflow that has"
    );
}

/// What a schema calls fields, and variants of enums.
fn collect_names(schema: &Value, names: &mut BTreeSet<String>) {
    match schema {
        Value::Object(parts) => {
            for (key, part) in parts {
                match (key.as_str(), part) {
                    // What a value must not be.
                    ("not", _) => continue,
                    ("properties", Value::Object(fields)) => names.extend(fields.keys().cloned()),
                    ("const", Value::String(word)) => drop(names.insert(word.clone())),
                    ("enum", Value::Array(words)) => {
                        names.extend(words.iter().filter_map(Value::as_str).map(str::to_owned));
                    }
                    _ => {}
                }
                collect_names(part, names);
            }
        }
        Value::Array(parts) => parts.iter().for_each(|part| collect_names(part, names)),
        _ => {}
    }
}

fn collect_words(value: &Value, words: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => drop(words.insert(text.clone())),
        Value::Array(list) => list.iter().for_each(|value| collect_words(value, words)),
        Value::Object(fields) => {
            for (name, value) in fields {
                words.insert(name.clone());
                collect_words(value, words);
            }
        }
        _ => {}
    }
}

// --- files

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/histories")
}

/// Of this release's minor version: patch releases write the same format.
fn release_folder() -> PathBuf {
    let (major, minor) = (env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"));
    fixtures().join(format!("v{major}.{minor}"))
}

fn stored() -> Vec<(PathBuf, Vec<Turn>)> {
    let folders = list(&fixtures());
    let files = folders.iter().flat_map(|folder| list(folder));
    files
        .map(|path| {
            let bytes = std::fs::read(&path).expect("it can be read");
            let turns: Vec<ByteBuf> = rmp_serde::from_slice(&bytes).expect("a list of turns");
            let turns = turns
                .iter()
                .map(|turn| Turn::decode(turn).expect("a stored turn can be read"));
            (path, turns.collect())
        })
        .collect()
}

fn list(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// Runs the scripts that have no file yet. `create_new` makes sure that no file is ever written twice.
fn write_missing() {
    let folder = release_folder();
    std::fs::create_dir_all(&folder).expect("the folder can be made");
    for (name, script) in scripts() {
        let path = folder.join(format!("{name}.msgpack"));
        if path.exists() {
            continue;
        }
        let turns: Vec<ByteBuf> = run(name, script)
            .iter()
            .map(|turn| ByteBuf::from(turn.encode()))
            .collect();
        let bytes = rmp_serde::to_vec_named(&turns).expect("bytes can be written");
        let mut file = std::fs::File::create_new(&path).expect("it was not there");
        std::io::Write::write_all(&mut file, &bytes).expect("the file can be written");
    }
}

fn run(name: &str, script: Vec<(u64, Vec<HistoryEvent>)>) -> Vec<Turn> {
    let mut execution = fresh(&workflow(name).expect("a script is for a workflow"));
    let mut at = Timestamp::from_millis(1_790_000_000_000);
    let turns = script.into_iter().zip(1..).map(|((seconds, arrived), version)| {
        at = at + Duration::from_secs(seconds);
        execution.begin_turn(at).expect("it goes on");
        let mut events = Vec::new();
        for event in arrived {
            execution.advance(event, &mut events).expect("it goes on");
        }
        Turn {
            version,
            commit: Uuid::from_u128(u128::from(version)).into(),
            at,
            build: Some(BuildId::new(env!("CARGO_PKG_VERSION")).expect("printable")),
            events,
        }
    });
    let turns = turns.collect();
    assert!(execution.is_over(), "the script of {name} runs to its end: {turns:#?}");
    turns
}

// --- what happens, and who runs it

fn instance() -> InstanceRef {
    let app = AppId::new("orders").expect("valid");
    InstanceRef::new(app, InstanceId::new("order-1").expect("valid"))
}

fn fresh(code: &Arc<dyn Code>) -> Execution {
    let execution: ExecutionId = Uuid::from_u128(17).into();
    Execution::new(instance(), execution, code.clone(), &Limits::default())
}

fn json(value: impl Serialize) -> Payload {
    Payload::encode(&value).expect("it has a JSON form")
}

fn started(input: impl Serialize) -> HistoryEvent {
    begun(input, 0, Vec::new(), Vec::new())
}

fn next_started(input: impl Serialize) -> HistoryEvent {
    let carried = CarriedEvent {
        name: "Approved".into(),
        payload: json(true),
    };
    let seen = MessageId::new("m-1").expect("printable");
    begun(
        input,
        1,
        vec![carried],
        vec![(seen, Timestamp::from_millis(1_789_999_999_000))],
    )
}

fn begun(
    input: impl Serialize,
    generation: u32,
    carried: Vec<CarriedEvent>,
    seen: Vec<(MessageId, Timestamp)>,
) -> HistoryEvent {
    let caller = InstanceRef::new(
        AppId::new("front").expect("valid"),
        InstanceId::new("p").expect("valid"),
    );
    HistoryEvent::ExecutionStarted {
        workflow: "stored".into(),
        input: json(input),
        run: Uuid::from_u128(18).into(),
        generation,
        parent: Some(ParentLink {
            task: TaskRef {
                instance: caller,
                execution: Uuid::from_u128(19).into(),
                sequence: 3,
            },
            lane: 2,
            detached: false,
            retried: true,
        }),
        tags: BTreeMap::from([("colour".into(), "red".into())]),
        carried,
        seen,
    }
}

fn completed(sequence: u64, output: impl Serialize) -> HistoryEvent {
    HistoryEvent::TaskCompleted {
        sequence,
        output: json(output),
    }
}

fn failure(kind: &str) -> Failure {
    let cause = Failure::new("Deep", "down").with_details(json([1]));
    Failure::new(kind, "it failed").caused_by(cause)
}

fn failed(sequence: u64, kind: &str) -> HistoryEvent {
    HistoryEvent::TaskFailed {
        sequence,
        failure: failure(kind),
    }
}

fn child_completed(sequence: u64, output: impl Serialize) -> HistoryEvent {
    HistoryEvent::ChildCompleted {
        sequence,
        output: json(output),
    }
}

fn child_failed(sequence: u64, kind: &str) -> HistoryEvent {
    HistoryEvent::ChildFailed {
        sequence,
        failure: failure(kind),
        terminate: None,
    }
}

/// A child whose time is up, as the worker that settles its deadline says it.
fn child_ended(sequence: u64) -> HistoryEvent {
    let mut failure = Failure::new(kinds::TARGET_UNAVAILABLE, "it did not start in time").fatal();
    failure.stack = Some("at line 1".into());
    let app = AppId::new("shipping").expect("valid");
    let child = ChildRef {
        instance: InstanceRef::new(app, InstanceId::new("order-1:0001").expect("valid")),
        sequence,
    };
    HistoryEvent::ChildFailed {
        sequence,
        failure,
        terminate: Some(child),
    }
}

fn fired(sequence: u64) -> HistoryEvent {
    HistoryEvent::TimerFired { sequence }
}

fn raised(name: &str, payload: impl Serialize, id: &str) -> HistoryEvent {
    HistoryEvent::EventRaised {
        name: name.into(),
        payload: json(payload),
        message_id: MessageId::new(id).expect("printable"),
    }
}

/// A plain async function as workflow code.
fn native<I, O, F, Fut>(run: F) -> Arc<dyn Code>
where
    I: for<'de> Deserialize<'de> + 'static,
    O: Serialize + 'static,
    F: Fn(WorkflowContext, I) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<O>> + Send + 'static,
{
    struct Native<I, F>(F, std::marker::PhantomData<fn(I)>);
    impl<I, O, F, Fut> Code for Native<I, F>
    where
        I: for<'de> Deserialize<'de>,
        O: Serialize,
        F: Fn(WorkflowContext, I) -> Fut + Send + Sync,
        Fut: Future<Output = Result<O>> + Send + 'static,
    {
        fn begin(&self, ctx: WorkflowContext, input: Payload) -> CodeFuture {
            let future = (self.0)(ctx, input.decode().expect("the input fits"));
            Box::pin(async move { Payload::encode(&future.await?) })
        }
    }
    Arc::new(Native(run, std::marker::PhantomData))
}
