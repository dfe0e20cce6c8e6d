//! The store itself: what its parts do, under the trait's names.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use deadpool_redis::redis::cmd;
use tokio_util::task::TaskTracker;

use super::config::RedisConfig;
use super::ended::Ended;
use super::gather::Gatherer;
use super::keys::Keys;
use super::link::Links;
use super::reply::Reply;
use crate::backend::{
    App, Claim, ClaimVerdict, Commit, Committed, Create, Created, Deleted, Deliver, Delivered, DueEntry, DueKey,
    DueKind, DueOutcome, DuePage, Ending, IndexFilter, IndexPage, Loaded, Mark, Progress, Record, Result, Store, Stray,
    Survey, Watch, When, WorkerInfo,
};
use crate::model::{AppId, ExecutionId, InstanceRef, MessageId, RunId, RunToken, Sequence, Timestamp, WorkerId};
use crate::wire::Outcome;

/// As whole milliseconds, rounded up, and at least 1: Redis knows no shorter time to live.
pub(super) fn millis(duration: Duration) -> u64 {
    let millis = duration.as_nanos().div_ceil(1_000_000).clamp(1, 1 << 50);
    millis as u64
}

/// State in Redis, for one namespace. See the module's documentation.
pub struct RedisStore {
    pub(super) keys: Keys,
    pub(super) links: Arc<Links>,
    /// Makes changes of the apps' own sets.
    pub(super) gatherer: Gatherer,
    /// Who waits for instances to end.
    ended: Ended,
    /// Where the next claim of due entries begins, so that no shard always comes first.
    pub(super) first_shard: AtomicU64,
}

impl std::fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RedisStore({})", self.links.address())
    }
}

impl RedisStore {
    /// Connects, once. From then on the store heals itself: while Redis is away, its operations fail as transient (or as unknown, those that were under
    /// way), and when it is back they work again.
    ///
    /// # Errors
    /// Transient if Redis cannot be reached or does not answer in time; permanent if it refuses the credentials, naming which, or if the URL is not one.
    pub async fn connect(config: RedisConfig) -> Result<Arc<Self>> {
        // Each task ends with what it serves, and all of that with the store.
        let tasks = TaskTracker::new();
        let links = Arc::new(Links::connect(&config, &tasks).await?);
        let ended = Ended::start(&config, &tasks)?;
        let keys = Keys::new(config.namespace);
        Ok(Arc::new(Self {
            gatherer: Gatherer::start(keys.clone(), links.clone(), &tasks),
            keys,
            links,
            ended,
            first_shard: AtomicU64::new(0),
        }))
    }

    /// Host, port and database, for people: no password.
    pub fn address(&self) -> &str {
        self.links.address()
    }

    async fn info(&self, section: &str) -> Result<String> {
        Reply::new("INFO", self.links.send("INFO", cmd("INFO").arg(section)).await?).text()
    }
}

#[async_trait::async_trait]
impl Store for RedisStore {
    async fn create(&self, create: &Create) -> Result<Created> {
        self.create_instance(create).await
    }

    async fn record(&self, instance: &InstanceRef) -> Result<Option<Record>> {
        self.read_record(instance).await
    }

    async fn load(&self, instance: &InstanceRef, after: u64, inbox: usize) -> Result<Option<Loaded>> {
        self.load_instance(instance, after, inbox).await
    }

    async fn inbox(&self, instance: &InstanceRef, from: usize, most: usize) -> Result<Vec<Bytes>> {
        self.read_inbox(instance, from, most).await
    }

    async fn turns(
        &self,
        instance: &InstanceRef,
        execution: ExecutionId,
        after: u64,
        count: usize,
    ) -> Result<Vec<Bytes>> {
        self.read_turns(instance, execution, after, count).await
    }

    async fn commit(&self, commit: &Commit) -> Result<Committed> {
        self.commit_turn(commit).await
    }

    async fn clear_mark(&self, instance: &InstanceRef, execution: ExecutionId, mark: Mark) -> Result<Option<usize>> {
        self.remove_mark(instance, execution, mark).await
    }

    async fn clear_first_start(&self, instance: &InstanceRef, execution: ExecutionId) -> Result<Option<usize>> {
        self.remove_first_start(instance, execution).await
    }

    async fn deliver(&self, deliver: &Deliver) -> Result<Delivered> {
        self.deliver_item(deliver).await
    }

    async fn refuse(&self, instance: &InstanceRef, request: &MessageId, keep: Duration) -> Result<bool> {
        self.refuse_request(instance, request, keep).await
    }

    async fn delete(&self, instance: &InstanceRef, execution: ExecutionId, keep: Duration) -> Result<Deleted> {
        self.delete_instance(instance, execution, keep).await
    }

    async fn ending(&self, instance: &InstanceRef) -> Result<Option<Ending>> {
        self.read_ending(instance).await
    }

    async fn past_outcome(&self, instance: &InstanceRef, run: RunId) -> Result<Option<Outcome>> {
        self.read_past_outcome(instance, run).await
    }

    async fn watch(&self, instance: &InstanceRef) -> Result<Box<dyn Watch>> {
        let watcher = self.ended.watch(self.keys.channel(instance), instance.id.as_str());
        Ok(Box::new(watcher.await?))
    }

