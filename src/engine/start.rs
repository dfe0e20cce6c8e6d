//! Creating an instance: check entry, record, publish; the mark is cleared by the first turn. Clients, parents' workers and the takers of raw starts all do this.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Engine;
use super::due::check_entry;
use crate::backend::{ConflictPolicy, Create, Created, Mark, Origin, Record, Result, When};
use crate::fault::fault_point;
use crate::model::{ExecutionId, InstanceRef, MessageId, Payload, RunId, Timestamp};
use crate::wire::{ParentLink, TaskRef};

/// A start's first check comes this long after it was asked for.
pub(crate) const FIRST_CHECK: Duration = Duration::from_secs(5);

/// An instance to be created.
#[derive(Clone, Debug)]
pub(crate) struct NewInstance {
    pub(crate) instance: InstanceRef,
    pub(crate) workflow: String,
    pub(crate) input: Payload,
    pub(crate) execution: ExecutionId,
    pub(crate) run: RunId,
    pub(crate) request: MessageId,
    pub(crate) parent: Option<ParentLink>,
    pub(crate) start_at: Option<Timestamp>,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) policy: ConflictPolicy,
}

/// The request ID of a child's start: its parent's call.
pub(crate) fn child_request(task: &TaskRef) -> MessageId {
    task.message_id("child")
}

impl NewInstance {
    /// A root instance.
    pub(crate) fn root(instance: InstanceRef, workflow: String, input: Payload, request: MessageId) -> Self {
        Self {
            instance,
            workflow,
            input,
            execution: ExecutionId::generate(),
            run: RunId::generate(),
            request,
            parent: None,
            start_at: None,
            tags: BTreeMap::new(),
            policy: ConflictPolicy::default(),
        }
    }

    /// A child. Its execution and run IDs are derived from its parent's call, so that whoever makes the effect makes the same child.
    pub(crate) fn child(instance: InstanceRef, workflow: String, input: Payload, link: ParentLink) -> Self {
        let task = &link.task;
        Self {
            execution: task.execution.derive("child-execution", task.sequence).into(),
            run: task.execution.derive("child-run", task.sequence).into(),
            request: child_request(task),
            parent: Some(link),
            ..Self::root(instance, workflow, input, MessageId::generate())
        }
    }
}

impl Engine {
    /// Creates the instance and publishes its start. An occupant that is over but still has marks is driven first, so that it can be replaced.
    pub(crate) async fn begin(&self, new: &NewInstance) -> Result<Created> {
        loop {
            let create = self.check(new).await?;
            // A crash here leaves a check without a record: it refuses the request and removes itself.
            fault_point("start-checked");
            let created = self.retrying("create", || self.store().create(&create)).await?;
            // From here on the record is there and marked: a crash costs at most the wait for its check.
            fault_point("start-created");
            match &created {
                Created::Exists(occupant)
                    if occupant.status.is_terminal()
                        && !occupant.marks.is_empty()
                        && new.policy == ConflictPolicy::RejectActive =>
                {
                    match Box::pin(self.drive_marks(&new.instance, occupant)).await {
                        // It cannot be replaced; to a parent that is as good as an ID that is taken. A client is told why.
                        Err(error) if error.is_permanent() && new.parent.is_some() => return Ok(created),
                        driven => driven?,
                    };
                    continue;
                }
                Created::Created(at) => self.publish_start(&new.instance, &create.record(*at)).await?,
                // Whoever asked first may have died before it published.
                Created::Repeated { execution, .. } if !self.confirmed.has_started(&new.instance, *execution) => {
                    let stored = self.retrying("record", || self.store().record(&new.instance)).await?;
                    if let Some(record) = stored.filter(|record| record.execution == *execution) {
                        self.publish_start(&new.instance, &record).await?;
                    }
                }
                Created::Repeated { .. } | Created::Exists(_) | Created::Refused => {}
            }
            return Ok(created);
        }
    }

    /// Writes the check entry: only then the record may be created.
    async fn check(&self, new: &NewInstance) -> Result<Create> {
        let now = match new.start_at {
            Some(_) => self.now().await?,
            None => self.about_now().await?,
        };
        let due = match new.start_at {
            Some(at) if at > now => at,
            _ => now + FIRST_CHECK,
        };
        let parent = new.parent.as_ref().map(|link| &link.task);
        let check = check_entry(&new.instance, &new.request, parent, due);
        self.retrying("schedule", || {
            self.store()
                .schedule(&new.instance.app, std::slice::from_ref(&check), When::Sooner)
        })
        .await?;
        Ok(Create {
            instance: new.instance.clone(),
            execution: new.execution,
            run: new.run,
            origin: Origin {
                workflow: new.workflow.clone(),
                parent: new.parent.clone(),
                created_at: now,
                start_at: new.start_at,
                tags: new.tags.clone(),
                request: new.request.clone(),
            },
            input: new.input.clone(),
            policy: new.policy,
            keep: self.limits.dedup_window,
        })
    }

    async fn publish_start(&self, instance: &InstanceRef, record: &Record) -> Result<()> {
        if !record.marks.contains(&Mark::Start) {
            return Ok(());
        }
        if self.is_early(record).await? {
            self.retrying("index", || self.store().index(instance, record)).await?;
            // Its check publishes it when the time has come.
            return Ok(());
        }
        self.drive_start(instance, record).await?;
        fault_point("start-published");
        if record.version > 0 {
            return Box::pin(self.clear_mark(instance, record.execution, Mark::Start))
                .await
                .map(drop);
        }
        self.has_confirmed(instance, record.execution, Mark::Start, None).await
    }
}
