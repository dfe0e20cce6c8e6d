//! The inbox: where items wait for which no code may run now.

use tracing::{debug, warn};

use super::activation::{Activation, Step};
use crate::backend::{Deliver, Delivered, Result};
use crate::engine::{NewInstance, encode};
use crate::fault::{Defect, planted};
use crate::model::{MessageId, Payload};
use crate::wire::Item;

impl Activation<'_> {
    /// Puts everything that waits into the inbox.
    pub(super) async fn all_to_inbox(&mut self) -> Result<Step> {
        while let Some(item) = self.items.front() {
            if matches!(item, Item::Start(_) | Item::Wake(_) | Item::Probe(_)) {
                self.items.pop_front();
                continue;
            }
            match self.deliver(item, false).await? {
                Delivered::ToLane(_) => return Ok(Step::Reload),
                Delivered::Kept { .. } => {}
                Delivered::Full => {
                    warn!(instance = %self.instance, kind = item.kind(), "dropped: the instance's inbox is full");
                    self.runtime.counters.dropped("inbox is full");
                }
                Delivered::Over(_) | Delivered::Absent => self.runtime.counters.dropped("instance is over"),
            }
            self.items.pop_front();
        }
        Ok(Step::Done)
    }

    /// Puts everything that waits into the inbox, whatever the state.
    pub(super) async fn all_parked(&mut self) -> Result<()> {
        while let Some(item) = self.items.front() {
            if !matches!(item, Item::Start(_) | Item::Wake(_) | Item::Probe(_)) {
                self.deliver(item, true).await?;
            }
            self.items.pop_front();
        }
        Ok(())
    }

    /// Keeps an item that is ahead of the state.
    pub(super) async fn park(&mut self, item: &Item) -> Result<()> {
        warn!(instance = %self.instance, kind = item.kind(), "kept: the item is about a call that the history does not have (yet); has the store lost its last commits?");
        self.has_parked = true;
        self.deliver(item, true).await.map(drop)
    }

    /// Puts an item into the inbox, or says where it is to go. What is parked was taken from its sender already, so it always fits.
    pub(super) async fn deliver(&self, item: &Item, park: bool) -> Result<Delivered> {
        let engine = &self.runtime.engine;
        let bound = (matches!(item, Item::Event(_)) && !park).then_some(self.runtime.settings.limits.inbox_events);
        let keep_absent = matches!(item, Item::Event(_)).then_some(self.runtime.settings.limits.dedup_window);
        let deliver = Deliver {
            instance: self.instance.clone(),
            item: encode(item),
            bound,
            park,
            keep_absent,
        };
        engine.retrying("deliver", || engine.store().deliver(&deliver)).await
    }

    /// There is no such instance (any more). Events wait for one that may come; the rest has nobody left to care.
    pub(super) async fn without_record(&mut self) -> Result<()> {
        while let Some(item) = self.items.pop_front() {
            if planted(Defect::TakerCreates)
                && let Item::Start(start) = &item
            {
                let (instance, workflow) = (start.instance.clone(), start.workflow.clone());
                let root = NewInstance::root(instance, workflow, Payload::null(), MessageId::generate());
                self.runtime.engine.begin(&root).await?;
            }
            if matches!(item, Item::Event(_)) {
                self.deliver(&item, false).await?;
            } else if !matches!(item, Item::Probe(_)) {
                debug!(instance = %self.instance, kind = item.kind(), "dropped: there is no such instance");
                self.runtime.counters.dropped("no such instance");
            }
        }
        Ok(())
    }
}
