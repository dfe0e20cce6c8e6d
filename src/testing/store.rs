//! The store as a process reaches it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::process::State;
use super::world::{Observed, Shared};
use crate::backend::{
    App, Claim, ClaimVerdict, Commit, Committed, Create, Created, Deleted, Deliver, Delivered, DueEntry, DueKey,
    DueKind, DueOutcome, DuePage, Ending, IndexFilter, IndexPage, Loaded, Mark, Progress, Record, Result, Store, Stray,
    Survey, Watch, When, WorkerInfo,
};
use crate::model::{AppId, ExecutionId, InstanceRef, MessageId, RunId, RunToken, Sequence, Timestamp, WorkerId};
use crate::wire::Outcome;

pub(super) struct SimulatedStore {
    pub(super) world: Arc<Shared>,
    pub(super) process: Arc<State>,
}

impl SimulatedStore {
    async fn request<T>(&self, name: &'static str, operation: impl Future<Output = Result<T>>) -> Result<T> {
        self.request_of(name, None, operation).await
    }

    /// A request that may change an instance.
    async fn request_of<T>(
        &self,
        name: &'static str,
        instance: Option<&InstanceRef>,
        operation: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let operation = async {
            let result = operation.await;
            self.world.observed(&Observed::Request { name, instance });
            result
        };
        self.process.request(&self.world, operation).await
    }

    fn store(&self) -> &dyn Store {
        self.world.store()
    }
}

#[async_trait::async_trait]
impl Store for SimulatedStore {
    async fn commit(&self, commit: &Commit) -> Result<Committed> {
        let operation = async {
            let result = self.store().commit(commit).await?;
            self.world.observed(&Observed::Commit { commit, result });
            Ok(result)
        };
        self.process.request(&self.world, operation).await
    }

    async fn create(&self, create: &Create) -> Result<Created> {
        let operation = async {
            let result = self.store().create(create).await?;
            self.world.observed(&Observed::Create {
                create,
                result: &result,
            });
            Ok(result)
        };
        self.process.request(&self.world, operation).await
    }

    async fn watch(&self, instance: &InstanceRef) -> Result<Box<dyn Watch>> {
        let inner = self.request("watch", self.store().watch(instance)).await?;
        Ok(Box::new(SimulatedWatch {
            inner,
            process: self.process.clone(),
        }))
    }

    /// As of a store that hears of an instance only while somebody waits for it: so whoever waits subscribes, and looks.
    fn listen(&self, _: &InstanceRef) -> Option<Box<dyn Watch>> {
        None
    }

    fn readiness(&self) -> std::result::Result<(), String> {
        Ok(())
    }

    async fn record(&self, instance: &InstanceRef) -> Result<Option<Record>> {
        self.request("record", self.store().record(instance)).await
    }

    async fn load(&self, instance: &InstanceRef, after: u64, inbox: usize) -> Result<Option<Loaded>> {
        self.request("load", self.store().load(instance, after, inbox)).await
    }

    async fn turns(
        &self,
        instance: &InstanceRef,
        execution: ExecutionId,
        after: u64,
        count: usize,
    ) -> Result<Vec<Bytes>> {
        self.request("turns", self.store().turns(instance, execution, after, count))
            .await
    }

    async fn clear_mark(&self, instance: &InstanceRef, execution: ExecutionId, mark: Mark) -> Result<Option<usize>> {
        self.request_of(
            "clear_mark",
            Some(instance),
            self.store().clear_mark(instance, execution, mark),
        )
        .await
    }

    async fn clear_first_start(&self, instance: &InstanceRef, execution: ExecutionId) -> Result<Option<usize>> {
        self.request_of(
            "clear_mark",
            Some(instance),
            self.store().clear_first_start(instance, execution),
        )
        .await
    }

    async fn deliver(&self, deliver: &Deliver) -> Result<Delivered> {
        self.request("deliver", self.store().deliver(deliver)).await
    }

    async fn refuse(&self, instance: &InstanceRef, request: &MessageId, keep: Duration) -> Result<bool> {
        self.request("refuse", self.store().refuse(instance, request, keep))
            .await
    }

    async fn delete(&self, instance: &InstanceRef, execution: ExecutionId, keep: Duration) -> Result<Deleted> {
        self.request_of("delete", Some(instance), self.store().delete(instance, execution, keep))
            .await
    }

    async fn inbox(&self, instance: &InstanceRef, from: usize, most: usize) -> Result<Vec<Bytes>> {
        self.request("inbox", self.store().inbox(instance, from, most)).await
    }

    async fn ending(&self, instance: &InstanceRef) -> Result<Option<Ending>> {
        self.request("ending", self.store().ending(instance)).await
    }

    async fn past_outcome(&self, instance: &InstanceRef, run: RunId) -> Result<Option<Outcome>> {
        self.request("past_outcome", self.store().past_outcome(instance, run))
            .await
    }

    async fn claim(&self, instance: &InstanceRef, execution: ExecutionId, sequence: Sequence) -> Result<Claim> {
        self.request("claim", self.store().claim(instance, execution, sequence))
            .await
    }

