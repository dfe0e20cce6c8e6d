//! Starting a workflow.

use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::time::Duration;

use futures_util::future::BoxFuture;
use uuid::Uuid;

use super::wait::{EarlyWatch, settled};
use super::{Client, CommandState, Error, Run};
use crate::backend::{ConflictPolicy, Created};
use crate::engine::{NewInstance, check_key};
use crate::model::{
    AppId, ExecutionId, Failure, InstanceId, InstanceRef, MessageId, Payload, RunId, Timestamp, check_tags,
};
use crate::wire::{Command, CommandItem};

/// How often a start begins again because somebody else was quicker, before it gives up.
const ROUNDS: usize = 10;

/// What a start does when there is an instance of that ID in the app already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnConflict {
    /// Refuse while the instance is active; replace it once it is over.
    #[default]
    RejectActive,
    /// Refuse if there is an instance at all, even a finished one.
    Reject,
    /// Start nothing and give a [`Run`] of the instance that is there, active or finished. Refuse if it runs another workflow.
    UseExisting,
    /// Terminate an active instance with its children, wait until it is over, then start. Needs a worker of the app if the instance has begun.
    TerminateExisting,
}

/// A start, ready to be awaited: `client.start(CHECKOUT, order).id("order-17").await?`.
///
/// Once it is `Ok`, the instance exists (`get` and `list` show it as `Pending`) and its start is stored: it runs whenever a worker of the app is up.
///
/// # Errors
/// [`Error::InstanceAlreadyExists`] as the conflict policy says; [`Error::NotYet`] if an instance that is to be replaced does not end in time;
/// [`Error::Id`], [`Error::InvalidInput`], [`Error::Encode`] and [`Error::PayloadTooLarge`] for what was passed in; [`Error::Unavailable`] or
/// [`Error::Backend`], after which the start may have happened: start again with the same request ID and instance ID.
#[derive(Debug)]
#[must_use = "nothing is started until it is awaited"]
pub struct Start<O> {
    client: Client,
    app: String,
    workflow: String,
    input: Result<Payload, Failure>,
    id: Option<String>,
    request: Option<String>,
    policy: OnConflict,
    when: When,
    tags: BTreeMap<String, String>,
    output: PhantomData<fn() -> O>,
}

#[derive(Clone, Copy, Debug)]
enum When {
    Now,
    At(Timestamp),
    After(Duration),
}

impl<O> Start<O> {
    pub(super) fn new(client: &Client, app: &str, workflow: &str, input: Result<Payload, Failure>) -> Self {
        Self {
            client: client.clone(),
            app: app.to_owned(),
            workflow: workflow.to_owned(),
            input,
            id: None,
            request: None,
            policy: OnConflict::default(),
            when: When::Now,
            tags: BTreeMap::new(),
            output: PhantomData,
        }
    }

    /// The instance ID: 1 to 200 bytes, printable. Without it a new one is made (with a request ID: derived from that).
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// What to do if the ID is taken. Default: [`OnConflict::RejectActive`].
    pub fn policy(mut self, policy: OnConflict) -> Self {
        self.policy = policy;
        self
    }

    /// Starts it at this time, by the store's clock; a time in the past is now. Until then it is `Pending`.
    pub fn at(mut self, time: Timestamp) -> Self {
        self.when = When::At(time);
        self
    }

    /// Starts it after this long, by the store's clock.
    pub fn after(mut self, wait: Duration) -> Self {
        self.when = When::After(wait);
        self
    }

