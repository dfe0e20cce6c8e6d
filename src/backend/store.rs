//! The store: records, histories and inboxes of instances, and per app the due-set, the index and the workers.
//!
//! Every method on one instance is atomic and touches that instance alone; every method may be repeated after a lost reply. [`record`] and
//! [`operation`] hold the instance's side, [`due`] the due-set, [`directory`] index and workers.

mod directory;
mod due;
mod operation;
mod record;
mod survey;

pub use directory::{App, Holding, IndexFilter, IndexPage, WorkerInfo};
pub use due::{DueEntry, DueKey, DueKind, DueOutcome, When};
pub use operation::{
    Claim, ClaimTerms, ClaimVerdict, Commit, Committed, ConflictPolicy, Create, Created, Deleted, Deliver, Delivered,
    Ending, Loaded, Progress,
};
pub use record::{Guard, Mark, Origin, Record, Stall, View};

pub use survey::{DuePage, Stray, Survey};

use std::time::Duration;

use bytes::Bytes;

use super::Result;
use crate::model::{AppId, ExecutionId, InstanceRef, MessageId, RunId, RunToken, Sequence, Timestamp, WorkerId};
use crate::wire::Outcome;

/// Wakes whoever waits for an instance to end.
#[async_trait::async_trait]
pub trait Watch: Send {
    /// Returns when the instance may have ended, or when the subscription was interrupted so that something may have been missed. A store may tell
    /// along with it what a run of the instance has come to, outcome included; else (`None`) the caller reads the record, and spurious returns are
    /// allowed. Cancel-safe.
    async fn changed(&mut self) -> Option<Ending>;
}

/// State that survives. All methods are idempotent: repeating one after a lost reply has no further effect and answers the same (or says plainly
/// that things have moved on).
///
/// # Errors
/// All methods fail alike, and [`Error::retryable`](super::Error::retryable) tells what to do. Transient: the store cannot be reached, and nothing has
/// happened. Unknown: no answer came, and it may have taken effect; repeat it. Permanent: it refuses, because of what it was given or of what it holds
/// and cannot read.
#[async_trait::async_trait]
pub trait Store: Send + Sync {
    // --- one instance

    /// Creates a `Pending` record with mark [`Mark::Start`], or says why not. Receipts are looked at first: a request that has created an execution
    /// answers `Repeated`, one that was refused answers `Refused`. Replaces a terminal, unmarked record if the policy allows, keeping its outcome
    /// under its run ID for at least 60 s. An inbox that was kept for an absent instance stays; what a replaced run left unread goes with it.
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn create(&self, create: &Create) -> Result<Created>;

    /// The record alone.
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn record(&self, instance: &InstanceRef) -> Result<Option<Record>>;

    /// Record, the turns of the current execution after version `after`, and the inbox (at most `inbox` items), as of one moment. At most
    /// [`Loaded::TURNS`] turns: page on with [`Store::turns`].
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn load(&self, instance: &InstanceRef, after: u64, inbox: usize) -> Result<Option<Loaded>>;

    /// Up to `most` items of the inbox, from this place on (0 is the first), so that a large one can be looked at bit by bit. What is taken out of it
    /// meanwhile moves the rest: an item may be passed over.
    async fn inbox(&self, instance: &InstanceRef, from: usize, most: usize) -> Result<Vec<Bytes>>;

    /// Up to `count` turns after version `after` of the execution; empty if the instance is now in another execution.
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn turns(
        &self,
        instance: &InstanceRef,
        execution: ExecutionId,
        after: u64,
        count: usize,
    ) -> Result<Vec<Bytes>>;

    /// Appends a turn, if the guard holds (I1). The same commit sent again answers `Applied`.
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn commit(&self, commit: &Commit) -> Result<Committed>;

    /// Removes a mark, if the execution is the current one. Returns the number of marks left; `None` if there is no record (any more).
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn clear_mark(&self, instance: &InstanceRef, execution: ExecutionId, mark: Mark) -> Result<Option<usize>>;

