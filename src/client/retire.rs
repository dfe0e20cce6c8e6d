//! Retiring an app.

use std::future::IntoFuture;

use futures_util::future::BoxFuture;

use super::{Client, Error};
use crate::backend::{App, DueKind, IndexFilter, Queue};
use crate::model::{AppId, Status};

/// The removal of an app, ready to be awaited: its queues and its entry in the catalogue go. From then on the app is unknown, as one that never was: a call
/// to it waits, visibly, or fails with `AppNotFound` if it has a retry policy. Its instances stay where they are, and so does their history.
///
/// Refused while a worker of the app is up. Refused as well, unless [`anyway`](Self::anyway) is given, while an instance of it is active or a message waits
/// in one of its queues: nothing would move that instance, and the message would be deleted. It may be repeated.
///
/// ```no_run
/// # async fn example(client: leveret::Client) -> Result<(), leveret::client::Error> {
/// client.remove_app("fax").await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Id`] for a bad app ID; [`Error::NoSuchApp`]; [`Error::AppInUse`] says what it is in use for; [`Error::Unavailable`] or [`Error::Backend`], after
/// which it may be repeated.
#[derive(Clone, Debug)]
#[must_use = "nothing is removed until it is awaited"]
pub struct RemoveApp {
    client: Client,
    app: String,
    is_forced: bool,
}

impl RemoveApp {
    pub(super) fn new(client: Client, app: String) -> Self {
        Self {
            client,
            app,
            is_forced: false,
        }
    }

    /// Even if instances of it are active, or messages wait: calls that wait for those messages are found by an audit, and wait for the app from then on.
    pub fn anyway(mut self) -> Self {
        self.is_forced = true;
        self
    }

    async fn remove(self) -> Result<(), Error> {
        let (client, id) = (&self.client, AppId::new(&self.app)?);
        let Some(app) = client.ask("app", || client.store().app(&id)).await? else {
            return Err(Error::NoSuchApp { app: id });
        };
        let workers = client.ask("workers", || client.store().workers(&id)).await?;
        if !workers.is_empty() {
            return Err(in_use(
                id,
                format!("{} workers of it are up: stop them first", workers.len()),
            ));
        }
        if !self.is_forced {
            self.is_idle(&app).await?;
        }
        let engine = client.engine();
        client
            .ask("remove queues", || engine.broker().remove(&id, app.lanes))
            .await?;
        // A crash before this line: the app is known still, and its removal can be repeated.
        client.ask("remove app", || client.store().remove_app(&id)).await
    }

    async fn is_idle(&self, app: &App) -> Result<(), Error> {
        let client = &self.client;
        let filter = IndexFilter {
            app: app.id.clone(),
            statuses: vec![Status::Pending, Status::Running, Status::Suspended, Status::Stalled],
            created_from: None,
            created_before: None,
        };
        let mut after = None;
        loop {
            let page = client
                .ask("list", || client.store().list(&filter, after.as_deref(), 100))
                .await?;
            let active = page.instances.iter().find(|(_, record)| !record.status.is_terminal());
            if let Some((instance, record)) = active {
                let what = format!(
                    "instance {instance} is {}: end it first, or remove the app anyway",
                    record.status
                );
                return Err(in_use(app.id.clone(), what));
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let id = &app.id;
        for (kind, what) in [
            (DueKind::Lease, "activities under way"),
            (DueKind::Parked, "messages that no queue has taken"),
        ] {
            let left = client
                .ask("due entries", || client.store().due_entries(id, kind, 1))
                .await?;
            if !left.is_empty() {
                let what = format!(
                    "its due-set has {what}: start a worker of it until they are done with, or remove the app anyway"
                );
                return Err(in_use(id.clone(), what));
            }
        }
        let lanes = (0..app.lanes).map(|lane| Queue::Events(id.clone(), lane));
        let others = [
            Queue::Workflows(id.clone()),
            Queue::Activities(id.clone()),
            Queue::Dead(id.clone()),
        ];
        for queue in others.into_iter().chain(lanes) {
            let depth = client.ask("depth", || client.engine().broker().depth(&queue)).await?;
            if let Some(depth) = depth.filter(|depth| depth.messages > 0) {
                let what = format!(
                    "queue {queue} has {} messages, which would be deleted: wait until they are taken, or remove the app anyway",
                    depth.messages
                );
                return Err(in_use(id.clone(), what));
            }
        }
        Ok(())
    }
}

fn in_use(app: AppId, what: String) -> Error {
    Error::AppInUse { app, what }
}

impl IntoFuture for RemoveApp {
    type Output = Result<(), Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.remove())
    }
}
