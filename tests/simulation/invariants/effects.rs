//! What has to hold of effects: I2. What is acknowledged has had its effect, and ends reach children.

use leveret::backend::{DueKind, Mark, Message, Queue, Record};
use leveret::testing::World;
use leveret::wire::{Bundle, Command, CompletionItem, Item, Outcome, TaskItem, TaskRef};
use leveret::{AppId, ExecutionId, Failure, InstanceRef, MessageId, Payload, Status};

use super::{State, at_once};
use crate::plan::APPS;

impl State {
    /// I2: the end of a parent has reached its child, however late that came to be.
    pub(super) fn is_reached(
        &self,
        world: &World,
        parent: &InstanceRef,
        execution: ExecutionId,
        child: &InstanceRef,
    ) -> Result<(), String> {
        let store = world.servers().store();
        let is_its = |record: &Record| {
            let link = record.origin.parent.as_ref();
            link.is_some_and(|link| link.task.instance == *parent && link.task.execution == execution)
        };
        let record = at_once(store.record(child)).filter(is_its);
        let is_active = record.is_some_and(|record| !record.status.is_terminal());
        if !is_active || self.told_to_end.contains(child) {
            return Ok(());
        }
        let inbox = at_once(store.load(child, 0, usize::MAX)).map_or_else(Vec::new, |loaded| loaded.inbox);
        let is_kept = inbox
            .iter()
            .any(|kept| rmp_serde::from_slice(kept).is_ok_and(|item| is_terminate(&item)));
        // In the due-set, where it waits for a queue that takes nothing: of that we know no more than the name.
        let name = child.id.as_str().as_bytes();
        let parked = at_once(store.due_entries(&parent.app, DueKind::Parked, usize::MAX));
        let is_parked = parked
            .iter()
            .any(|entry| entry.payload.windows(name.len()).any(|part| part == name));
        if is_kept || is_parked {
            return Ok(());
        }
        Err(format!("I2: {parent} was terminated, and its child {child} goes on"))
    }

    /// I2: what is acknowledged has had its effect.
    pub(super) fn is_dealt_with(&self, world: &World, item: &Item) -> Result<(), String> {
        let store = world.servers().store();
        let live = |instance: &InstanceRef, execution: Option<ExecutionId>| {
            let record = at_once(store.record(instance))?;
            let is_meant = execution.is_none_or(|execution| execution == record.execution);
            (is_meant && !record.status.is_terminal()).then_some(record)
        };
        let is_kept = |instance: &InstanceRef| {
            let inbox = at_once(store.load(instance, 0, usize::MAX)).map_or_else(Vec::new, |loaded| loaded.inbox);
            inbox
                .iter()
                .any(|kept| rmp_serde::from_slice::<Item>(kept).is_ok_and(|kept| kept == *item))
        };
        let is_settled = |task: &TaskRef| self.settled.contains(&(task.execution, task.sequence));
        match item {
            Item::Completion(completion) => {
                let task = &completion.task;
                let sent_to = self.scheduled.get(&(task.execution, task.sequence));
                if sent_to.is_some_and(|app| *app != completion.from) {
                    // Nobody's result.
                    return Ok(());
                }
                // An app that is there after all is called again.
                let is_missing = matches!(&completion.outcome, Outcome::Failed(failure) if failure.is("AppNotFound"));
                if let Some(record) = live(&task.instance, Some(task.execution))
                    && !is_missing
                    && !is_settled(task)
                    && !is_kept(&task.instance)
                {
                    return Err(format!(
                        "I2: the result of call {} of {} was acknowledged and is lost: {completion:?}; {} at version {}",
                        task.sequence, task.instance, record.status, record.version
                    ));
                }
            }
            Item::Event(event) => {
                if let Some(record) = live(&event.instance, None)
                    // One that was sent to an earlier run may be dropped with it.
                    && self.sent_to.get(&event.message_id).is_some_and(|runs| runs.iter().all(|run| *run == Some(record.run)))
                    && !self.raised.contains(&(record.run, event.message_id.clone()))
                    && !is_kept(&event.instance)
                {
                    return Err(format!(
                        "I2: event {} for {} was acknowledged and is lost",
                        event.message_id, event.instance
                    ));
                }
            }
            Item::Start(start) => {
                // One that comes while its instance is suspended is of no use: whoever resumes it publishes another.
                let is_resumed = |record: &Record| {
                    let last_sent = self.starts.get(&start.execution);
                    record.version > 0 && (record.marks.contains(&Mark::Start) || last_sent == Some(&record.version))
                };
                if let Some(record) = live(&start.instance, Some(start.execution))
                    && record.status == Status::Pending
                    && !is_resumed(&record)
                {
                    return Err(format!(
                        "I2: the start of {} was acknowledged and it is pending",
                        start.instance
                    ));
                }
            }
            Item::Command(command) if is_terminate(item) => {
                let is_meant = |record: &Record| {
                    command.run.is_none_or(|run| run == record.run)
                        && command.parent.as_ref().is_none_or(|call| record.is_child_of(call))
                };
                if let Some(record) = live(&command.instance, None).filter(is_meant)
                    && !is_kept(&command.instance)
                {
                    return Err(format!(
                        "I2: a terminate for {} was acknowledged and is lost: it is {}",
                        command.instance, record.status
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// A parent that was terminated, and has had every effect of that, starts no child any more.
pub(super) fn is_wanted(world: &World, child: &InstanceRef, call: &TaskRef) -> Result<(), String> {
    match at_once(world.servers().store().record(&call.instance)) {
        Some(parent)
            if parent.execution == call.execution && parent.status == Status::Terminated && parent.marks.is_empty() =>
        {
            Err(format!(
                "{child} was created, and its parent {} is terminated",
                call.instance
            ))
        }
        _ => Ok(()),
    }
}

pub(super) fn is_terminate(item: &Item) -> bool {
    matches!(item, Item::Command(command) if matches!(command.command, Command::Terminate { .. }))
}

/// Now and then an app that was not asked answers a task, with all that the task says of itself, or says that the task's app is not there. That only
/// counts for a call with a policy, which the model knows.
pub(super) fn forge(world: &World, task: &TaskItem, denies_apps: bool) {
    let forger = APPS.iter().find(|app| **app != task.app.as_str());
    let outcome = match task.scheduled_at.as_millis() % 15 {
        0 | 5 => Outcome::Completed(Payload::encode(&FORGED).expect("a number")),
        10 if denies_apps => Outcome::Failed(Failure::new("AppNotFound", "somebody says so")),
        _ => return,
    };
    let item = CompletionItem {
        task: task.caller.clone(),
        task_execution_id: Some(task.task_execution_id),
        from: AppId::new(forger.expect("there are several")).expect("an app of ours"),
        outcome,
        progressed: false,
        ran: None,
    };
    let queue = Queue::Events(task.caller.instance.app.clone(), task.reply_to);
    let body = Bundle::new(vec![Item::Completion(item)]).encode();
    at_once(
        world
            .servers()
            .broker()
            .publish(Message::bundle(queue, body, &MessageId::generate())),
    );
}

/// A result that no activity comes to.
const FORGED: u64 = u64::MAX;