    fn listen(&self, instance: &InstanceRef) -> Option<Box<dyn Watch>> {
        let watcher = self.ended.listen(self.keys.channel(instance), instance.id.as_str())?;
        Some(Box::new(watcher))
    }

    async fn claim(&self, instance: &InstanceRef, execution: ExecutionId, sequence: Sequence) -> Result<Claim> {
        self.take_claim(instance, execution, sequence).await
    }

    async fn settle_claim(
        &self,
        instance: &InstanceRef,
        execution: ExecutionId,
        sequence: Sequence,
    ) -> Result<ClaimVerdict> {
        self.decide_claim(instance, execution, sequence).await
    }

    async fn progress(
        &self,
        instance: &InstanceRef,
        execution: ExecutionId,
        sequence: Sequence,
        is_claimed: bool,
        details: Option<Bytes>,
    ) -> Result<bool> {
        self.store_progress(instance, execution, sequence, is_claimed, details)
            .await
    }

    async fn progress_of(&self, instance: &InstanceRef, most: usize) -> Result<Vec<Progress>> {
        self.read_progress(instance, most).await
    }

    async fn schedule(&self, app: &AppId, entries: &[DueEntry], when: When) -> Result<()> {
        self.schedule_entries(app, entries, when).await
    }

    async fn unschedule(&self, app: &AppId, keys: &[DueKey]) -> Result<bool> {
        self.unschedule_entries(app, keys).await
    }

    async fn claim_due(&self, app: &AppId, most: usize, lease: Duration) -> Result<Vec<DueEntry>> {
        self.claim_entries(app, most, lease).await
    }

    async fn settle_due(&self, app: &AppId, entries: &[(DueEntry, DueOutcome)]) -> Result<()> {
        self.settle_entries(app, entries).await
    }

    async fn due_entry(&self, app: &AppId, key: &DueKey) -> Result<Option<DueEntry>> {
        self.read_due_entry(app, key).await
    }

    async fn due_entries(&self, app: &AppId, kind: DueKind, most: usize) -> Result<Vec<DueEntry>> {
        self.read_due_entries(app, kind, most).await
    }

    async fn due_page(&self, app: &AppId, after: Option<&str>, most: usize) -> Result<DuePage> {
        self.read_due_page(app, after, most).await
    }

    async fn survey(&self, after: Option<&str>, most: usize) -> Result<Survey> {
        self.read_survey(after, most).await
    }

    async fn stray(&self, stray: &Stray, remove: bool) -> Result<bool> {
        self.look_at_stray(stray, remove).await
    }

    async fn runs(&self, app: &AppId, item: &MessageId) -> Result<u32> {
        self.tokens(app, item).await
    }

    async fn begin_run(&self, app: &AppId, item: &MessageId, token: RunToken) -> Result<u32> {
        self.add_token(app, item, token).await
    }

    async fn end_run(&self, app: &AppId, item: &MessageId) -> Result<()> {
        self.remove_tokens(app, item).await
    }

    async fn index(&self, instance: &InstanceRef, record: &Record) -> Result<()> {
        self.note_instance(instance, record).await
    }

    async fn unindex(&self, instance: &InstanceRef) -> Result<()> {
        self.forget_instance(instance).await
    }

    async fn list(&self, filter: &IndexFilter, after: Option<&str>, most: usize) -> Result<IndexPage> {
        self.list_instances(filter, after, most).await
    }

    async fn adopt_app(&self, app: &AppId, lanes: u16) -> Result<u16> {
        self.register_app(app, lanes).await
    }

    async fn app(&self, app: &AppId) -> Result<Option<App>> {
        self.read_app(app).await
    }

    async fn apps(&self) -> Result<Vec<App>> {
        self.read_apps().await
    }

    async fn remove_app(&self, app: &AppId) -> Result<()> {
        self.forget_app(app).await
    }

    async fn beat(&self, worker: &WorkerInfo, ttl: Duration) -> Result<()> {
        self.note_beat(worker, ttl).await
    }

    async fn leave(&self, app: &AppId, worker: WorkerId) -> Result<()> {
        self.remove_worker(app, worker).await
    }

    async fn workers(&self, app: &AppId) -> Result<Vec<WorkerInfo>> {
        self.read_workers(app).await
    }

    async fn now(&self) -> Result<Timestamp> {
        Reply::new("TIME", self.links.send("TIME", &cmd("TIME")).await?).time()
    }

    async fn warnings(&self) -> Result<Vec<String>> {
        // INFO and not CONFIG, which hosted servers often forbid.
        let (persistence, memory) = (self.info("persistence").await?, self.info("memory").await?);
        let mut warnings = Vec::new();
        if field(&persistence, "aof_enabled") == Some("0") {
            warnings.push(
                "Redis keeps no append-only file: a restart or a crash loses every workflow since its last snapshot. Set `appendonly yes`"
                    .to_owned(),
            );
        }
        match field(&memory, "maxmemory_policy") {
            None | Some("noeviction") => {}
            Some(policy) => warnings.push(format!(
                "Redis has `maxmemory-policy {policy}`: when its memory is full it throws workflows away, unnoticed. Set `maxmemory-policy noeviction`"
            )),
        }
        Ok(warnings)
    }

    fn readiness(&self) -> std::result::Result<(), String> {
        self.links.readiness()
    }
}

/// A field of what INFO says: lines of `name:value`.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = info.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(field, _)| *field == name).map(|(_, value)| value.trim())
}
