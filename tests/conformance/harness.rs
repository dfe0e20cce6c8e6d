//! Where behaviours run, and what they are written with.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use leveret::backend::{Backend, Broker, Commit, Committed, DueEntry, DueKind, Mark, Message, Queue, Record, When};
use leveret::client::InstanceInfo;
use leveret::replay::history::{HistoryEvent, Turn};
use leveret::wire::{Bundle, CompletionItem, Item, Outcome, TaskItem};
use leveret::{
    AppId, Client, CommitId, Instance, InstanceId, InstanceRef, MessageId, Retry, Run, RunToken, RunningWorker,
    Settings, Status, Worker, Workflow, WorkflowContext,
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

/// Makes backends.
pub(crate) trait Harness {
    /// A backend in a namespace that nobody has used.
    async fn backend(&self) -> Backend;

    /// After the test.
    async fn clean_up(&self);
}

/// For waits that are to succeed: long enough for a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A retry policy that does not keep tests waiting.
pub(crate) fn quick_retry(attempts: u32) -> Retry {
    Retry::times(attempts).first(millis(20)).factor(1.0)
}

/// Waits for what has to come.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
    }
}

/// Looks until there is what is looked for.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    soon(what, async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(millis(10)).await;
        }
    })
    .await
}

/// Settings with which nothing takes longer than a test has time.
pub(crate) fn settings() -> Settings {
    Settings {
        lanes: 2,
        heartbeat: millis(200),
        due_interval: millis(10),
        parked_interval: millis(200),
        shutdown_grace: millis(200),
        ..Settings::default()
    }
}

pub(crate) fn app(id: &str) -> AppId {
    AppId::new(id).unwrap()
}

pub(crate) fn instance(app_id: &str, id: &str) -> InstanceRef {
    InstanceRef::new(app(app_id), InstanceId::new(id).unwrap())
}

/// The completion of a task whose activity returns what it is given.
pub(crate) fn answer_to(task: &TaskItem) -> Item {
    Item::Completion(CompletionItem {
        task: task.caller.clone(),
        task_execution_id: Some(task.task_execution_id),
        from: task.app.clone(),
        outcome: Outcome::Completed(task.input.clone()),
        progressed: false,
        ran: None,
    })
}

/// One namespace of a backend, with a client.
pub(crate) struct Stage {
    pub(crate) backend: Backend,
    pub(crate) client: Client,
}

impl Stage {
    pub(crate) async fn new(harness: &impl Harness) -> Self {
        let backend = harness.backend().await;
        Self {
            client: Client::new(backend.clone()),
            backend,
        }
    }

    /// A worker to be.
    pub(crate) fn worker(&self, app: &str) -> Worker {
        Worker::new(app, self.backend.clone()).settings(settings())
    }

    /// An app that is known and of which no worker is up.
    pub(crate) async fn known_app(&self, app: &str) {
        up(self.worker(app)).await.stop().await;
    }

    pub(crate) fn broker(&self) -> &Arc<dyn Broker> {
        self.backend.broker()
    }

    /// A handle to an instance.
    pub(crate) fn at(&self, app: &str, id: &str) -> Instance {
        self.client.instance(app, id).unwrap()
    }

    pub(crate) async fn record(&self, app: &str, id: &str) -> Option<Record> {
        self.backend.store().record(&instance(app, id)).await.unwrap()
    }

    /// The record, once nothing of its effects is outstanding.
    pub(crate) async fn unmarked(&self, app: &str, id: &str) -> Record {
        until("the marks to be cleared", async || {
            let record = self.record(app, id).await;
            record.filter(|record| record.marks.is_empty())
        })
        .await
    }

    /// Has the instances of the app looked at now.
    pub(crate) async fn check_now(&self, app_id: &str) {
        let store = self.backend.store();
        let now = store.now().await.unwrap();
        let checks = store.due_entries(&app(app_id), DueKind::Check, 1000).await.unwrap();
        let checks: Vec<_> = checks.into_iter().map(|check| DueEntry { due: now, ..check }).collect();
        store.schedule(&app(app_id), &checks, When::Sooner).await.unwrap();
    }

    /// Sets a mark as whoever died before its effects left it.
    pub(crate) async fn mark_again(&self, instance: &InstanceRef, record: &Record, mark: Mark) {
        let turn = Turn {
            version: record.version + 1,
            commit: CommitId::generate(),
            at: self.backend.store().now().await.unwrap(),
            build: None,
            events: Vec::new(),
        };
        self.append(instance, record, turn.encode(), vec![mark]).await;
    }