    /// Removes [`Mark::Start`] of a record that no commit has changed since it was created. (One that is resumed before its first turn gets the mark once
    /// more, for another start.) Returns as [`clear_mark`](Self::clear_mark) does.
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn clear_first_start(&self, instance: &InstanceRef, execution: ExecutionId) -> Result<Option<usize>>;

    /// Puts an item into the inbox, or says to which lane it is to be sent. See [`Deliver`].
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn deliver(&self, deliver: &Deliver) -> Result<Delivered>;

    /// Leaves a receipt that refuses a later [`Store::create`] with this request ID (or parent key), unless the request has created an execution.
    /// Returns true if the request is refused from now on. Kept for `keep`.
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn refuse(&self, instance: &InstanceRef, request: &MessageId, keep: Duration) -> Result<bool>;

    /// Deletes a terminal, unmarked record and all that belongs to it; receipts stay for `keep`, and so does the outcome under its run ID (at least 60 s).
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn delete(&self, instance: &InstanceRef, execution: ExecutionId, keep: Duration) -> Result<Deleted>;

    /// What the instance's current run has come to so far; `None` if there is no record. Less to read than a whole [`record`](Self::record).
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn ending(&self, instance: &InstanceRef) -> Result<Option<Ending>>;

    /// The outcome of a run that has been replaced or deleted, while it is still kept.
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn past_outcome(&self, instance: &InstanceRef, run: RunId) -> Result<Option<Outcome>>;

    /// Wakes when the instance may have ended.
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn watch(&self, instance: &InstanceRef) -> Result<Box<dyn Watch>>;

    /// The same, if it costs nothing because the store hears of such ends already. One that is made before an instance is created misses nothing, so
    /// that its record need not be read first.
    fn listen(&self, instance: &InstanceRef) -> Option<Box<dyn Watch>>;

    // --- claims: time limits of activity calls, in the caller's record

    /// Takes the open claim of a call before its body starts; taking it again starts its time anew. `Closed`: do not run the body.
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn claim(&self, instance: &InstanceRef, execution: ExecutionId, sequence: Sequence) -> Result<Claim>;

    /// Decides a claim whose deadline is due, once: a verdict, once given, closes the claim and is given again to whoever asks.
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn settle_claim(
        &self,
        instance: &InstanceRef,
        execution: ExecutionId,
        sequence: Sequence,
    ) -> Result<ClaimVerdict>;

    /// Stores an attempt's progress and renews its heartbeat; without details it leaves those that are there. Calls without time limits, which have no
    /// claim, report too. False if nobody wants the attempt any more: the execution is over, or its claim has a verdict, or `is_claimed` and its
    /// claim is gone with the call.
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn progress(
        &self,
        instance: &InstanceRef,
        execution: ExecutionId,
        sequence: Sequence,
        is_claimed: bool,
        details: Option<Bytes>,
    ) -> Result<bool>;

    /// The latest progress of the execution's running attempts, by sequence number: at most `most`.
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn progress_of(&self, instance: &InstanceRef, most: usize) -> Result<Vec<Progress>>;

    // --- the due-set of an app

    /// Adds or re-times entries.
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn schedule(&self, app: &AppId, entries: &[DueEntry], when: When) -> Result<()>;

    /// Removes entries, whatever their time. True if all of them were there; false if one was not, or if it was asked for before and the answer was lost.
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn unschedule(&self, app: &AppId, keys: &[DueKey]) -> Result<bool>;

    /// Claims up to `most` entries that are due by the store's clock: moves their time ahead by `lease` and returns them as they now stand.
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn claim_due(&self, app: &AppId, most: usize, lease: Duration) -> Result<Vec<DueEntry>>;

    /// Removes or re-times claimed entries, each only if its time is still the one that [`Store::claim_due`] gave it.
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn settle_due(&self, app: &AppId, entries: &[(DueEntry, DueOutcome)]) -> Result<()>;

