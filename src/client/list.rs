//! Lists of instances, in pages.

use std::collections::BTreeMap;
use std::fmt;
use std::future::IntoFuture;
use std::str::FromStr;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use super::{Client, Error, InstanceSummary};
use crate::backend::{IndexFilter, Record};
use crate::model::{AppId, Status, Timestamp};

/// Instances in a page unless [`List::page_size`] says otherwise, and the most that it may say.
const PAGE: usize = 100;
const LARGEST_PAGE: usize = 1000;
/// Most index entries asked for at a time while few of them match.
const WIDEST: usize = 1000;

/// Which instances: all that meet every condition.
///
/// ```
/// use leveret::Status;
/// use leveret::client::Filter;
/// let stuck = Filter::app("orders").name("checkout").status(Status::Running).status(Status::Stalled).tag("region", "eu");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "a filter lists nothing by itself"]
pub struct Filter {
    app: Option<String>,
    name: Option<String>,
    statuses: Vec<Status>,
    created_from: Option<Timestamp>,
    created_before: Option<Timestamp>,
    tags: BTreeMap<String, String>,
}

impl Filter {
    /// Instances of one app.
    pub fn app(app: impl Into<String>) -> Self {
        Self {
            app: Some(app.into()),
            ..Self::default()
        }
    }

    /// Instances of all apps that have ever registered a worker, app by app.
    pub fn all_apps() -> Self {
        Self::default()
    }

    /// Only this status; repeated: one of these. One that has just ended, stalled or was suspended may be missing from such a list for a moment, and
    /// for longer if its worker dies then; a list of all statuses is complete.
    pub fn status(mut self, status: Status) -> Self {
        self.statuses.push(status);
        self
    }

    /// Only this workflow.
    pub fn name(mut self, workflow: impl Into<String>) -> Self {
        self.name = Some(workflow.into());
        self
    }

    /// Only those created at this time or later.
    pub fn created_from(mut self, time: Timestamp) -> Self {
        self.created_from = Some(time);
        self
    }

    /// Only those created before this time.
    pub fn created_before(mut self, time: Timestamp) -> Self {
        self.created_before = Some(time);
        self
    }

    /// Only those with this label; repeated: with all of these.
    pub fn tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.insert(key.into(), value.into());
        self
    }

    pub(super) fn statuses(&self) -> &[Status] {
        &self.statuses
    }

    fn matches(&self, record: &Record) -> bool {
        let origin = &record.origin;
        (self.statuses.is_empty() || self.statuses.contains(&record.status))
            && self.name.as_ref().is_none_or(|name| *name == origin.workflow)
            && self.created_from.is_none_or(|from| origin.created_at >= from)
            && self.created_before.is_none_or(|before| origin.created_at < before)
            && self.tags.iter().all(|(key, value)| origin.tags.get(key) == Some(value))
    }

    /// What the store's index can sort out; the rest is checked against the records.
    fn of_index(&self, app: &AppId) -> IndexFilter {
        IndexFilter {
            app: app.clone(),
            statuses: self.statuses.clone(),
            created_from: self.created_from,
            created_before: self.created_before,
        }
    }
}

/// Where a page ended; pass it on unchanged. It stays good while instances come and go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct PageToken {
    app: AppId,
    /// The store's token; `None` to begin with the app's first instance.
    after: Option<String>,
}

impl fmt::Display for PageToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.app, self.after.as_deref().unwrap_or_default())
    }
}

impl From<PageToken> for String {
    fn from(token: PageToken) -> Self {
        token.to_string()
    }
}

impl FromStr for PageToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = || Error::InvalidInput {
            what: "the page token",
            problem: format!(
                "{:?} is not one: pass the `next` of the page before, unchanged",
                text.chars().take(80).collect::<String>()
            ),
        };
        // An app ID has no slash.
        let (app, after) = text.split_once('/').ok_or_else(refuse)?;
        Ok(Self {
            app: AppId::new(app).map_err(|_| refuse())?,
            after: Some(after).filter(|after| !after.is_empty()).map(str::to_owned),
        })
    }
}

/// One page of a list.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Page {
    /// Instances in order of creation, then ID. Fewer than the page's size only at the end.
    pub instances: Vec<InstanceSummary>,
    /// Pass this to [`List::after`] for the next page; `None` at the end.
    pub next: Option<PageToken>,
}

