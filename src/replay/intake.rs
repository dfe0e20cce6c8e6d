//! What an arriving item means to an execution: the one place where duplicates, strays and news are told apart.

use super::Execution;
use super::history::{HistoryEvent, TimeLimits};
use super::machine::Machine;
use super::open::Open;
use crate::model::{ExecutionId, InstanceRef, Sequence, Timestamp, kinds};
use crate::wire::{Command, CompletionItem, Item, Outcome, TaskRef};

/// What to do with an item.
#[derive(Clone, Debug, PartialEq)]
pub enum Intake {
    /// News: this event is to be applied.
    Accept(HistoryEvent),
    /// A time limit of an activity call is due: the call's claim decides what it means.
    Deadline(Sequence),
    /// A time limit of a child call is due: the child's record decides what it means.
    ChildDeadline {
        /// The call.
        sequence: Sequence,
        /// The child.
        child: InstanceRef,
        /// The limits.
        limits: TimeLimits,
        /// When it was scheduled.
        since: Timestamp,
    },
    /// It is in the history already.
    Seen,
    /// It is about a call that this state does not know yet: the state is older than the item. Reload; if it is still unknown, keep the item.
    Ahead,
    /// It is not for this execution, or does not fit what was asked for. The word is for the counter.
    Stray(&'static str),
}

impl Execution {
    /// Looks at an item without changing anything. Right only for the state as it is: before an item is dropped on the ground of its answer, the
    /// state must be known to be current.
    pub fn examine(&self, item: &Item) -> Intake {
        let machine = self.machine().lock();
        match item {
            Item::Completion(completion) => completed(&machine, completion),
            Item::Timer(timer) => match known(&machine, &timer.task) {
                Err(intake) => intake,
                Ok(Open::Timer { .. }) => Intake::Accept(HistoryEvent::TimerFired {
                    sequence: timer.task.sequence,
                }),
                Ok(Open::Activity { .. }) if timer.deadline => Intake::Deadline(timer.task.sequence),
                Ok(Open::Child {
                    instance,
                    limits,
                    since,
                    ..
                }) if timer.deadline => Intake::ChildDeadline {
                    sequence: timer.task.sequence,
                    child: instance.clone(),
                    limits: *limits,
                    since: *since,
                },
                Ok(_) => Intake::Stray("timer of a call"),
            },
            Item::Event(event) if machine.seen.contains(&event.message_id) => Intake::Seen,
            Item::Event(event) => Intake::Accept(HistoryEvent::EventRaised {
                name: event.name.clone(),
                payload: event.payload.clone(),
                message_id: event.message_id.clone(),
            }),
            Item::Command(command) => {
                let other_run = command
                    .run
                    .is_some_and(|run| machine.identity.run.is_some_and(|current| current != run));
                let parent = machine.identity.parent.as_ref().map(|parent| &parent.task);
                let other_parent = command.parent.as_ref().is_some_and(|wanted| parent != Some(wanted));
                match &command.command {
                    _ if other_run => Intake::Stray("another run"),
                    _ if other_parent => Intake::Stray("another parent's child"),
                    Command::Terminate { reason, recursive } => Intake::Accept(HistoryEvent::ExecutionTerminated {
                        reason: reason.clone(),
                        recursive: *recursive,
                        children: Vec::new(),
                    }),
                    Command::Suspend { reason } => {
                        Intake::Accept(HistoryEvent::ExecutionSuspended { reason: reason.clone() })
                    }
                    Command::Resume { reason } => {
                        Intake::Accept(HistoryEvent::ExecutionResumed { reason: reason.clone() })
                    }
                }
            }
            Item::Start(_) | Item::Task(_) | Item::Wake(_) | Item::Probe(_) => Intake::Seen,
        }
    }

    /// This execution's ID.
    pub fn id(&self) -> ExecutionId {
        self.machine().lock().identity.execution
    }
}

/// The open call or timer that is meant.
fn known<'m>(machine: &'m Machine, task: &TaskRef) -> Result<&'m Open, Intake> {
    if task.execution != machine.identity.execution {
        return Err(Intake::Stray("another execution"));
    }
    match machine.open.get(task.sequence) {
        Some(open) => Ok(open),
        None if task.sequence < machine.next_sequence => Err(Intake::Seen),
        None => Err(Intake::Ahead),
    }
}

fn completed(machine: &Machine, completion: &CompletionItem) -> Intake {
    let open = match known(machine, &completion.task) {
        Ok(open) => open,
        Err(intake) => return intake,
    };
    let sequence = completion.task.sequence;
    let outcome = completion.outcome.clone();
    match open {
        Open::Timer { .. } => Intake::Stray("completion of a timer"),
        Open::Activity {
            app,
            task_execution_id,
            retried,
            ..
        } => {
            if completion.task_execution_id != Some(*task_execution_id) {
                return Intake::Stray("another task execution ID");
            }
            let app_not_found = matches!(&outcome, Outcome::Failed(failure) if failure.kind == kinds::APP_NOT_FOUND);
            if completion.from != *app && !(app_not_found && *retried) {
                return Intake::Stray("an app that the task was not sent to");
            }
            Intake::Accept(match outcome {
                Outcome::Completed(output) => HistoryEvent::TaskCompleted { sequence, output },
                Outcome::Failed(failure) => HistoryEvent::TaskFailed { sequence, failure },
            })
        }
        Open::Child { instance, .. } => {
            // Whoever ends a child answers in its app's name. That its ID is taken, our own app's worker finds when it makes the child.
            let is_taken =
                matches!(&outcome, Outcome::Failed(failure) if failure.kind == kinds::INSTANCE_ALREADY_EXISTS);
            let is_ours = completion.from == machine.identity.instance.app;
            if completion.from != instance.app && !(is_taken && is_ours) {
                return Intake::Stray("an app that the task was not sent to");
            }
            Intake::Accept(match outcome {
                Outcome::Completed(output) => HistoryEvent::ChildCompleted { sequence, output },
                Outcome::Failed(failure) => HistoryEvent::ChildFailed {
                    sequence,
                    failure,
                    terminate: None,
                },
            })
        }
    }
}
