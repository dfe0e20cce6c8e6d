//! Deleting finished instances. Everything here is done on the store and may be done again after a crash at any line. It needs no worker;
//! only what sweeps up after a purge soon after the end waits for one.

use std::future::IntoFuture;

use futures_util::future::BoxFuture;

use super::tree::{Node, Walk};
use super::{Client, Error, Filter, Instance};
use crate::backend::{Deleted, Record, Retryable};
use crate::fault::{Defect, planted};
use crate::model::{InstanceRef, RunId, Status};

/// How often the marks of an instance are driven before it is given up.
const ROUNDS: usize = 5;

/// A purge of one instance, ready to be awaited. Gives the number of instances that it has deleted, children included; 0 if there is none of this ID.
///
/// Unless it is [`not_recursive`](Self::not_recursive), it first looks at the whole tree. If any child is active, nothing is deleted and the error
/// names the child. Then it deletes, leaves first, so that a purge that was interrupted can be repeated. Children on other apps are deleted too;
/// detached ones are not. Children are found in the history of the *current* execution: those of executions before a continue-as-new are not, and stay
/// until their retention ends. An instance that has ended less than 30 s before leaves an entry in its app's due-set, by which a worker then sweeps
/// up what a dying one may still have noted of the end.
///
/// # Errors
/// [`Error::StillActive`] names the instance that is not over; [`Error::RunGone`] if a run was meant that is not the current one;
/// [`Error::UnreadableHistory`] if a turn that may name children cannot be read (purge without children then works); [`Error::Backend`], permanent, if
/// effects are outstanding that cannot be made (see [`give_up_effects`](Self::give_up_effects));
/// [`Error::Unavailable`] or [`Error::Backend`], after which it can be repeated.
#[derive(Debug)]
#[must_use = "nothing is purged until it is awaited"]
pub struct Purge {
    handle: Instance,
    manner: Manner,
}

#[derive(Clone, Copy, Debug)]
struct Manner {
    is_recursive: bool,
    gives_up_effects: bool,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            is_recursive: true,
            gives_up_effects: false,
        }
    }
}

/// A purge of all finished instances that match a filter, ready to be awaited. Gives the number of instances that it has deleted.
///
/// Without a status in the filter it takes all that are over. One that cannot be purged does not hold up the others.
///
/// # Errors
/// [`Error::PurgedInPart`] if some that match could not be purged, after all others were; [`Error::InvalidInput`] if the filter asks for a status that
/// is not an end; else as [`Purge`].
#[derive(Debug)]
#[must_use = "nothing is purged until it is awaited"]
pub struct PurgeMany {
    client: Client,
    filter: Filter,
    manner: Manner,
}

impl Purge {
    pub(super) fn new(handle: Instance) -> Self {
        Self {
            handle,
            manner: Manner::default(),
        }
    }

    /// Leaves the children, whatever their status.
    pub fn not_recursive(mut self) -> Self {
        self.manner.is_recursive = false;
        self
    }

    /// Purges even what has effects outstanding that cannot be made, because the turn that they are of is damaged or missing. The parent is still told the
    /// outcome; calls, events and children's ends that the turn may have had are not sent, ever. A turn that cannot be read names no children either:
    /// see [`not_recursive`](Self::not_recursive).
    pub fn give_up_effects(mut self) -> Self {
        self.manner.gives_up_effects = true;
        self
    }
}

impl PurgeMany {
    pub(super) fn new(client: Client, filter: Filter) -> Self {
        Self {
            client,
            filter,
            manner: Manner::default(),
        }
    }

    /// Leaves the children, unless they match by themselves.
    pub fn not_recursive(mut self) -> Self {
        self.manner.is_recursive = false;
        self
    }