    /// Appends what may or may not be a turn, as a commit does, with what it leaves unmade.
    pub(crate) async fn append(&self, instance: &InstanceRef, record: &Record, turn: Bytes, marks: Vec<Mark>) {
        let commit = Commit {
            instance: instance.clone(),
            guard: record.guard(),
            id: CommitId::generate(),
            turn,
            next_execution: None,
            status: record.status,
            lane: record.lane,
            view: record.view.clone(),
            outcome: record.outcome.clone(),
            drop_input: false,
            inbox_taken: 0,
            inbox_kept: Vec::new(),
            marks,
            cleared: Vec::new(),
            claims_opened: Vec::new(),
            claims_closed: Vec::new(),
        };
        let committed = self.backend.store().commit(&commit).await.unwrap();
        assert!(matches!(committed, Committed::Applied { .. }), "{committed:?}");
    }

    /// Puts items into a queue, as one message.
    pub(crate) async fn publish(&self, queue: Queue, items: Vec<Item>) {
        let message = Message::bundle(queue, Bundle::new(items).encode(), &MessageId::generate());
        self.broker().publish(message).await.unwrap();
    }

    /// Takes the next message out of a queue and leaves it unsettled, as one who dies of it: it comes again as redelivered.
    pub(crate) async fn take_and_die(&self, queue: &Queue) -> Vec<Item> {
        let mut consumer = self.broker().consume(queue, 1).await.unwrap();
        let delivery = soon("a message", consumer.next()).await.expect("a message");
        Bundle::decode(&delivery.body).unwrap().items
    }

    /// Takes the next message out of a queue for good.
    pub(crate) async fn take(&self, queue: &Queue) -> Vec<Item> {
        let mut consumer = self.broker().consume(queue, 1).await.unwrap();
        let delivery = soon("a message", consumer.next()).await.expect("a message");
        delivery.ack();
        let items = Bundle::decode(&delivery.body).unwrap().items;
        consumer.cancel().await.unwrap();
        items
    }

    pub(crate) async fn depth(&self, queue: Queue) -> u64 {
        self.broker()
            .depth(&queue)
            .await
            .unwrap()
            .map_or(0, |depth| depth.messages)
    }

    /// Returns when so many messages wait in a queue.
    pub(crate) async fn wait_for_depth(&self, queue: Queue, messages: u64) {
        let what = format!("{messages} messages in {queue}");
        until(&what, async || {
            (self.depth(queue.clone()).await == messages).then_some(())
        })
        .await;
    }

    /// All events of the current execution.
    pub(crate) async fn events(&self, app: &str, id: &str) -> Vec<HistoryEvent> {
        let turns = self.at(app, id).history().await.unwrap();
        turns.into_iter().flat_map(|turn| turn.events).collect()
    }

    /// How many events of the history are as described.
    pub(crate) async fn count_events(&self, app: &str, id: &str, is_meant: impl Fn(&HistoryEvent) -> bool) -> usize {
        self.events(app, id)
            .await
            .iter()
            .filter(|event| is_meant(event))
            .count()
    }

    /// What stands in the app's due-set of this kind: the first ten entries.
    pub(crate) async fn due(&self, app_id: &str, kind: DueKind) -> Vec<DueEntry> {
        self.backend.store().due_entries(&app(app_id), kind, 10).await.unwrap()
    }

    /// Notes runs whose processes died in them.
    pub(crate) async fn runs_died(&self, app_id: &str, item: &MessageId, times: u32) {
        let store = self.backend.store();
        for _ in 0..times {
            store.begin_run(&app(app_id), item, RunToken::generate()).await.unwrap();
        }
    }

    /// How many items wait in the instance's inbox.
    pub(crate) async fn inbox(&self, app: &str, id: &str) -> usize {
        let loaded = self.backend.store().load(&instance(app, id), 0, 100).await.unwrap();
        loaded.unwrap().inbox.len()
    }

    /// Returns when the instance is as wanted.
    pub(crate) async fn wait_for(
        &self,
        app: &str,
        id: &str,
        what: &str,
        is_wanted: impl Fn(&InstanceInfo) -> bool,
    ) -> InstanceInfo {
        until(&format!("{app}/{id} to be {what}"), async || {
            match self.at(app, id).get().await {
                Ok(info) if is_wanted(&info) => Some(info),
                _ => None,
            }
        })
        .await
    }

    pub(crate) async fn wait_for_status(&self, app: &str, id: &str, status: Status) -> InstanceInfo {
        self.wait_for(app, id, status.as_str(), |info| info.status == status)
            .await
    }

