//! The store: each method is one operation on the engine. The operations themselves are functions on a transaction, a file for each concern.
//!
//! | file | keeps |
//! |---|---|
//! | `records`, `stored` | records and histories; how a record is stored |
//! | `inbox` | what waits for an instance |
//! | `receipts` | what became of requests |
//! | `claims` | time limits and progress of calls |
//! | `due` | the due-set |
//! | `index` | instances by creation |
//! | `survey` | all of it, for audits |
//! | `directory` | apps, workers, run tokens |
//! | `expiry`, `trash` | what lapses; what is to be deleted bit by bit |

mod claims;
mod directory;
mod due;
mod expiry;
mod inbox;
mod index;
mod receipts;
mod records;
mod stored;
mod survey;
pub(super) mod trash;
mod watchers;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub(super) use self::watchers::Watchers;

use self::claims::CallRef;
use super::engine::Engine;
use super::kv::{Snapshot, Transaction};
use super::open::Shared;
use crate::backend::{
    App, Claim, ClaimVerdict, Clock, Commit, Committed, Create, Created, Deleted, Deliver, Delivered, DueEntry, DueKey,
    DueKind, DueOutcome, DuePage, Ending, IndexFilter, IndexPage, Loaded, Mark, Progress, Record, Result, Store, Stray,
    Survey, Watch, When, WorkerInfo,
};
use crate::model::{
    AppId, ExecutionId, InstanceRef, MessageId, Namespace, RunId, RunToken, Sequence, Timestamp, WorkerId,
};
use crate::wire::Outcome;

/// [`Store`] on an engine.
pub(super) struct LocalStore {
    shared: Arc<Shared>,
    namespace: Namespace,
    clock: Arc<dyn Clock>,
}

impl LocalStore {
    pub(super) fn new(shared: Arc<Shared>, namespace: Namespace, clock: Arc<dyn Clock>) -> Self {
        Self {
            shared,
            namespace,
            clock,
        }
    }

    fn engine(&self) -> &Engine {
        &self.shared.engine
    }

    /// Runs an operation. It is told the time when it runs, not when it was asked for: what is decided by time is decided in order.
    async fn write<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Transaction<'_>, &Namespace, Timestamp) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.write_then(operation, |_| ()).await
    }

    async fn write_then<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Transaction<'_>, &Namespace, Timestamp) -> Result<T> + Send + 'static,
        after: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T> {
        let (namespace, clock) = (self.namespace.clone(), Arc::clone(&self.clock));
        let operation = move |to: &mut Transaction<'_>| operation(to, &namespace, clock.now());
        self.engine().write(operation, after).await
    }

    fn read<T>(&self, operation: impl FnOnce(&dyn Snapshot, &Namespace, Timestamp) -> Result<T>) -> Result<T> {
        self.engine()
            .read(|from| operation(from, &self.namespace, self.clock.now()))
    }

    /// Wakes those who watch the instance, if what was done may have ended it.
    fn wake<T, E: FnOnce(&T) -> bool>(&self, instance: &InstanceRef, ended: E) -> impl FnOnce(&T) + use<T, E> {
        let watchers = Arc::clone(&self.shared.watchers);
        let (namespace, instance) = (self.namespace.clone(), instance.clone());
        move |done: &T| {
            if ended(done) {
                watchers.wake(&namespace, &instance);
            }
        }
    }
}

#[async_trait::async_trait]
impl Store for LocalStore {
    async fn create(&self, create: &Create) -> Result<Created> {
        let create = create.clone();
        let created = self
            .write(move |to, namespace, now| records::create(to, namespace, &create, now))
            .await?;
        trash::empty_soon(self.engine(), &self.namespace);
        Ok(created)
    }

    async fn record(&self, instance: &InstanceRef) -> Result<Option<Record>> {
        self.read(|from, namespace, _| records::read(from, namespace, instance))
    }

    async fn load(&self, instance: &InstanceRef, after: u64, inbox: usize) -> Result<Option<Loaded>> {
        self.read(|from, namespace, now| records::load(from, namespace, instance, after, inbox, now))
    }

    async fn inbox(&self, instance: &InstanceRef, from: usize, most: usize) -> Result<Vec<Bytes>> {
        self.read(|snapshot, namespace, now| inbox::page(snapshot, namespace, instance, now, from, most))
    }

    async fn turns(
        &self,
        instance: &InstanceRef,
        execution: ExecutionId,
        after: u64,
        count: usize,
    ) -> Result<Vec<Bytes>> {
        self.read(|from, namespace, _| {
            let state = records::state(from, namespace, instance)?;
            match state {
                Some(state) if state.execution == execution => {
                    records::turns(from, namespace, instance, execution, after, count)
                }
                _ => Ok(Vec::new()),
            }
        })
    }

