//! Driving marks: making the effects that a crash may have left unmade.

use futures_util::future::join;
use tracing::{debug, warn};

use super::Engine;
use super::effects::effects_of;
use super::open::Outline;
use crate::backend::{Error, Mark, Queue, Record, Result};
use crate::fault::{Defect, fault_point, planted};
use crate::model::{InstanceRef, Status};
use crate::replay::history::Turn;
use crate::wire::{FreshRecord, Item, StartItem};

impl Engine {
    /// Makes the effects of every mark that the record has, and clears the marks. [`Mark::Run`] stays: only the next execution clears it; so does
    /// [`Mark::Start`] until the time of a delayed start. Returns
    /// true if the record has changed.
    ///
    /// Whoever is about to acknowledge or drop an item of the instance does this first.
    ///
    /// # Errors
    /// Permanent if a mark cannot be driven, which holds up no other mark; it stays.
    pub(crate) async fn drive_marks(&self, instance: &InstanceRef, record: &Record) -> Result<bool> {
        let (mut cleared, mut undriven) = (false, None);
        // Where the instance has gone on without some effects, what is over is not begun anew with them.
        let has_gone_on = record
            .marks
            .iter()
            .any(|mark| matches!(mark, Mark::Turn(version) if *version < record.version));
        let outline = match has_gone_on {
            true => match self.outline(instance, record).await {
                Err(error) if error.is_permanent() => None,
                outline => outline?,
            },
            false => None,
        };
        for mark in &record.marks {
            match self.drive_mark(instance, record, *mark, outline.as_ref()).await {
                Ok(is_cleared) => cleared |= is_cleared,
                Err(error) if error.is_permanent() => undriven = Some(error),
                Err(error) => return Err(error),
            }
        }
        if let Some(error) = undriven {
            return Err(error);
        }
        if record.status.is_terminal() && cleared {
            self.settle_end(instance, record).await?;
        }
        Ok(cleared)
    }

    /// The same for another instance than the one that the caller is about: what cannot be made of it is its own workers' to say, and holds up nobody else.
    pub(crate) async fn drive_marks_of_another(&self, instance: &InstanceRef, record: &Record) -> Result<()> {
        match self.drive_marks(instance, record).await {
            Err(error) if error.is_permanent() => {
                warn!(%instance, %error, "its effects are left to its own workers");
                Ok(())
            }
            driven => driven.map(drop),
        }
    }

    /// The same if the instance is over.
    pub(crate) async fn drive_marks_if_over(&self, instance: &InstanceRef) -> Result<()> {
        match self.retrying("record", || self.store().record(instance)).await? {
            Some(record) if record.status.is_terminal() => self.drive_marks_of_another(instance, &record).await,
            _ => Ok(()),
        }
    }

    /// Gives up the effects that are outstanding of an instance that is over, but for the answer to its parent, which its record tells.
    pub(crate) async fn give_up_marks(&self, instance: &InstanceRef, record: &Record) -> Result<()> {
        self.tell_again(instance, record).await?;
        for mark in &record.marks {
            warn!(%instance, %mark, "the effects of a turn are given up");
            self.clear_mark(instance, record.execution, *mark).await?;
        }
        Ok(())
    }

    /// True if the mark is cleared.
    async fn drive_mark(
        &self,
        instance: &InstanceRef,
        record: &Record,
        mark: Mark,
        outline: Option<&Outline>,
    ) -> Result<bool> {
        match mark {
            _ if self.confirmed.turns(instance, record.execution).contains(&mark) => {}
            Mark::Run if !record.status.is_terminal() => return Ok(false),
            // No execution comes after the end.
            Mark::Run => {}
            // A delayed start keeps its mark until its check publishes it.
            Mark::Start if self.is_early(record).await? => return Ok(false),
            Mark::Start => self.drive_start(instance, record).await?,
            Mark::Turn(_) if planted(Defect::OthersMarkIsCleared) => {}
            Mark::Turn(version) => self.drive_turn(instance, record, version, outline).await?,
        }
        fault_point("mark-driven");
        self.clear_mark(instance, record.execution, mark).await?;
        self.confirmed.forget(instance, record.execution, &[mark]);
        debug!(%instance, %mark, "mark driven");
        Ok(true)
    }

    /// True if the instance is to start later.
    pub(crate) async fn is_early(&self, record: &Record) -> Result<bool> {
        match record.origin.start_at {
            Some(at) if record.status == Status::Pending => Ok(at > self.now().await?),
            _ => Ok(false),
        }
    }

    /// Publishes the start of a `Pending` instance, and shows it in the index.
    pub(crate) async fn drive_start(&self, instance: &InstanceRef, record: &Record) -> Result<()> {
        if record.status != Status::Pending {
            return Ok(());
        }
        let item = StartItem {
            instance: instance.clone(),
            execution: record.execution,
            workflow: record.origin.workflow.clone(),
            parent: record.origin.parent.clone(),
            misses: 0,
            fresh: fresh(record),
        };
        let queue = Queue::Workflows(instance.app.clone());
        let (noted, sent) = join(
            self.retrying("index", || self.store().index(instance, record)),
            self.outbox.send(queue, Item::Start(item)),
        )
        .await;
        noted.and(sent)
    }

    async fn drive_turn(
        &self,
        instance: &InstanceRef,
        record: &Record,
        version: u64,
        outline: Option<&Outline>,
    ) -> Result<()> {
        let turns = self
            .retrying("turns", || {
                self.store().turns(instance, record.execution, version - 1, 1)
            })
            .await?;
        let turn = match turns.first() {
            Some(bytes) => Turn::decode(bytes).map_err(|problem| problem.to_string()),
            None => {
                let stored = self.retrying("record", || self.store().record(instance)).await?;
                if stored.is_none_or(|stored| stored.execution != record.execution) {
                    // Another execution by now, which it can only be when the mark was cleared.
                    return Ok(());
                }
                Err("it is marked, and missing from the history".to_owned())
            }
        };
        let turn = turn.and_then(|turn| match turn.version == version {
            true => Ok(turn),
            false => Err(format!("version {} stands in its place in the history", turn.version)),
        });
        let mut turn = turn.map_err(|problem| {
            warn!(%instance, version, %problem, "the effects of a turn cannot be made");
            Error::permanent(format!("turn {version} of {instance}: {problem}"))
        })?;
        if let Some(outline) = outline {
            turn.events
                .retain(|event| event.schedules().is_none_or(|sequence| !outline.is_over(sequence)));
        }
        let effects = effects_of(
            instance,
            record.execution,
            record.lane,
            record.origin.parent.as_ref(),
            &turn,
        );
        Box::pin(self.make(instance, record, effects)).await
    }
}

/// What a start takes along of a record that is as it was created.
fn fresh(record: &Record) -> Option<Box<FreshRecord>> {
    /// An input that is larger is not worth the way through the broker.
    const LARGEST_INPUT: usize = 16 * 1024;
    let input = record.input.as_ref().filter(|input| input.len() <= LARGEST_INPUT)?;
    // Code of a child that comes too late for its parent is not to run even for nothing.
    let is_root = record.origin.parent.is_none();
    (is_root && record.version == 0 && record.status == Status::Pending).then(|| {
        Box::new(FreshRecord {
            run: record.run,
            request: record.origin.request.clone(),
            created_at: record.origin.created_at,
            start_at: record.origin.start_at,
            tags: record.origin.tags.clone(),
            input: input.clone(),
            updated_at: record.updated_at,
        })
    })
}