    /// Adds a label to find the instance by: at most 32, of at most 255 bytes each for key and value. A repeated key keeps the last value.
    pub fn tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.insert(key.into(), value.into());
        self
    }

    /// Starts it on another app than the contract's: staging, another region's twin.
    pub fn app_id(mut self, app: impl Into<String>) -> Self {
        self.app = app.into();
        self
    }

    /// The start counts once by this: repeated, it gives the same run again. Remembered for `Limits::dedup_window` past the instance's end. Without
    /// it a new one is made, which covers replies that are lost while the start is awaited.
    pub fn request_id(mut self, id: impl Into<String>) -> Self {
        self.request = Some(id.into());
        self
    }

    async fn send(self) -> Result<Run<O>, Error> {
        let (client, policy) = (self.client.clone(), self.policy);
        let is_request_ours_alone = self.request.is_none();
        let mut new = self.check().await?;
        let watch = client.store().listen(&new.instance);
        for _ in 0..ROUNDS {
            let occupant = match client.reach(client.engine().begin(&new)).await? {
                Created::Created(_) => {
                    return Ok(Run::new(client, new.instance, new.run, false).with_watch(EarlyWatch::new(watch)));
                }
                Created::Repeated { run, .. } => return Ok(Run::new(client, new.instance, run, false)),
                Created::Refused => {
                    // We were so slow that the check entry came due before the record was there.
                    new = again(new);
                    continue;
                }
                Created::Exists(occupant) => occupant,
            };
            if policy == OnConflict::TerminateExisting {
                // The next round replaces it.
                terminate(&client, &new.instance, occupant.run).await?;
                continue;
            }
            if is_request_ours_alone {
                forget(&client, &new).await?;
            }
            match policy {
                OnConflict::UseExisting if occupant.origin.workflow == new.workflow => {
                    return Ok(Run::new(client, new.instance, occupant.run, true));
                }
                _ => {
                    return Err(Error::InstanceAlreadyExists {
                        instance: new.instance,
                        status: occupant.status,
                        workflow: occupant.origin.workflow,
                    });
                }
            }
        }
        let message = format!(
            "instance {} was taken by others {ROUNDS} times while it was being started",
            new.instance
        );
        Err(crate::backend::Error::transient(message).into())
    }

    /// Checks what was passed in and makes the instance to be created of it.
    async fn check(self) -> Result<NewInstance, Error> {
        let app = AppId::new(&self.app)?;
        if self.workflow.is_empty() || self.workflow.len() > 255 {
            return Err(Error::InvalidInput {
                what: "the workflow's name",
                problem: format!("is {} bytes long: a name has 1 to 255", self.workflow.len()),
            });
        }
        check_tags(&self.tags).map_err(|problem| Error::InvalidInput {
            what: "the tags",
            problem,
        })?;
        let request = self.request.as_deref().map(MessageId::new).transpose()?;
        let id = match (&self.id, &request) {
            (Some(id), _) => InstanceId::chosen(id)?,
            // The repeated start has to find the same instance.
            (None, Some(request)) => InstanceId::new(derived("request-instance", request).simple().to_string())?,
            (None, None) => InstanceId::generate(),
        };
        let instance = InstanceRef::new(app, id);
        let what = || format!("the input of workflow `{}`", self.workflow);
        let input = self.input.map_err(|failure| Error::Encode {
            what: what(),
            failure: Box::new(failure),
        })?;
        self.client.check_size(&input, what)?;
        let request = request.unwrap_or_else(MessageId::generate);
        let mut new = NewInstance::root(instance, self.workflow, input, request);
        new.start_at = match self.when {
            When::Now => None,
            When::At(time) => Some(time),
            When::After(wait) => Some(self.client.ask("time", || self.client.store().now()).await? + wait),
        };
        new.tags = self.tags;
        new.policy = match self.policy {
            OnConflict::RejectActive | OnConflict::TerminateExisting => ConflictPolicy::RejectActive,
            OnConflict::Reject | OnConflict::UseExisting => ConflictPolicy::Reject,
        };
        Ok(new)
    }
}

impl<O> IntoFuture for Start<O>
where
    O: 'static,
{
    type Output = Result<Run<O>, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// The same start under another request ID. Derived from the refused one, so that whoever repeats the start with the ID that the user gave comes by
/// the same instance.
fn again(new: NewInstance) -> NewInstance {
    NewInstance {
        request: derived("start-again", &new.request).into(),
        execution: ExecutionId::generate(),
        run: RunId::generate(),
        ..new
    }
}

fn derived(kind: &str, request: &MessageId) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{kind}:{request}").as_bytes())
}

/// Removes the check entry of a start that created nothing, so that one who asks often leaves no heap of them. Only for a request ID that nobody else
/// can have used: another start with the same ID may be creating the instance just now, and would lose its check.
async fn forget(client: &Client, new: &NewInstance) -> Result<(), Error> {
    let key = check_key(&new.instance, &new.request);
    client
        .ask("unschedule", || {
            client.store().unschedule(&new.instance.app, std::slice::from_ref(&key))
        })
        .await
        .map(drop)
}

/// Terminates the run and returns when it is over. What its last turn has to say is said by whoever replaces it.
async fn terminate(client: &Client, instance: &InstanceRef, run: RunId) -> Result<(), Error> {
    let item = CommandItem {
        instance: instance.clone(),
        command: Command::Terminate {
            reason: "another start takes its place".into(),
            recursive: true,
        },
        issued_at: client.ask("time", || client.store().now()).await?,
        run: Some(run),
        parent: None,
    };
    match super::command::send(client, item).await {
        // It ended, or was replaced, a moment ago.
        Ok(CommandState::AlreadyOver(_)) | Err(Error::NotFound { .. }) => return Ok(()),
        Ok(_) => {}
        Err(error) => return Err(error),
    }
    settled(client, instance, run, client.patience(), |record| {
        record.status.is_terminal()
    })
    .await?;
    Ok(())
}