    /// One entry, if it is there.
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn due_entry(&self, app: &AppId, key: &DueKey) -> Result<Option<DueEntry>>;

    /// Entries of a kind in order of their time, from the start: at most `most`. For people and audits.
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn due_entries(&self, app: &AppId, kind: DueKind, most: usize) -> Result<Vec<DueEntry>>;

    /// A page of about `most` entries of all kinds, so that all of them can be looked at bit by bit. `after` is the `next` of the page before.
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn due_page(&self, app: &AppId, after: Option<&str>, most: usize) -> Result<DuePage>;

    // --- audits

    /// A page of what the store holds of instances, of all apps, found without index and due-set: it looks at about `most` keys. `after` is the `next`
    /// of the page before.
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn survey(&self, after: Option<&str>, most: usize) -> Result<Survey>;

    /// True if this is still stored although its instance has no record; then, with `remove`, removes it.
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn stray(&self, stray: &Stray, remove: bool) -> Result<bool>;

    // --- run tokens: crash counts of redelivered activity tasks

    /// How many run tokens the item has.
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn runs(&self, app: &AppId, item: &MessageId) -> Result<u32>;

    /// Adds a run token for the item, unless it is there already, and returns how many there are. Tokens lapse after a day.
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn begin_run(&self, app: &AppId, item: &MessageId, token: RunToken) -> Result<u32>;

    /// Takes the item's tokens away: its body has ended, or it was handed back.
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn end_run(&self, app: &AppId, item: &MessageId) -> Result<()>;

    // --- index

    /// Notes that the instance exists and what its status is, as read from its record. A hint: readers check it against the record. A record that was
    /// read earlier ([`Record::updated_at`]) does not undo a later one's note. A note that comes after its instance is gone stays until the next
    /// [`list`](Self::list) that comes upon it, at most.
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn index(&self, instance: &InstanceRef, record: &Record) -> Result<()>;

    /// Forgets the instance.
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn unindex(&self, instance: &InstanceRef) -> Result<()>;

    /// A page of at most `most` instances in order of creation, then ID (its bytes). With a filter of statuses, those may be missing whose present status
    /// is not noted yet.
    ///
    /// # Errors
    /// Permanent for a token that is not one of [`IndexPage::next`]; else as [`Store`] says.
    async fn list(&self, filter: &IndexFilter, after: Option<&str>, most: usize) -> Result<IndexPage>;

    // --- apps and workers

    /// Registers the app, fixing its number of lanes at the first call; returns the number that holds.
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn adopt_app(&self, app: &AppId, lanes: u16) -> Result<u16>;

    /// The app, if any worker of it ever registered.
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn app(&self, app: &AppId) -> Result<Option<App>>;

    /// All apps.
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn apps(&self) -> Result<Vec<App>>;

    /// Forgets the app, its workers and its due-set's empty shell (instances are not touched).
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn remove_app(&self, app: &AppId) -> Result<()>;

    /// Notes that the worker lives; it counts as live for `ttl`.
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn beat(&self, worker: &WorkerInfo, ttl: Duration) -> Result<()>;

    /// The worker has gone, on purpose.
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn leave(&self, app: &AppId, worker: WorkerId) -> Result<()>;

    /// The app's live workers, in order of their IDs.
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn workers(&self, app: &AppId) -> Result<Vec<WorkerInfo>>;

    // --- the store itself

    /// The store's time, by which due times and claims go.
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn now(&self) -> Result<Timestamp>;

    /// Looks at the store's settings: what puts data at risk, a line each for a person. Empty is good.
    ///
    /// # Errors
    /// As [`Store`] says.
    async fn warnings(&self) -> Result<Vec<String>>;

    /// `Ok` while the store can be used; else why not.
    ///
    /// # Errors
    /// The reason: one line for a person, without a final period, that names the server and never a password.
    fn readiness(&self) -> std::result::Result<(), String>;
}