    async fn commit(&self, commit: &Commit) -> Result<Committed> {
        let ends = commit.status.is_terminal();
        let wake = self.wake(&commit.instance, move |done| {
            ends && matches!(done, Committed::Applied { .. })
        });
        let leaves_trash = ends || commit.next_execution.is_some();
        let commit = commit.clone();
        let operation =
            move |to: &mut Transaction<'_>, namespace: &Namespace, now| records::commit(to, namespace, &commit, now);
        let committed = self.write_then(operation, wake).await?;
        if leaves_trash {
            trash::empty_soon(self.engine(), &self.namespace);
        }
        Ok(committed)
    }

    async fn clear_mark(&self, instance: &InstanceRef, execution: ExecutionId, mark: Mark) -> Result<Option<usize>> {
        let instance = instance.clone();
        self.write(move |to, namespace, _| records::clear_mark(to, namespace, &instance, execution, mark))
            .await
    }

    async fn clear_first_start(&self, instance: &InstanceRef, execution: ExecutionId) -> Result<Option<usize>> {
        let instance = instance.clone();
        self.write(move |to, namespace, _| records::clear_first_start(to, namespace, &instance, execution))
            .await
    }

    async fn deliver(&self, deliver: &Deliver) -> Result<Delivered> {
        let deliver = deliver.clone();
        self.write(move |to, namespace, now| records::deliver(to, namespace, &deliver, now))
            .await
    }

    async fn refuse(&self, instance: &InstanceRef, request: &MessageId, keep: Duration) -> Result<bool> {
        let (instance, request) = (instance.clone(), request.clone());
        self.write(move |to, namespace, now| receipts::refuse(to, namespace, &instance, &request, keep, now))
            .await
    }

