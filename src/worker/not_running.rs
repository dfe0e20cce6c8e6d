//! Instances for which no code may run now, suspended or stalled ones: which commands they hear, and how they end.

use super::activation::{Activation, Step};
use super::state::Live;
use super::turn::Opening;
use crate::backend::{Record, Result};
use crate::model::{Status, Timestamp};
use crate::wire::{Command, Item};

impl Activation<'_> {
    /// An instance for which no code may run: `Suspended` or `Stalled`. Commands are heard, everything else waits in the inbox.
    pub(super) async fn held(&mut self, state: &mut Live) -> Result<Step> {
        let is_stalled = state.record.status == Status::Stalled;
        let mut wanted = self.items.iter().position(|item| match item {
            Item::Command(command) => match command.command {
                Command::Resume { .. } if !is_stalled => self.resumes(item, &state.record),
                Command::Terminate { .. } | Command::Resume { .. } => self.means_us(command, &state.record),
                Command::Suspend { .. } => false,
            },
            Item::Wake(_) => is_stalled,
            _ => false,
        });
        // What is dropped or used up below has to be known by its time, for what was asked for before it and comes behind it.
        let told = self
            .items
            .iter()
            .take(wanted.map_or(usize::MAX, |position| position + 1));
        let told_at = told.filter_map(|item| match item {
            Item::Command(command) => match command.command {
                Command::Suspend { .. } if !is_stalled => Some(command.issued_at),
                Command::Resume { .. } if is_stalled && self.means_us(command, &state.record) => {
                    Some(command.issued_at)
                }
                _ => None,
            },
            _ => None,
        });
        if let Some(told_at) = told_at.max().filter(|at| state.record.view.commanded_at < Some(*at)) {
            return self.note_command(&state.record, told_at).await;
        }
        if !is_stalled {
            // It is held already: what would hold it up to the resume is dropped. Kept, it would hold it once more after the resume.
            let rest = self.items.split_off(wanted.unwrap_or(self.items.len()));
            self.items.retain(
                |item| !matches!(item, Item::Command(command) if matches!(command.command, Command::Suspend { .. })),
            );
            wanted = wanted.map(|_| self.items.len());
            self.items.extend(rest);
        }
        let Some(position) = wanted else {
            if !self.is_current {
                return Ok(Step::Reload);
            }
            return self.all_to_inbox().await;
        };
        let item = self.items[position].clone();
        if let Item::Command(command) = &item
            && let Command::Terminate { reason, recursive } = &command.command
        {
            return self.terminate_held(state, reason.clone(), *recursive).await;
        }
        if is_stalled {
            if !self.is_current {
                return Ok(Step::Reload);
            }
            self.items.remove(position);
            return self.unstall(state, matches!(item, Item::Command(_))).await;
        }
        // Resume: the next turn reads the inbox.
        if let Some(refused) = self.prepare(state).await? {
            return Ok(refused);
        }
        self.items.remove(position);
        self.items.push_front(item);
        self.turn(state, Some(Opening::Resume)).await
    }

    /// Notes when the last suspend or resume was asked for, where that changes nothing else.
    async fn note_command(&self, record: &Record, at: Timestamp) -> Result<Step> {
        if self.is_current {
            let mut view = record.view.clone();
            view.commanded_at = Some(at);
            self.commit_empty(self.empty_commit(record, record.status, record.lane, view))
                .await?;
        }
        Ok(Step::Reload)
    }

    /// True for a resume that is meant for this run, and behind which no later suspend or resume has come already.
    pub(super) fn resumes(&self, item: &Item, record: &Record) -> bool {
        matches!(item, Item::Command(command) if matches!(command.command, Command::Resume { .. })
            && self.means_us(command, record)
            && record.view.commanded_at <= Some(command.issued_at))
    }

    pub(super) fn means_us(&self, command: &crate::wire::CommandItem, record: &Record) -> bool {
        let parent = record.origin.parent.as_ref().map(|parent| &parent.task);
        command.run.is_none_or(|run| run == record.run)
            && command.parent.as_ref().is_none_or(|wanted| parent == Some(wanted))
    }

    /// A command that waits for us and ends the run.
    pub(super) fn awaited_end(&self, record: &Record, inbox: &[Item]) -> Option<(String, bool)> {
        self.items.iter().chain(inbox).find_map(|item| match item {
            Item::Command(command) if self.means_us(command, record) => match &command.command {
                Command::Terminate { reason, recursive } => Some((reason.clone(), *recursive)),
                _ => None,
            },
            _ => None,
        })
    }

    /// Ends an instance whose code does not run, by its history alone.
    pub(super) async fn terminate_held(&mut self, state: &mut Live, reason: String, recursive: bool) -> Result<Step> {
        if !self.is_current || (state.turns.is_empty() && state.record.version > 0) {
            return Ok(Step::Reload);
        }
        let events = state.open_calls().terminate(reason, recursive);
        let applied = self
            .runtime
            .engine
            .commit_plain(
                self.instance,
                &state.record,
                self.runtime.now().max(state.record.updated_at),
                events,
            )
            .await?;
        if applied {
            self.runtime.counters.turns.add();
        }
        Ok(Step::Reload)
    }
}
