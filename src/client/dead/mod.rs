//! Dead letters: list, show, retry, drop.
//!
//! A letter leaves its queue only when what became of it is durable: a process that dies in the middle of anything here loses none. One that dies
//! between a retry's publish and the letter's removal leaves the letter, and a second retry sends the same message again; whoever receives it drops what
//! has been done.

mod filter;
mod letter;
mod retry;
mod walk;

use std::collections::{BTreeMap, BTreeSet};

use super::{Client, Error};
use crate::backend::Retryable;

pub use filter::LetterFilter;
pub use letter::{DeadLetter, LetterContent, OpenedLetter};
pub use retry::{Retried, RetriedLetter};
use retry::{send, settled};
use walk::Walk;

/// Letters that an operation takes unless it is told otherwise.
const MOST: usize = 1000;

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
/// All of its operations: [`Error::Id`] for a bad app ID; [`Error::InvalidInput`] for an empty condition; [`Error::Unavailable`] or [`Error::Backend`], after which they may be repeated.
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
        self.open_each(|letter| letters.push(letter)).await?;
        Ok(letters)
    }

    /// The same, one after the other: many large letters are never all in memory.
    ///
    /// # Errors
    /// As for the type.
    pub async fn open_each(&self, mut look: impl FnMut(OpenedLetter)) -> Result<(), Error> {
        let mut walk = Walk::begin(self).await?;
        while let Some(found) = walk.next().await? {
            look(OpenedLetter {
                settled: match settled(&self.client, &found).await {
                    // Whom it is about cannot be read: that is no reason to show nothing.
                    Err(error) if error.retryable() == Retryable::Permanent => None,
                    settled => settled?,
                },
                content: found.content(),
                letter: found.letter,
            });
        }
        Ok(())
    }

    /// Sends each letter to where it came from (or, if that was the wrong place, to where it belongs), confirmed, and then takes it out of the dead
    /// queue. One for which nobody waits any more is left alone, and so is one that cannot be sent.
    ///
    /// # Errors
    /// As for the type. What was sent until then is sent. Nothing is, if an ID does not name just one letter: [`Error::NoSuchLetter`],
    /// [`Error::InvalidInput`].
    pub async fn retry(&self) -> Result<Vec<RetriedLetter>, Error> {
        let mut retried = Vec::new();
        let chosen = self.named().await?;
        let mut walk = Walk::begin(&chosen).await?;
        while let Some(found) = walk.next().await? {
            let outcome = match send(&self.client, &found).await {
                Err(error) if error.retryable() == Retryable::Permanent => Retried::Impossible(error.to_string()),
                outcome => outcome?,
            };
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
    /// As for the type. What was dropped until then may be gone. Nothing is, if an ID does not name just one letter: [`Error::NoSuchLetter`],
    /// [`Error::InvalidInput`].
    pub async fn discard(&self) -> Result<Vec<DeadLetter>, Error> {
        let mut dropped = Vec::new();
        let chosen = self.named().await?;
        let mut walk = Walk::begin(&chosen).await?;
        while let Some(found) = walk.next().await? {
            walk.remove(&found).await?;
            dropped.push(found.letter);
        }
        Ok(dropped)
    }

    /// The same with whole IDs, for what changes something: each of the filter's has to name one letter.
    async fn named(&self) -> Result<Self, Error> {
        let mut named = self.clone();
        if self.filter.ids.is_empty() {
            return Ok(named);
        }
        let mut found: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        let all = self.clone().most(usize::MAX);
        let mut walk = Walk::begin(&all).await?;
        while let Some(letter) = walk.next().await? {
            let id = letter.letter.id;
            for beginning in self
                .filter
                .ids
                .iter()
                .filter(|beginning| id.starts_with(beginning.as_str()))
            {
                let ids = found.entry(beginning).or_default();
                // Two are too many; which they are is for a person to see.
                if ids.len() < 2 {
                    ids.insert(id.clone());
                }
            }
        }
        let unknown = self
            .filter
            .ids
            .iter()
            .find(|beginning| !found.contains_key(beginning.as_str()));
        if let Some(id) = unknown {
            return Err(Error::NoSuchLetter { id: id.clone() });
        }
        if let Some((beginning, ids)) = found.iter().find(|(_, ids)| ids.len() > 1) {
            let some: Vec<_> = ids.iter().map(String::as_str).collect();
            return Err(Error::InvalidInput {
                what: "letter ID",
                problem: format!(
                    "{beginning:?} is not enough: {} begin with it, and perhaps more; nothing was done",
                    some.join(" and ")
                ),
            });
        }
        named.filter.ids = found.into_values().flatten().collect();
        Ok(named)
    }
}