    async fn settle_claim(
        &self,
        instance: &InstanceRef,
        execution: ExecutionId,
        sequence: Sequence,
    ) -> Result<ClaimVerdict> {
        self.request("settle_claim", self.store().settle_claim(instance, execution, sequence))
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
        self.request(
            "progress",
            self.store()
                .progress(instance, execution, sequence, is_claimed, details),
        )
        .await
    }

    async fn progress_of(&self, instance: &InstanceRef, most: usize) -> Result<Vec<Progress>> {
        self.request("progress_of", self.store().progress_of(instance, most))
            .await
    }

    async fn schedule(&self, app: &AppId, entries: &[DueEntry], when: When) -> Result<()> {
        self.request("schedule", self.store().schedule(app, entries, when))
            .await
    }

    async fn unschedule(&self, app: &AppId, keys: &[DueKey]) -> Result<bool> {
        self.request("unschedule", self.store().unschedule(app, keys)).await
    }

    async fn claim_due(&self, app: &AppId, most: usize, lease: Duration) -> Result<Vec<DueEntry>> {
        self.request("claim_due", self.store().claim_due(app, most, lease))
            .await
    }

    async fn settle_due(&self, app: &AppId, entries: &[(DueEntry, DueOutcome)]) -> Result<()> {
        self.request("settle_due", self.store().settle_due(app, entries)).await
    }

    async fn due_entry(&self, app: &AppId, key: &DueKey) -> Result<Option<DueEntry>> {
        self.request("due_entry", self.store().due_entry(app, key)).await
    }

    async fn due_entries(&self, app: &AppId, kind: DueKind, most: usize) -> Result<Vec<DueEntry>> {
        self.request("due_entries", self.store().due_entries(app, kind, most))
            .await
    }

    async fn due_page(&self, app: &AppId, after: Option<&str>, most: usize) -> Result<DuePage> {
        self.request("due_page", self.store().due_page(app, after, most)).await
    }

    async fn survey(&self, after: Option<&str>, most: usize) -> Result<Survey> {
        self.request("survey", self.store().survey(after, most)).await
    }

    async fn stray(&self, stray: &Stray, remove: bool) -> Result<bool> {
        self.request("stray", self.store().stray(stray, remove)).await
    }

    async fn runs(&self, app: &AppId, item: &MessageId) -> Result<u32> {
        self.request("runs", self.store().runs(app, item)).await
    }

    async fn begin_run(&self, app: &AppId, item: &MessageId, token: RunToken) -> Result<u32> {
        self.request("begin_run", self.store().begin_run(app, item, token))
            .await
    }

    async fn end_run(&self, app: &AppId, item: &MessageId) -> Result<()> {
        self.request("end_run", self.store().end_run(app, item)).await
    }

    async fn index(&self, instance: &InstanceRef, record: &Record) -> Result<()> {
        self.request("index", self.store().index(instance, record)).await
    }

    async fn unindex(&self, instance: &InstanceRef) -> Result<()> {
        self.request("unindex", self.store().unindex(instance)).await
    }

    async fn list(&self, filter: &IndexFilter, after: Option<&str>, most: usize) -> Result<IndexPage> {
        self.request("list", self.store().list(filter, after, most)).await
    }

    async fn adopt_app(&self, app: &AppId, lanes: u16) -> Result<u16> {
        self.request("adopt_app", self.store().adopt_app(app, lanes)).await
    }

    async fn app(&self, app: &AppId) -> Result<Option<App>> {
        self.request("app", self.store().app(app)).await
    }

    async fn apps(&self) -> Result<Vec<App>> {
        self.request("apps", self.store().apps()).await
    }

    async fn remove_app(&self, app: &AppId) -> Result<()> {
        self.request("remove_app", self.store().remove_app(app)).await
    }

    async fn beat(&self, worker: &WorkerInfo, ttl: Duration) -> Result<()> {
        self.request("beat", self.store().beat(worker, ttl)).await
    }

    async fn leave(&self, app: &AppId, worker: WorkerId) -> Result<()> {
        self.request("leave", self.store().leave(app, worker)).await
    }

    async fn workers(&self, app: &AppId) -> Result<Vec<WorkerInfo>> {
        let mut workers = self.request("workers", self.store().workers(app)).await?;
        if !workers.is_empty() && self.world.dice.happens(self.world.faults().overlooked) {
            workers.remove(self.world.dice.one_of(workers.len()));
        }
        Ok(workers)
    }

    async fn now(&self) -> Result<Timestamp> {
        self.request("now", self.store().now()).await
    }

    async fn warnings(&self) -> Result<Vec<String>> {
        self.request("warnings", self.store().warnings()).await
    }
}

struct SimulatedWatch {
    inner: Box<dyn Watch>,
    process: Arc<State>,
}

#[async_trait::async_trait]
impl Watch for SimulatedWatch {
    async fn changed(&mut self) -> Option<Ending> {
        let told = self.inner.changed().await;
        self.process.goes_on().await;
        told
    }
}
