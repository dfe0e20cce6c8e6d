//! Raising external events.

use std::future::IntoFuture;

use futures_util::future::BoxFuture;

use super::{Error, Instance};
use crate::backend::Delivered;
use crate::model::{Failure, MessageId, Payload, Status};
use crate::wire::EventItem;

/// Where an event is, now that it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raised {
    /// In the queue of the worker that holds the instance.
    Sent,
    /// In the instance's inbox, to be read when it runs again: it is `Pending`, `Suspended` or `Stalled`.
    Kept(Status),
    /// There is no such instance. The event is kept for `Limits::dedup_window` (1 h), for one that is started with this ID until then.
    KeptForLater,
}

/// An event, ready to be awaited: `instance.raise(APPROVED, approval).message_id("mail-4711").await?`.
///
/// It goes to whichever run the instance is in when it arrives. It is kept until the workflow waits for it; names are matched without case.
///
/// # Errors
/// [`Error::InstanceOver`]; [`Error::InboxFull`], and the event was not taken; [`Error::Id`], [`Error::InvalidInput`], [`Error::Encode`] and
/// [`Error::PayloadTooLarge`] for what was passed in; [`Error::Unavailable`] or [`Error::Backend`], after which it may have been taken: repeat it with
/// the same message ID.
#[derive(Debug)]
#[must_use = "nothing is raised until it is awaited"]
pub struct Raise {
    handle: Instance,
    name: String,
    payload: Result<Payload, Failure>,
    message_id: Option<String>,
}

impl Raise {
    pub(super) fn new(handle: Instance, name: &str, payload: Result<Payload, Failure>) -> Self {
        Self {
            handle,
            name: name.to_owned(),
            payload,
            message_id: None,
        }
    }

    /// The event counts once by this (per instance, while it runs). Without it a new one is made, which covers replies that are lost while the raise
    /// is awaited.
    pub fn message_id(mut self, id: impl Into<String>) -> Self {
        self.message_id = Some(id.into());
        self
    }

    async fn send(self) -> Result<Raised, Error> {
        let (client, instance) = (self.handle.client(), self.handle.instance());
        if self.name.is_empty() || self.name.len() > 255 {
            return Err(Error::InvalidInput {
                what: "the event's name",
                problem: format!("is {} bytes long: a name has 1 to 255", self.name.len()),
            });
        }
        let message_id = match &self.message_id {
            Some(id) => MessageId::new(id)?,
            None => MessageId::generate(),
        };
        let what = || format!("the payload of event `{}`", self.name);
        let payload = self.payload.map_err(|failure| Error::Encode {
            what: what(),
            failure: Box::new(failure),
        })?;
        client.check_size(&payload, what)?;
        let event = EventItem {
            instance: instance.clone(),
            name: self.name,
            payload,
            message_id,
        };
        match client.reach(client.engine().raise(event)).await? {
            Delivered::ToLane(_) => Ok(Raised::Sent),
            Delivered::Kept { status: Some(status) } => Ok(Raised::Kept(status)),
            Delivered::Kept { status: None } => Ok(Raised::KeptForLater),
            Delivered::Full => Err(Error::InboxFull {
                instance: instance.clone(),
                limit: client.limits().inbox_events,
            }),
            Delivered::Over(status) => Err(Error::InstanceOver {
                instance: instance.clone(),
                status,
            }),
            Delivered::Absent => Err(Error::NotFound {
                instance: instance.clone(),
            }),
        }
    }
}

impl IntoFuture for Raise {
    type Output = Result<Raised, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}
