//! An instance as a worker holds it: its record, and its code as far as it has run.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::backend::{Create, Loaded, Origin, Record};
use crate::fault::{Defect, planted};
use crate::model::{InstanceRef, Limits, MessageId, Payload, Sequence, Timestamp};
use crate::replay::history::{CarriedEvent, ChildRef, HistoryEvent, Turn};
use crate::replay::{Code, Execution, Stuck};
use crate::wire::{Item, StartItem};

/// See the module.
pub(super) struct Live {
    pub(super) record: Record,
    /// The code's state, once it was needed.
    pub(super) execution: Option<Execution>,
    /// The stored turns, until the code has replayed them.
    pub(super) turns: Vec<Turn>,
    /// What the inbox held when the state was read; given to the first turn that runs.
    pub(super) inbox: Vec<Item>,
    /// The execution has ended by continue-as-new, and the next has not begun.
    pub(super) renewal: Option<Renewal>,
}

/// What the next execution begins with.
#[derive(Clone, Debug)]
pub(super) struct Renewal {
    pub(super) input: Payload,
    pub(super) carried: Vec<CarriedEvent>,
    pub(super) seen: Vec<(MessageId, Timestamp)>,
}

impl Renewal {
    pub(super) fn from_event(event: &HistoryEvent) -> Option<Self> {
        match event {
            HistoryEvent::ContinuedAsNew { input, carried, seen } => Some(Self {
                input: input.clone(),
                carried: carried.clone(),
                seen: seen.clone(),
            }),
            _ => None,
        }
    }
}

impl Live {
    /// From what the store holds; `more` are the turns after those of the first page.
    ///
    /// # Errors
    /// The text says what cannot be read.
    pub(super) fn read(loaded: &Loaded, more: &[bytes::Bytes]) -> Result<Self, String> {
        let is_newer =
            |problem: &str| format!("{problem}; was it written by a later release? Upgrade the app's workers");
        let turns = loaded
            .turns
            .iter()
            .chain(more)
            .map(|bytes| Turn::decode(bytes).map_err(|problem| is_newer(&problem.to_string())))
            .collect::<Result<Vec<_>, _>>()?;
        let (found, version) = (turns.len() as u64, loaded.record.version);
        if found < version {
            return Err(format!(
                "the store holds {found} turns of a history of {version}; were keys deleted, or is it a stale copy? Restore them, or terminate the instance"
            ));
        }
        if let Some((place, turn)) = (1..).zip(&turns).find(|(place, turn)| turn.version != *place) {
            return Err(format!(
                "version {} stands in place {place} of the history; were turns deleted? Restore them, or terminate the instance",
                turn.version
            ));
        }
        let inbox = loaded
            .inbox
            .iter()
            .map(|bytes| {
                rmp_serde::from_slice(bytes)
                    .map_err(|error| is_newer(&format!("an item in the inbox cannot be read: {error}")))
            })
            .collect::<Result<_, _>>()?;
        // A turn without events (a stall, a move to another lane) may stand after it.
        let renewal = turns
            .iter()
            .rev()
            .find_map(|turn| turn.events.last())
            .and_then(Renewal::from_event)
            .filter(|_| !planted(Defect::NextExecutionIsForgotten));
        Ok(Self {
            record: loaded.record.clone(),
            execution: None,
            turns,
            inbox,
            renewal,
        })
    }

    /// As a start says that it was created. It may have changed since: the commit of the first turn finds out.
    pub(super) fn fresh(start: &StartItem) -> Option<Self> {
        let fresh = start.fresh.as_deref()?;
        let create = Create {
            instance: start.instance.clone(),
            execution: start.execution,
            run: fresh.run,
            origin: Origin {
                workflow: start.workflow.clone(),
                parent: start.parent.clone(),
                created_at: fresh.created_at,
                start_at: fresh.start_at,
                tags: fresh.tags.clone(),
                request: fresh.request.clone(),
            },
            input: fresh.input.clone(),
            policy: Default::default(),
            keep: Default::default(),
        };
        Some(Self {
            record: create.record(fresh.updated_at),
            execution: None,
            turns: Vec::new(),
            inbox: Vec::new(),
            renewal: None,
        })
    }

    /// Runs the code through the stored turns, if that has not happened yet.
    ///
    /// # Errors
    /// [`Stuck`] if the code does not fit the history.
    pub(super) fn replay(&mut self, instance: &InstanceRef, code: Arc<dyn Code>, limits: &Limits) -> Result<(), Stuck> {
        if self.execution.is_some() {
            return Ok(());
        }
        let mut execution = Execution::new(instance.clone(), self.record.execution, code, limits);
        for turn in &self.turns {
            execution.replay(turn)?;
        }
        self.turns = Vec::new();
        self.execution = Some(execution);
        Ok(())
    }

    /// Rough size in memory, in bytes.
    pub(super) fn weight(&self) -> usize {
        /// Of one that waits for an event, with an input of 100 bytes: all that it takes (`--workload sleepers` of the bench of throughput) but what is
        /// counted below.
        const REST: usize = 2560;
        REST + self.execution.as_ref().map_or(0, Execution::weight)
    }

    /// What is open at the end of the stored turns, read off the events alone: for ending an instance whose code cannot run.
    pub(super) fn open_calls(&self) -> OpenCalls {
        OpenCalls::of(&self.turns)
    }
}

/// See [`Live::open_calls`].
#[derive(Default)]
pub(super) struct OpenCalls {
    children: BTreeMap<Sequence, ChildRef>,
    due: BTreeMap<Sequence, ()>,
}

impl OpenCalls {
    pub(super) fn of<T: std::borrow::Borrow<Turn>>(turns: impl IntoIterator<Item = T>) -> Self {
        let mut open = Self::default();
        for turn in turns {
            turn.borrow().events.iter().for_each(|event| open.apply(event));
        }
        open
    }

    fn apply(&mut self, event: &HistoryEvent) {
        match event {
            HistoryEvent::TaskScheduled { sequence, limits, .. } if !limits.is_empty() => {
                self.due.insert(*sequence, ());
            }
            HistoryEvent::ChildScheduled {
                sequence,
                instance,
                limits,
                detached,
                ..
            } => {
                if !detached {
                    self.children.insert(
                        *sequence,
                        ChildRef {
                            instance: instance.clone(),
                            sequence: *sequence,
                        },
                    );
                }
                if !limits.is_empty() {
                    self.due.insert(*sequence, ());
                }
            }
            HistoryEvent::TimerCreated { sequence, .. } => {
                self.due.insert(*sequence, ());
            }
            HistoryEvent::TaskCompleted { sequence, .. }
            | HistoryEvent::TaskFailed { sequence, .. }
            | HistoryEvent::ChildCompleted { sequence, .. }
            | HistoryEvent::ChildFailed { sequence, .. }
            | HistoryEvent::TimerFired { sequence }
            | HistoryEvent::TimerCancelled { sequence } => {
                self.children.remove(sequence);
                self.due.remove(sequence);
            }
            _ => {}
        }
    }

    /// The events that end the execution.
    pub(super) fn terminate(self, reason: String, recursive: bool) -> Vec<HistoryEvent> {
        let children = if recursive {
            self.children.into_values().collect()
        } else {
            Vec::new()
        };
        let mut events = vec![HistoryEvent::ExecutionTerminated {
            reason,
            recursive,
            children,
        }];
        events.extend(
            self.due
                .into_keys()
                .map(|sequence| HistoryEvent::TimerCancelled { sequence }),
        );
        events
    }
}
