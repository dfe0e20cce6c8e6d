//! The auditor: walks a live namespace, proves that nothing in it is forgotten (I4), and gets going again what nothing would move.
//!
//! It is safe beside running workers. All that it reports it has seen at least twice, some time apart, because what is just being made or removed is no
//! fault. All that it repairs is asked of the store again right before, and may be done any number of times: a task that is sent again has the same
//! task execution ID, and its result counts once.
//!
//! | file | owns |
//! |---|---|
//! | `suspect` | what may be missing |
//! | `look` | what of an instance is not where it ought to be |
//! | `passage` | what is certainly not in a queue |
//! | `instances` | from the one by the other to findings |
//! | `leftovers` | what is stored and concerns nobody; missing queues |
//! | `repair` | what is done about each |
//! | `report` | what is said |

mod instances;
mod leftovers;
mod look;
mod passage;
mod repair;
mod report;
mod suspect;

pub use report::{AuditReport, Finding, Repair, Trouble, Undecided};

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::future::IntoFuture;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::{Client, Error};
use crate::backend::Retryable;
use crate::model::{AppId, InstanceRef, Timestamp};

/// Keys and entries that are looked at between two pauses.
const PAGE: usize = 200;
/// What is gathered before it is looked at again.
const BATCH: usize = 1000;
/// Between two looks at the same thing.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// An audit, ready to be awaited.
///
/// ```no_run
/// # async fn example(client: leveret::Client) -> Result<(), leveret::client::Error> {
/// let report = client.audit().repair().await?;
/// for finding in &report.findings {
///     println!("{} {:?} {}: {}", finding.trouble, finding.instance, finding.reason, finding.repair);
/// }
/// println!("{} stuck", report.stuck().len());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Id`] for a bad app ID; [`Error::Unavailable`] or [`Error::Backend`], after which it may be repeated. What was repaired until then is.
#[derive(Clone, Debug)]
#[must_use = "nothing is audited until it is awaited"]
pub struct Audit {
    client: Client,
    app: Option<String>,
    is_repairing: bool,
    grace: Duration,
    pace: Duration,
    patience: Duration,
}

impl Audit {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            app: None,
            is_repairing: false,
            grace: Duration::from_secs(30),
            pace: Duration::from_millis(20),
            patience: Duration::from_secs(30),
        }
    }

    /// Only instances of this app, and what is left over of it. Default: of all apps.
    pub fn app(mut self, app: impl Into<String>) -> Self {
        self.app = Some(app.into());
        self
    }

    /// Repairs what it finds.
    pub fn repair(mut self) -> Self {
        self.is_repairing = true;
        self
    }

    /// Leaves alone what was scheduled less than this long ago. Default: 30 s.
    pub fn grace(mut self, age: Duration) -> Self {
        self.grace = age;
        self
    }

    /// How long it pauses after each page of 200 keys, so that the store has room for others. Default: 20 ms.
    pub fn pace(mut self, pause: Duration) -> Self {
        self.pace = pause;
        self
    }

    /// How long it waits for a marker to come out of a queue before it leaves open what may be in it. Default: 30 s.
    pub fn patience(mut self, longest: Duration) -> Self {
        self.patience = longest;
        self
    }

    async fn run(self) -> Result<AuditReport, Error> {
        let app = self.app.as_deref().map(AppId::new).transpose()?;
        let client = self.client.clone();
        client.ask("time", || client.engine().look_at_clock()).await?;
        let mut auditor = Auditor {
            report: AuditReport {
                namespace: client.engine().backend.namespace().clone(),
                at: client.engine().reckoned_now(),
                instances: BTreeMap::new(),
                stuck_instances: BTreeMap::new(),
                findings: Vec::new(),
                more: 0,
                undecided: Vec::new(),
            },
            all_apps: client.apps().await?.into_iter().map(|app| app.id).collect(),
            stuck: HashSet::new(),
            unread: BTreeSet::new(),
            client,
            app,
            settings: self,
        };
        auditor.queues().await?;
        auditor.instances().await?;
        auditor.due_sets().await?;
        auditor.report.at = auditor.now();
        Ok(auditor.report)
    }
}

/// True for what one thing alone is to blame for, and no server: the others are audited all the same.
fn is_permanent(error: &Error) -> bool {
    error.retryable() == Retryable::Permanent
}

impl IntoFuture for Audit {
    type Output = Result<AuditReport, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// An audit under way.
struct Auditor {
    client: Client,
    settings: Audit,
    /// The one app that is audited, if not all are.
    app: Option<AppId>,
    /// All apps, audited or not.
    all_apps: Vec<AppId>,
    /// Instances that are stuck, at most as many as findings.
    stuck: HashSet<InstanceRef>,
    /// Instances that could not be read, at most as many as findings.
    unread: BTreeSet<InstanceRef>,
    report: AuditReport,
}

impl Auditor {
    /// Now, by the store's clock.
    fn now(&self) -> Timestamp {
        self.client.engine().reckoned_now()
    }

    fn is_audited(&self, app: &AppId) -> bool {
        self.app.as_ref().is_none_or(|only| only == app)
    }

    /// The apps that are audited.
    async fn apps(&self) -> Result<Vec<crate::backend::App>, Error> {
        let apps = self.client.apps().await?;
        Ok(apps.into_iter().filter(|app| self.is_audited(&app.id)).collect())
    }

    async fn pause(&self) {
        self.client.clock().sleep(self.settings.pace).await;
    }

    /// Some time before the second look.
    async fn wait_for_second_look(&self) {
        self.client.clock().sleep(SECOND_LOOK).await;
    }

    /// Notes what is wrong, and what came of its repair, if that is asked for. What the report has no room for is counted, and not repaired either.
    async fn found(
        &mut self,
        mut finding: Finding,
        repair: impl Future<Output = Result<Repair, Error>>,
    ) -> Result<(), Error> {
        let is_stuck = finding.trouble.is_stuck();
        let same = self
            .report
            .findings
            .iter()
            .filter(|other| other.trouble.is_stuck() == is_stuck);
        let has_room = same.count() < AuditReport::MOST / 2;
        if has_room && self.settings.is_repairing {
            finding.repair = match repair.await {
                Err(error) if is_permanent(&error) => Repair::Impossible(error.to_string()),
                repair => repair?,
            };
        }
        if let Some(instance) = finding
            .instance
            .as_ref()
            .filter(|_| is_stuck && !finding.repair.is_mended())
            && !self.stuck.contains(instance)
        {
            *self.report.stuck_instances.entry(instance.app.clone()).or_default() += 1;
            if self.stuck.len() < AuditReport::MOST {
                self.stuck.insert(instance.clone());
            }
        }
        match has_room {
            true => self.report.findings.push(finding),
            false => self.report.more += 1,
        }
        Ok(())
    }

    /// Notes an instance that could not be looked at.
    fn unread(&mut self, instance: &InstanceRef, reason: String) {
        if !self.is_audited(&instance.app) || self.unread.contains(instance) {
            return;
        }
        if self.unread.len() == AuditReport::MOST {
            self.report.more += 1;
            return;
        }
        self.unread.insert(instance.clone());
        self.report.undecided.push(Undecided {
            queue: None,
            instance: Some(instance.clone()),
            reason,
            instances: 1,
        });
    }
}
