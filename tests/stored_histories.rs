//! Histories that releases have written replay in the code of today.
//!
//! `fixtures/histories/v{release}/{name}.msgpack` is a list of turns, each as the store holds it. A file is never written again: a history that does
//! not replay any more is a broken promise to every instance that is running. `LEVERET_WRITE_HISTORIES=1` adds files for new names only.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use leveret::replay::history::{HistoryEvent, Turn};
use leveret::replay::{Code, CodeFuture, Execution};
use leveret::wire::{ParentLink, TaskRef};
use leveret::{
    Activity, AppId, BuildId, Compensations, Either, Event, ExecutionId, Failure, InstanceId, InstanceRef, Limits,
    MessageId, Payload, Result, Retry, Timestamp, Workflow, WorkflowContext, all, first, kinds, race,
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
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

fn workflow(name: &str) -> Option<Arc<dyn Code>> {
    Some(match name {
        "checkout" => native(checkout),
        "approval" => native(approval),
        "fan_out" => native(fan_out),
        "saga" => native(saga),
        "patched_loop" => native(patched_loop),
        "endless" => native(endless),
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
    let caller = InstanceRef::new(
        AppId::new("front").expect("valid"),
        InstanceId::new("p").expect("valid"),
    );
    HistoryEvent::ExecutionStarted {
        workflow: "stored".into(),
        input: json(input),
        run: Uuid::from_u128(18).into(),
        generation: 0,
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
        carried: Vec::new(),
        seen: Vec::new(),
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
