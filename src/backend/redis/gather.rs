//! Changes of an app's own sets, its due-set and its index, go out together.
//!
//! While a few rounds of them are on their way, others gather, and go out in one call for each set. Under load that saves most of what a call costs; when
//! little is on its way a change goes out at once. Each change is idempotent, so that a call whose reply was lost is repeated by all whose changes it had.
//! Rounds overtake each other: whoever needs an order between two changes waits for the first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::due::{ScheduledEntry, schedule_in, unschedule_in};
use super::index::{Note, note};
use super::keys::{DUE_SHARDS, Keys};
use super::link::Links;
use crate::backend::{Error, Result};
use crate::model::AppId;

/// Requests that one round takes at most.
const ROUND: usize = 512;

/// Rounds that are on their way at most. A round takes as long as its slowest call; one at a time could not keep up with what a busy worker ends.
const ROUNDS: usize = 4;

/// One change, with the bytes of its member of a set.
pub(super) enum Change {
    Schedule(ScheduledEntry),
    Unschedule(Bytes),
    Note(Note),
}

struct Request {
    app: AppId,
    changes: Vec<Change>,
    answer: oneshot::Sender<Result<bool>>,
}

/// See the module.
pub(super) struct Gatherer {
    requests: mpsc::Sender<Request>,
    /// Makes the changes; ends with the store.
    _round: AbortOnDropHandle<()>,
}

impl Gatherer {
    pub(super) fn start(keys: Keys, links: Arc<Links>, tasks: &TaskTracker) -> Self {
        // Callers wait for room: what gathers is bounded.
        let (requests, received) = mpsc::channel(ROUND);
        Self {
            requests,
            _round: AbortOnDropHandle::new(tasks.spawn(make_all(keys, links, received))),
        }
    }

    /// Makes changes; returns when Redis has answered: true if all that was to be removed was there.
    ///
    /// # Errors
    /// As the store's operations. Some may have been made.
    pub(super) async fn make(&self, app: &AppId, changes: Vec<Change>) -> Result<bool> {
        if changes.is_empty() {
            return Ok(true);
        }
        let (answer, answered) = oneshot::channel();
        let request = Request {
            app: app.clone(),
            changes,
            answer,
        };
        let is_over = || Error::unknown("the store is being closed");
        self.requests.send(request).await.map_err(|_| is_over())?;
        answered.await.unwrap_or_else(|_| Err(is_over()))
    }
}

async fn make_all(keys: Keys, links: Arc<Links>, mut requests: mpsc::Receiver<Request>) {
    let mut rounds = FuturesUnordered::new();
    let mut gathered = Vec::with_capacity(ROUND);
    loop {
        tokio::select! {
            biased;
            Some(()) = rounds.next() => {}
            count = requests.recv_many(&mut gathered, ROUND), if rounds.len() < ROUNDS => {
                if count == 0 {
                    return;
                }
                let mut apps: BTreeMap<AppId, AppChanges> = BTreeMap::new();
                for request in gathered.drain(..) {
                    apps.entry(request.app.clone()).or_default().add(request);
                }
                let (keys, links) = (&keys, &links);
                rounds.push(async move {
                    join_all(apps.into_iter().map(|(app, changes)| changes.make(app, keys, links))).await;
                });
            }
        }
    }
}

const SHARDS: usize = DUE_SHARDS as usize;

/// Who waits for a round.
struct Answer {
    to: oneshot::Sender<Result<bool>>,
    /// For which shards' additions, and whether for the notes.
    added: BTreeSet<usize>,
    noted: bool,
    /// For which removals: shard, and place in it.
    removed: Vec<(usize, usize)>,
}

/// What a round changes of one app.
#[derive(Default)]
struct AppChanges {
    scheduled: [Vec<ScheduledEntry>; SHARDS],
    unscheduled: [Vec<Bytes>; SHARDS],
    notes: Vec<Note>,
    answers: Vec<Answer>,
}

impl AppChanges {
    fn add(&mut self, request: Request) {
        let mut answer = Answer {
            to: request.answer,
            added: BTreeSet::new(),
            noted: false,
            removed: Vec::new(),
        };
        for change in request.changes {
            match change {
                Change::Schedule(entry) => {
                    let shard = Keys::due_shard(&entry.member) as usize;
                    self.scheduled[shard].push(entry);
                    answer.added.insert(shard);
                }
                Change::Unschedule(member) => {
                    let shard = Keys::due_shard(&member) as usize;
                    answer.removed.push((shard, self.unscheduled[shard].len()));
                    self.unscheduled[shard].push(member);
                }
                Change::Note(note) => {
                    self.notes.push(note);
                    answer.noted = true;
                }
            }
        }
        self.answers.push(answer);
    }

    async fn make(self, app: AppId, keys: &Keys, links: &Links) {
        let shard = |shard: usize| keys.due(&app, shard as u64);
        let (scheduled, unscheduled) = (self.scheduled.iter().enumerate(), self.unscheduled.iter().enumerate());
        let (added, removed, noted) = tokio::join!(
            join_all(scheduled.map(|(at, entries)| schedule_in(links, shard(at), entries))),
            // Apart from what is added: a full Redis refuses that, and is to take this.
            join_all(unscheduled.map(|(at, members)| unschedule_in(links, shard(at), members))),
            note(links, keys, &app, &self.notes),
        );
        for answer in self.answers {
            // A set that is damaged is no matter to whoever changes another.
            let added = answer.added.iter().map(|shard| &added[*shard]);
            let mut refused = added
                .chain(answer.noted.then_some(&noted))
                .filter_map(|made| made.as_ref().err());
            let outcome = match refused.next() {
                Some(error) => Err(error.share()),
                None => answer
                    .removed
                    .iter()
                    .try_fold(true, |all, (shard, place)| match &removed[*shard] {
                        Ok(were_there) => Ok(all && were_there.get(*place).copied().unwrap_or(false)),
                        Err(error) => Err(error.share()),
                    }),
            };
            // Whoever asked may have been cancelled.
            let _ = answer.to.send(outcome);
        }
    }
}