    async fn delete(&self, instance: &InstanceRef, execution: ExecutionId, keep: Duration) -> Result<Deleted> {
        let wake = self.wake(instance, |done| *done == Deleted::Deleted);
        let instance = instance.clone();
        let operation = move |to: &mut Transaction<'_>, namespace: &Namespace, now| {
            records::delete(to, namespace, &instance, execution, keep, now)
        };
        let deleted = self.write_then(operation, wake).await?;
        trash::empty_soon(self.engine(), &self.namespace);
        Ok(deleted)
    }

    async fn ending(&self, instance: &InstanceRef) -> Result<Option<Ending>> {
        self.read(|from, namespace, _| records::ending(from, namespace, instance))
    }

    async fn past_outcome(&self, instance: &InstanceRef, run: RunId) -> Result<Option<Outcome>> {
        self.read(|from, namespace, now| records::past_outcome(from, namespace, instance, run, now))
    }

    async fn watch(&self, instance: &InstanceRef) -> Result<Box<dyn Watch>> {
        Ok(Box::new(self.shared.watchers.watch(&self.namespace, instance)))
    }

    fn listen(&self, instance: &InstanceRef) -> Option<Box<dyn Watch>> {
        Some(Box::new(self.shared.watchers.watch(&self.namespace, instance)))
    }

    async fn claim(&self, instance: &InstanceRef, execution: ExecutionId, sequence: Sequence) -> Result<Claim> {
        let instance = instance.clone();
        self.write(move |to, namespace, now| {
            claims::claim(
                to,
                CallRef {
                    namespace,
                    instance: &instance,
                    execution,
                    sequence,
                },
                now,
            )
        })
        .await
    }

    async fn settle_claim(
        &self,
        instance: &InstanceRef,
        execution: ExecutionId,
        sequence: Sequence,
    ) -> Result<ClaimVerdict> {
        let instance = instance.clone();
        self.write(move |to, namespace, now| {
            claims::settle(
                to,
                CallRef {
                    namespace,
                    instance: &instance,
                    execution,
                    sequence,
                },
                now,
            )
        })
        .await
    }

    async fn progress(
        &self,
        instance: &InstanceRef,
        execution: ExecutionId,
        sequence: Sequence,
        is_claimed: bool,
        details: Option<Bytes>,
    ) -> Result<bool> {
        let instance = instance.clone();
        self.write(move |to, namespace, now| {
            claims::progress(
                to,
                CallRef {
                    namespace,
                    instance: &instance,
                    execution,
                    sequence,
                },
                is_claimed,
                details,
                now,
            )
        })
        .await
    }

    async fn progress_of(&self, instance: &InstanceRef, most: usize) -> Result<Vec<Progress>> {
        self.read(|from, namespace, _| claims::progress_of(from, namespace, instance, most))
    }

    async fn schedule(&self, app: &AppId, entries: &[DueEntry], when: When) -> Result<()> {
        let (app, entries) = (app.clone(), entries.to_vec());
        self.write(move |to, namespace, _| due::schedule(to, namespace, &app, &entries, when))
            .await
    }

    async fn unschedule(&self, app: &AppId, keys: &[DueKey]) -> Result<bool> {
        let (app, keys) = (app.clone(), keys.to_vec());
        self.write(move |to, namespace, _| due::unschedule(to, namespace, &app, &keys))
            .await
    }

    /// Also deletes some of what has lapsed and of what was thrown away: this is called often enough, by whoever lives.
    async fn claim_due(&self, app: &AppId, most: usize, lease: Duration) -> Result<Vec<DueEntry>> {
        // Most often there is nothing to do, and finding that out costs no write.
        let something = self.read(|from, namespace, now| {
            Ok(due::is_due(from, namespace, app, now)?
                || expiry::is_due(from, namespace, now)?
                || trash::is_there(from, namespace)?)
        })?;
        if !something {
            return Ok(Vec::new());
        }
        let app = app.clone();
        self.write(move |to, namespace, now| {
            expiry::sweep(to, namespace, now)?;
            trash::empty_some(to, namespace)?;
            due::claim(to, namespace, &app, most, lease, now)
        })
        .await
    }

    async fn settle_due(&self, app: &AppId, entries: &[(DueEntry, DueOutcome)]) -> Result<()> {
        let (app, entries) = (app.clone(), entries.to_vec());
        self.write(move |to, namespace, _| due::settle(to, namespace, &app, &entries))
            .await
    }

    async fn due_entry(&self, app: &AppId, key: &DueKey) -> Result<Option<DueEntry>> {
        self.read(|from, namespace, _| due::entry(from, namespace, app, key))
    }

    async fn due_entries(&self, app: &AppId, kind: DueKind, most: usize) -> Result<Vec<DueEntry>> {
        self.read(|from, namespace, _| due::entries(from, namespace, app, kind, most))
    }

    async fn due_page(&self, app: &AppId, after: Option<&str>, most: usize) -> Result<DuePage> {
        self.read(|from, namespace, _| due::page(from, namespace, app, after, most))
    }

    async fn survey(&self, after: Option<&str>, most: usize) -> Result<Survey> {
        self.read(|from, namespace, _| survey::page(from, namespace, after, most))
    }

    async fn stray(&self, _: &Stray, _: bool) -> Result<bool> {
        // Nobody but this process writes here, and what belongs to a record goes with it.
        Ok(false)
    }

    async fn runs(&self, app: &AppId, item: &MessageId) -> Result<u32> {
        self.read(|from, namespace, now| directory::runs(from, namespace, app, item, now))
    }

    async fn begin_run(&self, app: &AppId, item: &MessageId, token: RunToken) -> Result<u32> {
        let (app, item) = (app.clone(), item.clone());
        self.write(move |to, namespace, now| directory::begin_run(to, namespace, &app, &item, token, now))
            .await
    }

    async fn end_run(&self, app: &AppId, item: &MessageId) -> Result<()> {
        let (app, item) = (app.clone(), item.clone());
        self.write(move |to, namespace, _| directory::end_run(to, namespace, &app, &item))
            .await
    }

    async fn index(&self, instance: &InstanceRef, record: &Record) -> Result<()> {
        let instance = instance.clone();
        let (created_at, noted_at) = (record.origin.created_at, record.updated_at);
        self.write(move |to, namespace, _| index::put(to, namespace, &instance, created_at, noted_at))
            .await
    }

    async fn unindex(&self, instance: &InstanceRef) -> Result<()> {
        let instance = instance.clone();
        self.write(move |to, namespace, _| index::remove(to, namespace, &instance))
            .await
    }

    async fn list(&self, filter: &IndexFilter, after: Option<&str>, most: usize) -> Result<IndexPage> {
        self.read(|from, namespace, _| index::list(from, namespace, filter, after, most))
    }

    async fn adopt_app(&self, app: &AppId, lanes: u16) -> Result<u16> {
        let app = app.clone();
        self.write(move |to, namespace, _| directory::adopt(to, namespace, &app, lanes))
            .await
    }

    async fn app(&self, app: &AppId) -> Result<Option<App>> {
        self.read(|from, namespace, _| directory::app(from, namespace, app))
    }

    async fn apps(&self) -> Result<Vec<App>> {
        self.read(|from, namespace, _| directory::apps(from, namespace))
    }

    async fn remove_app(&self, app: &AppId) -> Result<()> {
        let app = app.clone();
        self.write(move |to, namespace, _| directory::remove(to, namespace, &app))
            .await
    }

    async fn beat(&self, worker: &WorkerInfo, ttl: Duration) -> Result<()> {
        let worker = worker.clone();
        self.write(move |to, namespace, now| directory::beat(to, namespace, &worker, ttl, now))
            .await
    }

    async fn leave(&self, app: &AppId, worker: WorkerId) -> Result<()> {
        let app = app.clone();
        self.write(move |to, namespace, _| {
            directory::leave(to, namespace, &app, worker);
            Ok(())
        })
        .await
    }

    async fn workers(&self, app: &AppId) -> Result<Vec<WorkerInfo>> {
        self.read(|from, namespace, now| directory::workers(from, namespace, app, now))
    }

    async fn now(&self) -> Result<Timestamp> {
        Ok(self.clock.now())
    }

    async fn warnings(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn readiness(&self) -> std::result::Result<(), String> {
        self.engine().readiness()
    }
}