    async fn send(self) -> Result<u64, Error> {
        let mut filter = self.filter;
        if let Some(status) = filter.statuses().iter().find(|status| !status.is_terminal()) {
            return Err(Error::InvalidInput {
                what: "the filter",
                problem: format!(
                    "asks for {status} instances: only Completed, Failed and Terminated ones can be purged"
                ),
            });
        }
        if filter.statuses().is_empty() {
            filter = Status::ALL
                .into_iter()
                .filter(|status| status.is_terminal())
                .fold(filter, Filter::status);
        }
        let (mut purged, mut refused, mut first) = (0, 0, None);
        let mut list = self.client.list(filter);
        loop {
            let page = list.clone().await?;
            for found in page.instances {
                match purge(&self.client, &found.instance, Some(found.run), self.manner).await {
                    Ok(count) => purged += count,
                    // Purged or started anew since it was listed.
                    Err(Error::RunGone { .. }) => {}
                    Err(error)
                        if matches!(error, Error::StillActive { .. }) || error.retryable() == Retryable::Permanent =>
                    {
                        refused += 1;
                        first.get_or_insert(error);
                    }
                    Err(error) => return Err(error),
                }
            }
            let Some(next) = page.next else { break };
            list = list.after(next);
        }
        match first {
            None => Ok(purged),
            Some(first) => Err(Error::PurgedInPart {
                purged,
                refused,
                first: Box::new(first),
            }),
        }
    }
}

impl IntoFuture for Purge {
    type Output = Result<u64, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let handle = &self.handle;
            purge(handle.client(), handle.instance(), handle.run(), self.manner).await
        })
    }
}

impl IntoFuture for PurgeMany {
    type Output = Result<u64, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

async fn purge(client: &Client, instance: &InstanceRef, run: Option<RunId>, manner: Manner) -> Result<u64, Error> {
    let Some(record) = client.record(instance).await? else {
        // A purge that was interrupted may have left its entry in the index.
        client.reach(client.engine().unindex(instance)).await?;
        return Ok(0);
    };
    if let Some(run) = run.filter(|run| *run != record.run) {
        return Err(Error::RunGone {
            instance: instance.clone(),
            run,
        });
    }
    let root = Node::finished(instance.clone(), &record)?;
    if manner.gives_up_effects && manner.is_recursive {
        // Before anything is given up: children that nobody can name would stay for ever.
        let mut walk = Walk::from(client, root.clone());
        while walk.next().await?.is_some() {}
    }
    if !record.marks.is_empty() && !planted(Defect::MarkedTurnIsPurged) {
        // Its last turn may have children to end.
        drive_marks(client, instance, &record, manner).await?;
    }
    if !manner.is_recursive {
        return delete(client, &root, manner).await;
    }
    let mut walk = Walk::from(client, root.clone());
    let mut size = 0;
    while walk.next().await?.is_some() {
        size += 1;
    }
    if size == 1 {
        return delete(client, &root, manner).await;
    }
    let (mut walk, mut purged) = (Walk::from(client, root.clone()), 0);
    if planted(Defect::ParentIsPurgedFirst) {
        delete(client, &root, manner).await?;
    }
    while let Some(node) = walk.next().await? {
        // A crash here: the parent is still there, and with it the way to the children that are left.
        purged += delete(client, &node, manner).await?;
    }
    Ok(purged)
}

/// Deletes one instance: its record, then what lies about it. Returns 1, or 0 if it was gone already.
async fn delete(client: &Client, node: &Node, manner: Manner) -> Result<u64, Error> {
    let (instance, store) = (&node.instance, client.store());
    let keep = client.limits().dedup_window;
    client.reach(client.engine().drive_parent(node.parent.as_ref())).await?;
    for _ in 0..ROUNDS {
        let deleted = client
            .ask("delete", || store.delete(instance, node.execution, keep))
            .await?;
        match deleted {
            Deleted::Deleted | Deleted::Absent => {
                // A crash here: an index entry without a record, which lists leave out; entries in the due-set, which remove themselves.
                let engine = client.engine();
                let tidy = engine.tidy_after_purge(instance, node.execution, &node.request, node.ended_at);
                client.reach(tidy).await?;
                return Ok(u64::from(deleted == Deleted::Deleted));
            }
            Deleted::Marked | Deleted::Active => {
                let Some(record) = client.record(instance).await? else {
                    return Ok(0);
                };
                Node::finished(instance.clone(), &record)?;
                drive_marks(client, instance, &record, manner).await?;
            }
        }
    }
    let message =
        format!("instance {instance} still has effects outstanding after {ROUNDS} tries to make them: purge it again");
    Err(crate::backend::Error::transient(message).into())
}

async fn drive_marks(client: &Client, instance: &InstanceRef, record: &Record, manner: Manner) -> Result<(), Error> {
    let engine = client.engine();
    match client.reach(engine.drive_marks(instance, record)).await {
        Err(error) if error.retryable() == Retryable::Permanent && manner.gives_up_effects => {
            client.reach(engine.give_up_marks(instance, record)).await
        }
        driven => driven.map(drop),
    }
}
