//! A look through one dead queue after the other.

use super::DeadLetters;
use super::letter::Found;
use crate::backend::{Browse, Queue};
use crate::client::Error;
use crate::model::{AppId, Timestamp};

/// A walk through the dead queues of the apps that the filter names.
pub(super) struct Walk<'a> {
    of: &'a DeadLetters,
    now: Timestamp,
    /// Apps that are to come, the next last.
    apps: Vec<AppId>,
    current: Option<Current>,
    /// Letters that may still be taken.
    left: usize,
}

struct Current {
    app: AppId,
    browse: Box<dyn Browse>,
    /// Letters that were there when the look began: what comes after that is not waited for, or a letter that dies again would be met again.
    left: u64,
}

impl<'a> Walk<'a> {
    pub(super) async fn begin(of: &'a DeadLetters) -> Result<Self, Error> {
        of.filter.check()?;
        let client = &of.client;
        let mut apps = match &of.filter.app {
            Some(app) => vec![AppId::new(app)?],
            None => client.apps().await?.into_iter().map(|app| app.id).collect(),
        };
        apps.reverse();
        Ok(Self {
            of,
            now: client.ask("time", || client.store().now()).await?,
            apps,
            current: None,
            left: of.most,
        })
    }

    /// The next letter that matches; `None` at the end, when all that was removed is gone for good.
    pub(super) async fn next(&mut self) -> Result<Option<Found>, Error> {
        let client = &self.of.client;
        let namespace = client.engine().backend.namespace();
        loop {
            let Some(current) = &mut self.current else {
                let Some(app) = self.apps.pop().filter(|_| self.left > 0) else {
                    return Ok(None);
                };
                self.current = self.enter(app).await?;
                continue;
            };
            let found = match current.left.min(self.left as u64) {
                0 => None,
                _ => client.reach(current.browse.next()).await?,
            };
            let Some(message) = found else {
                if let Some(current) = self.current.take() {
                    client.reach(current.browse.close()).await?;
                }
                continue;
            };
            current.left -= 1;
            let found = Found::read(namespace, &current.app, message);
            if self.of.filter.matches(&found.letter, self.now) {
                self.left -= 1;
                return Ok(Some(found));
            }
        }
    }

    /// Begins to look through the app's dead queue, if there is one.
    async fn enter(&self, app: AppId) -> Result<Option<Current>, Error> {
        let client = &self.of.client;
        let (broker, queue) = (client.engine().broker(), Queue::Dead(app.clone()));
        let Some(depth) = client.ask("depth", || broker.depth(&queue)).await? else {
            return Ok(None);
        };
        Ok(Some(Current {
            app,
            browse: client.ask("browse", || broker.browse(&queue)).await?,
            left: depth.messages,
        }))
    }

    /// Takes the letter that came last out of its queue.
    pub(super) async fn remove(&mut self, found: &Found) -> Result<(), Error> {
        match &mut self.current {
            Some(current) => self.of.client.reach(current.browse.remove(found.tag)).await,
            None => Ok(()),
        }
    }
}