    /// Returns when the text about what the instance waits for has all of these in it.
    pub(crate) async fn wait_for_text(&self, app: &str, id: &str, texts: &[&str]) -> String {
        let has_all = |info: &InstanceInfo| texts.iter().all(|text| info.waiting.to_string().contains(text));
        self.wait_for(app, id, &format!("waiting for {texts:?}"), has_all)
            .await
            .waiting
            .to_string()
    }
}

/// True once the workflow's code has set a status: how it tells a test where it is.
pub(crate) fn has_custom_status(info: &InstanceInfo) -> bool {
    info.custom_status.is_some()
}

/// Returns when the worker has dropped so many items.
pub(crate) async fn wait_for_dropped(worker: &RunningWorker, items: u64) {
    until(&format!("{items} items to be dropped"), async || {
        (worker.counts().dropped.values().sum::<u64>() == items).then_some(())
    })
    .await;
}

/// Whole workflows of another app, one after the other: by their end, what a worker begins at once has begun.
pub(crate) async fn a_while(stage: &Stage) {
    let elsewhere: Workflow<u64, u64> = Workflow::new("elsewhere", "main");
    let worker = stage.worker("elsewhere");
    let worker = up(worker.workflow(elsewhere, async |_: WorkflowContext, n: u64| ok(n))).await;
    for n in 0..5 {
        let run = stage.client.start(elsewhere, n).await.unwrap();
        assert_eq!(done(&run).await, n);
    }
    worker.stop().await;
}

/// Starts a worker and returns when it holds a lane.
pub(crate) async fn up(worker: Worker) -> RunningWorker {
    let running = soon("a worker to start", worker.start()).await.expect("a worker");
    soon("a lane", running.wait_for_lane()).await;
    running
}

/// A size that takes its time, or a small one: `LEVERET_FULL_SIZE=1 cargo test --release --all-features --test conformance limits` runs the former.
pub(crate) fn size(full: u64, short: u64) -> u64 {
    if std::env::var_os("LEVERET_FULL_SIZE").is_some() {
        full
    } else {
        short
    }
}

/// The run's output.
pub(crate) async fn done<O: DeserializeOwned + 'static>(run: &Run<O>) -> O {
    done_within(run, PATIENCE).await
}

/// The run's output, of a run that may take so long.
pub(crate) async fn done_within<O: DeserializeOwned + 'static>(run: &Run<O>, longest: Duration) -> O {
    match run.result().within(longest).await {
        Ok(output) => output,
        Err(error) => panic!(
            "{} has not completed: {error}; waiting for {:?}",
            run.instance(),
            waiting(run).await
        ),
    }
}

/// The failure with which the run ends.
pub(crate) async fn failure<O: DeserializeOwned + std::fmt::Debug + 'static>(run: &Run<O>) -> leveret::Failure {
    match run.result().within(PATIENCE).await {
        Err(leveret::client::Error::Failed(failure)) => *failure,
        other => panic!(
            "{} has not failed: {other:?}; waiting for {:?}",
            run.instance(),
            waiting(run).await
        ),
    }
}

async fn waiting<O>(run: &Run<O>) -> Option<(Status, String)> {
    run.get().await.ok().map(|info| (info.status, info.waiting.to_string()))
}

/// What code of a test returns; `Ok` alone would not say what errors there are.
pub(crate) fn ok<T>(value: T) -> leveret::Result<T> {
    Ok(value)
}

/// Code that shares something with its test: each call gets a clone.
pub(crate) fn with<S: Clone, C, I, F>(shared: S, code: impl Fn(S, C, I) -> F) -> impl Fn(C, I) -> F {
    move |ctx, input| code(shared.clone(), ctx, input)
}

/// Counts, and lets a test wait for the count.
#[derive(Clone)]
pub(crate) struct Tally(Arc<watch::Sender<usize>>);

impl Tally {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    /// Counts one more and gives the count.
    pub(crate) fn add(&self) -> usize {
        self.0.send_modify(|count| *count += 1);
        self.get()
    }

    pub(crate) fn get(&self) -> usize {
        *self.0.borrow()
    }

    pub(crate) async fn reach(&self, wanted: usize) {
        let mut changed = self.0.subscribe();
        soon(
            &format!("a count of {wanted} (it is {})", self.get()),
            changed.wait_for(|count| *count >= wanted),
        )
        .await
        .unwrap();
    }
}

/// Holds whoever comes to it until it is opened.
#[derive(Clone)]
pub(crate) struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }

    pub(crate) fn is_open(&self) -> bool {
        *self.0.borrow()
    }

    pub(crate) async fn pass(&self) {
        // The sender lives as long as we do.
        let _ = self.0.subscribe().wait_for(|is_open| *is_open).await;
    }
}