/// A list, ready to be awaited for a page, or to be streamed.
///
/// An instance that is there throughout, and matches throughout, is listed exactly once. One whose status changes meanwhile is listed as it is when
/// its page is read.
///
/// ```no_run
/// # async fn example(client: leveret::Client) -> Result<(), leveret::client::Error> {
/// use leveret::client::Filter;
/// let mut list = client.list(Filter::app("orders")).page_size(50);
/// loop {
///     let page = list.clone().await?;
///     for instance in &page.instances {
///         println!("{} {}", instance.instance.id, instance.status);
///     }
///     let Some(next) = page.next else { break };
///     list = list.after(next);
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Id`] and [`Error::InvalidInput`] for what was passed in; [`Error::Unavailable`] or [`Error::Backend`].
#[derive(Clone, Debug)]
#[must_use = "nothing is listed until it is awaited"]
pub struct List {
    client: Client,
    filter: Filter,
    page_size: usize,
    after: Option<PageToken>,
}

impl List {
    pub(super) fn new(client: Client, filter: Filter) -> Self {
        Self {
            client,
            filter,
            page_size: PAGE,
            after: None,
        }
    }

    /// Instances in a page, 1 to 1,000. Default: 100.
    pub fn page_size(mut self, instances: usize) -> Self {
        self.page_size = instances;
        self
    }

    /// Goes on after this page.
    pub fn after(mut self, page: PageToken) -> Self {
        self.after = Some(page);
        self
    }

    /// All instances from here on, page by page as they are taken.
    pub fn stream(self) -> BoxStream<'static, Result<InstanceSummary, Error>> {
        let pages = stream::try_unfold(Some(self), |list| async move {
            let Some(list) = list else { return Ok(None) };
            let page = list.page().await?;
            let rest = page.next.map(|next| list.after(next));
            Ok::<_, Error>(Some((page.instances, rest)))
        });
        pages
            .map_ok(|instances| stream::iter(instances.into_iter().map(Ok)))
            .try_flatten()
            .boxed()
    }

    /// All instances from here on, in memory.
    ///
    /// # Errors
    /// As for a page.
    pub async fn collect(self) -> Result<Vec<InstanceSummary>, Error> {
        self.stream().try_collect().await
    }

    async fn page(&self) -> Result<Page, Error> {
        if !(1..=LARGEST_PAGE).contains(&self.page_size) {
            return Err(Error::InvalidInput {
                what: "the page size",
                problem: format!("is {}: use 1 to {LARGEST_PAGE}", self.page_size),
            });
        }
        let mut page = Page::default();
        let mut after = self.after.as_ref().and_then(|token| token.after.clone());
        for app in self.apps().await? {
            if page.instances.len() == self.page_size {
                page.next = Some(PageToken { app, after: None });
                break;
            }
            // Only the first app is entered in the middle, and only if it is the token's: it may have been removed since.
            let start = after
                .take()
                .filter(|_| self.after.as_ref().is_some_and(|token| token.app == app));
            if let Some(rest) = self.fill(&mut page, &app, start).await? {
                page.next = Some(PageToken { app, after: Some(rest) });
                break;
            }
        }
        Ok(page)
    }

    /// Adds an app's instances to the page. Returns the store's token if the page is full before the app is at its end.
    async fn fill(&self, page: &mut Page, app: &AppId, mut after: Option<String>) -> Result<Option<String>, Error> {
        let filter = self.filter.of_index(app);
        let (mut ask, mut has_overshot) = (0, false);
        loop {
            let left = self.page_size - page.instances.len();
            ask = ask.max(left);
            let fetched = self
                .client
                .ask("list", || self.client.store().list(&filter, after.as_deref(), ask))
                .await?;
            let matching = fetched.instances.iter().enumerate();
            let matching: Vec<usize> = matching
                .filter(|(_, (_, record))| self.filter.matches(record))
                .map(|(position, _)| position)
                .collect();
            if matching.len() > left {
                // The store's token stands at the end of what it gave: fetch again, up to the last one that fits. As many as fit cannot be too many.
                ask = if has_overshot { left } else { matching[left - 1] + 1 };
                has_overshot = true;
                continue;
            }
            has_overshot = false;
            // Few match: look at more at a time.
            ask = if matching.len() * 2 < ask {
                (ask * 2).min(WIDEST)
            } else {
                0
            };
            let found = fetched
                .instances
                .into_iter()
                .filter(|(_, record)| self.filter.matches(record));
            page.instances
                .extend(found.map(|(instance, record)| InstanceSummary::of(instance, &record)));
            after = fetched.next;
            if after.is_none() || page.instances.len() == self.page_size {
                return Ok(after);
            }
        }
    }

    /// The apps that are left to list, in order.
    async fn apps(&self) -> Result<Vec<AppId>, Error> {
        let Some(only) = &self.filter.app else {
            let apps = self.client.apps().await?.into_iter().map(|app| app.id);
            let first = self.after.as_ref().map(|token| &token.app);
            return Ok(apps.filter(|app| first.is_none_or(|first| app >= first)).collect());
        };
        let only = AppId::new(only)?;
        if let Some(token) = self.after.as_ref().filter(|token| token.app != only) {
            return Err(Error::InvalidInput {
                what: "the page token",
                problem: format!(
                    "is of app {} and the filter of app {only}: use it with its own list",
                    token.app
                ),
            });
        }
        Ok(vec![only])
    }
}

impl IntoFuture for List {
    type Output = Result<Page, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.page().await })
    }
}
