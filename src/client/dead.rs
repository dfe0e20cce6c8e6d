//! Dead letters: list, show, retry, drop.
//!
//! A letter leaves its queue only when what became of it is durable: a process that dies in the middle of anything here loses none. One that dies
//! between a retry's publish and the letter's removal leaves the letter, and a second retry sends the same message again; whoever receives it drops what
//! has been done.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::letter::Found;
use super::{Client, DeadLetter, Error, OpenedLetter};
use crate::backend::{Browse, Message, Queue};
use crate::model::{AppId, InstanceRef, Timestamp};
use crate::wire::{Item, RawStart};

/// Letters that an operation takes unless it is told otherwise.
const MOST: usize = 1000;

/// Which dead letters: all that meet every condition.
///
/// ```
/// use std::time::Duration;
/// use leveret::client::LetterFilter;
/// let crashed = LetterFilter::app("payments").kind("task").reason("died each time").older_than(Duration::from_secs(3600));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "a filter lists nothing by itself"]
pub struct LetterFilter {
    app: Option<String>,
    ids: Vec<String>,
    kind: Option<String>,
    origin: Option<String>,
    reason: Option<String>,
    older_than: Option<Duration>,
    younger_than: Option<Duration>,
}

impl LetterFilter {
    /// Letters of one app.
    pub fn app(app: impl Into<String>) -> Self {
        Self {
            app: Some(app.into()),
            ..Self::default()
        }
    }

    /// Letters of all apps that have ever registered a worker.
    pub fn all_apps() -> Self {
        Self::default()
    }

    /// Only this one, by its ID or the beginning of it; repeated: one of these.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.ids.push(id.into());
        self
    }

    /// Only of this kind; see [`DeadLetter::kind`].
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.kind = Some(kind.into());
        self
    }

    /// Only those that came from this queue: `payments.activities`.
    pub fn origin(mut self, queue: impl Into<String>) -> Self {
        self.origin = Some(queue.into());
        self
    }

    /// Only those whose reason has this text in it, in whatever case.
    pub fn reason(mut self, text: impl Into<String>) -> Self {
        self.reason = Some(text.into().to_lowercase());
        self
    }

    /// Only those that died at least this long ago. One of which that is not known is left out.
    pub fn older_than(mut self, age: Duration) -> Self {
        self.older_than = Some(age);
        self
    }

    /// Only those that died less than this long ago. One of which that is not known is left out.
    pub fn younger_than(mut self, age: Duration) -> Self {
        self.younger_than = Some(age);
        self
    }

    fn matches(&self, letter: &DeadLetter, now: Timestamp) -> bool {
        let age = letter.died_at.map(|at| now.since(at));
        let is_one_of = |ids: &[String]| ids.is_empty() || ids.iter().any(|id| letter.id.starts_with(id.as_str()));
        is_one_of(&self.ids)
            && self.kind.as_ref().is_none_or(|kind| *kind == letter.kind)
            && self.origin.as_ref().is_none_or(|origin| *origin == letter.origin)
            && self
                .reason
                .as_ref()
                .is_none_or(|text| letter.reason.to_lowercase().contains(text))
            && self.older_than.is_none_or(|limit| age.is_some_and(|age| age >= limit))
            && self.younger_than.is_none_or(|limit| age.is_some_and(|age| age < limit))
    }
}

/// What became of a letter that was to be retried.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RetriedLetter {
    /// The letter.
    pub letter: DeadLetter,
    /// What became of it.
    pub outcome: Retried,
}

/// See [`RetriedLetter`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Retried {
    /// It is in these queues again, and no letter any more. If it cannot be processed this time either, it comes back as another letter.
    Sent(Vec<String>),
    /// Nobody waits for it any more, as the text says. It is left where it is: drop it.
    Settled(String),
    /// It cannot be sent, as the text says. It is left where it is.
    Impossible(String),
}

impl fmt::Display for Retried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Retried::Sent(queues) => write!(f, "sent to {}", queues.join(" and ")),
            Retried::Settled(why) => write!(f, "settled: {why}; drop it"),
            Retried::Impossible(why) => write!(f, "not sent: {why}"),
        }
    }
}

/// The dead letters that a filter chooses, to look at or to do something with.
///
/// AMQP cannot peek: who looks takes the letters and puts them back. So two who look at the same moment each see a part; none is lost.
///
/// ```no_run
/// # async fn example(client: leveret::Client) -> Result<(), leveret::client::Error> {
/// use leveret::client::LetterFilter;
/// let crashed = client.dead_letters(LetterFilter::app("payments").kind("task"));
/// for letter in crashed.list().await? {
///     println!("{} {} {}", letter.id, letter.origin, letter.reason);
/// }
/// for retried in crashed.retry().await? {
///     println!("{} {}", retried.letter.id, retried.outcome);
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// All of its operations: [`Error::Id`] for a bad app ID; [`Error::Unavailable`] or [`Error::Backend`], after which they may be repeated.
#[derive(Clone, Debug)]
#[must_use = "nothing happens until one of its operations is awaited"]
pub struct DeadLetters {
    client: Client,
    filter: LetterFilter,
    most: usize,
}

impl DeadLetters {
    pub(super) fn new(client: Client, filter: LetterFilter) -> Self {
        Self {
            client,
            filter,
            most: MOST,
        }
    }

    /// At most so many letters, the first of each app's queue first. Default: 1,000.
    pub fn most(mut self, letters: usize) -> Self {
        self.most = letters;
        self
    }

