//! Which letters.

use std::time::Duration;

use super::DeadLetter;
use crate::client::Error;
use crate::model::Timestamp;

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
    pub(super) app: Option<String>,
    pub(super) ids: Vec<String>,
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

    /// An empty condition says nothing, or everything: whoever gives one, such as a variable that is not set, does not mean that.
    pub(super) fn check(&self) -> Result<(), Error> {
        let texts = [
            ("letter ID", self.ids.iter().any(String::is_empty)),
            ("kind", self.kind.as_deref() == Some("")),
            ("origin", self.origin.as_deref() == Some("")),
            ("reason", self.reason.as_deref() == Some("")),
        ];
        match texts.into_iter().find(|(_, is_empty)| *is_empty) {
            None => Ok(()),
            Some((what, _)) => Err(Error::InvalidInput {
                what,
                problem: "is empty: give one, or leave the condition out".into(),
            }),
        }
    }

    pub(super) fn matches(&self, letter: &DeadLetter, now: Timestamp) -> bool {
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