    /// The letters, those that died first first.
    ///
    /// # Errors
    /// As for the type.
    pub async fn list(&self) -> Result<Vec<DeadLetter>, Error> {
        let mut letters = Vec::new();
        let mut walk = Walk::begin(self).await?;
        while let Some(found) = walk.next().await? {
            letters.push(found.letter);
        }
        letters.sort_by(|a, b| (a.died_at, &a.app, &a.id).cmp(&(b.died_at, &b.app, &b.id)));
        Ok(letters)
    }

    /// The letters with what is in them.
    ///
    /// # Errors
    /// As for the type.
    pub async fn open(&self) -> Result<Vec<OpenedLetter>, Error> {
        let mut letters = Vec::new();
        let mut walk = Walk::begin(self).await?;
        while let Some(found) = walk.next().await? {
            letters.push(OpenedLetter {
                settled: settled(&self.client, &found).await?,
                content: found.content(),
                letter: found.letter,
            });
        }
        Ok(letters)
    }

    /// Sends each letter to where it came from (or, if that was the wrong place, to where it belongs), confirmed, and then takes it out of the dead
    /// queue. One for which nobody waits any more is left alone, and so is one that cannot be sent.
    ///
    /// # Errors
    /// As for the type. What was sent until then is sent.
    pub async fn retry(&self) -> Result<Vec<RetriedLetter>, Error> {
        let mut retried = Vec::new();
        let mut walk = Walk::begin(self).await?;
        while let Some(found) = walk.next().await? {
            let outcome = send(&self.client, &found).await?;
            if matches!(outcome, Retried::Sent(_)) {
                // A crash before this line: the letter is still there, and its second retry is a duplicate of the first.
                walk.remove(&found).await?;
            }
            let letter = found.letter;
            retried.push(RetriedLetter { letter, outcome });
        }
        Ok(retried)
    }

    /// Takes the letters out of the dead queue for good, and gives what they were.
    ///
    /// # Errors
    /// As for the type. What was dropped until then may be gone.
    pub async fn discard(&self) -> Result<Vec<DeadLetter>, Error> {
        let mut dropped = Vec::new();
        let mut walk = Walk::begin(self).await?;
        while let Some(found) = walk.next().await? {
            walk.remove(&found).await?;
            dropped.push(found.letter);
        }
        Ok(dropped)
    }
}

/// A walk through the dead queues of the apps that the filter names.
struct Walk<'a> {
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
    async fn begin(of: &'a DeadLetters) -> Result<Self, Error> {
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
    async fn next(&mut self) -> Result<Option<Found>, Error> {
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
    async fn remove(&mut self, found: &Found) -> Result<(), Error> {
        match &mut self.current {
            Some(current) => self.of.client.reach(current.browse.remove(found.tag)).await,
            None => Ok(()),
        }
    }
}

/// Why nobody waits for what is in the letter, if that is known.
async fn settled(client: &Client, found: &Found) -> Result<Option<String>, Error> {
    if found.letter.kind == "raw start" {
        return started_already(client, found).await;
    }
    let mut reasons = Vec::new();
    for item in &found.items {
        match client.reach(client.engine().settled(item)).await? {
            Some(reason) => reasons.push(reason),
            None => return Ok(None),
        }
    }
    reasons.dedup();
    Ok((!reasons.is_empty()).then(|| reasons.join("; ")))
}

async fn started_already(client: &Client, found: &Found) -> Result<Option<String>, Error> {
    let (kind, id) = (&found.properties.content_type, &found.properties.message_id);
    let Ok((_, id, request)) = RawStart::decode(&found.body, kind.as_deref(), id.as_deref()) else {
        return Ok(None);
    };
    let instance = InstanceRef::new(found.letter.app.clone(), id);
    let record = client.record(&instance).await?;
    let ours = record.filter(|record| record.origin.request == request);
    Ok(ours.map(|record| format!("it has started {instance}, which is {}", record.status)))
}

async fn send(client: &Client, found: &Found) -> Result<Retried, Error> {
    if let Some(why) = settled(client, found).await? {
        return Ok(Retried::Settled(why));
    }
    if let Some(origin) = found.origin() {
        let message = Message {
            queue: origin.clone(),
            body: found.body.clone(),
            properties: found.former_properties(),
        };
        let broker = client.engine().broker();
        client.ask("publish", || broker.publish(message.clone())).await?;
        return Ok(Retried::Sent(vec![origin.local_name()]));
    }
    if found.items.is_empty() {
        return Ok(Retried::Impossible(format!(
            "it came from {:?}, which is no queue that it could go back to",
            found.letter.origin
        )));
    }
    // It was in the wrong place, or nobody knows in which: each of its items goes to where it belongs.
    let mut queues = Vec::new();
    for item in &found.items {
        let Some(queue) = home_of(client, item).await? else {
            continue;
        };
        client
            .reach(client.engine().outbox.send(queue.clone(), item.clone()))
            .await?;
        queues.push(queue.local_name());
    }
    queues.dedup();
    Ok(Retried::Sent(queues))
}

/// The queue that the item belongs into.
async fn home_of(client: &Client, item: &Item) -> Result<Option<Queue>, Error> {
    Ok(match item {
        Item::Start(start) => Some(Queue::Workflows(start.instance.app.clone())),
        Item::Task(task) => Some(Queue::Activities(task.app.clone())),
        item => match item.instance() {
            None => None,
            Some(instance) => {
                let record = client.record(instance).await?;
                let lane = record.and_then(|record| record.lane).unwrap_or_default();
                Some(Queue::Events(instance.app.clone(), lane))
            }
        },
    })
}
