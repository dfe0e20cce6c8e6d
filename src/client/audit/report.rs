//! What an audit says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};

use serde::Serialize;

use crate::model::{AppId, InstanceRef, Namespace, Sequence, Timestamp};

/// What an audit has found.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct AuditReport {
    /// The namespace.
    pub namespace: Namespace,
    /// When it was over, by the store's clock.
    pub at: Timestamp,
    /// How many instances of each app were looked at: all that are not over, or still have marks.
    pub instances: BTreeMap<AppId, u64>,
    /// How many instances of each app are stuck: those with a finding that holds them up and that is not repaired, among the findings or beyond them.
    pub stuck_instances: BTreeMap<AppId, u64>,
    /// What is wrong: at most [`AuditReport::MOST`]; of what holds instances up half as many, and as many of the rest.
    pub findings: Vec<Finding>,
    /// How many findings there are beyond those. They were not repaired: audit again.
    pub more: u64,
    /// What could not be decided, because no message comes out of a queue just now, or because an instance cannot be read. Those instances wait for the
    /// app, and rightly as far as can be known.
    pub undecided: Vec<Undecided>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// Which sort.
    pub trouble: Trouble,
    /// The app that it concerns.
    pub app: AppId,
    /// The instance that it concerns, if it is one's.
    pub instance: Option<InstanceRef>,
    /// The call or timer, if it is about one.
    pub sequence: Option<Sequence>,
    /// What is wrong, for a person.
    pub reason: String,
    /// What was done about it.
    pub repair: Repair,
}

impl Finding {
    pub(super) fn new(trouble: Trouble, app: &AppId, reason: String) -> Self {
        Self {
            trouble,
            app: app.clone(),
            instance: None,
            sequence: None,
            reason,
            repair: Repair::NotAsked,
        }
    }
}

/// Sorts of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Trouble {
    /// An instance that nobody would look at again. Repair: its check entry is written.
    NoCheck,
    /// The start of an instance is nowhere. Repair: it is published.
    LostStart,
    /// An activity call whose task is nowhere. Repair: it is sent again, with the same task execution ID.
    LostTask,
    /// A timer or a time limit that would never be due, or whose message is nowhere. Repair: its entry in the due-set is written.
    LostTimer,
    /// A child that ought to be there and never was, or is gone with its outcome. Repair: it is made, or what is kept of its outcome is told.
    LostChild,
    /// A child is over, and its end is not told. Repair: it is told.
    LostAnswer,
    /// Continue-as-new whose next execution nobody would begin. Repair: the instance is woken.
    LostExecution,
    /// A queue of an app that has registered does not exist. Repair: it is declared.
    MissingQueue,
    /// An entry of the due-set that concerns nobody any more. Repair: it goes.
    StaleDueEntry,
    /// An entry of the index without an instance. Repair: it goes.
    StaleIndexEntry,
    /// Keys of an instance without the instance. Repair: they go.
    StrayKey,
}

impl Trouble {
    /// True if an instance is stuck by it: nothing will move that instance.
    pub fn is_stuck(self) -> bool {
        !matches!(
            self,
            Trouble::MissingQueue | Trouble::StaleDueEntry | Trouble::StaleIndexEntry | Trouble::StrayKey
        )
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Trouble::NoCheck => "no check",
            Trouble::LostStart => "lost start",
            Trouble::LostTask => "lost task",
            Trouble::LostTimer => "lost timer",
            Trouble::LostChild => "lost child",
            Trouble::LostAnswer => "lost answer",
            Trouble::LostExecution => "lost execution",
            Trouble::MissingQueue => "missing queue",
            Trouble::StaleDueEntry => "stale due entry",
            Trouble::StaleIndexEntry => "stale index entry",
            Trouble::StrayKey => "stray key",
        })
    }
}

/// What was done about a finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Repair {
    /// Nothing: it was not asked for.
    NotAsked,
    /// It is repaired.
    Done,
    /// It had been mended by itself when it was to be repaired.
    NotNeeded,
    /// It cannot be repaired; the text says what a person can do.
    Impossible(String),
}

impl Repair {
    /// True if nothing is wrong any more.
    pub fn is_mended(&self) -> bool {
        matches!(self, Repair::Done | Repair::NotNeeded)
    }
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Repair::NotAsked => f.write_str("not repaired"),
            Repair::Done => f.write_str("repaired"),
            Repair::NotNeeded => f.write_str("mended by itself"),
            Repair::Impossible(way_out) => write!(f, "cannot be repaired: {way_out}"),
        }
    }
}

/// A queue that tells nothing, and whom that concerns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Undecided {
    /// The queue, without the namespace; `None` if it is about one instance.
    pub queue: Option<String>,
    /// The instance that cannot be looked at; `None` if it is about a queue.
    pub instance: Option<InstanceRef>,
    /// Why nothing is known.
    pub reason: String,
    /// How many instances wait for something that may be in it.
    pub instances: usize,
}

impl AuditReport {
    /// Most findings that a report holds.
    pub const MOST: usize = 10_000;

    /// True if nothing is wrong, or all of it was repaired.
    pub fn is_clean(&self) -> bool {
        self.more == 0 && self.findings.iter().all(|finding| finding.repair.is_mended())
    }

    /// The instances that are stuck, as far as the findings name them: those with one that holds them up and that is not repaired.
    pub fn stuck(&self) -> BTreeSet<&InstanceRef> {
        let open = self.findings.iter().filter(|finding| !finding.repair.is_mended());
        open.filter(|finding| finding.trouble.is_stuck())
            .filter_map(|finding| finding.instance.as_ref())
            .collect()
    }

    /// The report as Prometheus' text format: `leveret_stuck_instances`, for each app.
    pub fn metrics(&self) -> String {
        let mut stuck: BTreeMap<&AppId, u64> = self.instances.keys().map(|app| (app, 0)).collect();
        stuck.extend(self.stuck_instances.iter().map(|(app, count)| (app, *count)));
        let leftovers = self
            .findings
            .iter()
            .filter(|finding| !finding.trouble.is_stuck() && !finding.repair.is_mended());
        let mut text = String::from(
            "# HELP leveret_stuck_instances Instances that nothing will move, by the last audit.\n# TYPE leveret_stuck_instances gauge\n",
        );
        let namespace = &self.namespace;
        for (app, count) in stuck {
            // Names have no character that would need escaping.
            let _ = writeln!(
                text,
                "leveret_stuck_instances{{namespace=\"{namespace}\",app=\"{app}\"}} {count}"
            );
        }
        let _ = writeln!(
            text,
            "# HELP leveret_audit_leftovers What is left over of instances that are gone, and missing queues.\n# TYPE leveret_audit_leftovers gauge\nleveret_audit_leftovers{{namespace=\"{namespace}\"}} {}",
            leftovers.count()
        );
        let _ = writeln!(
            text,
            "# HELP leveret_audit_more Findings for which the last audit's report had no room.\n# TYPE leveret_audit_more gauge\nleveret_audit_more{{namespace=\"{namespace}\"}} {}",
            self.more
        );
        let _ = writeln!(
            text,
            "# HELP leveret_audit_timestamp_seconds When the last audit was over.\n# TYPE leveret_audit_timestamp_seconds gauge\nleveret_audit_timestamp_seconds{{namespace=\"{namespace}\"}} {}",
            self.at.as_millis() / 1000
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stuck_is_counted_whatever_the_report_has_no_room_for() {
        let app = AppId::new("orders").unwrap();
        let leftover = Finding::new(Trouble::StrayKey, &app, "left over".into());
        let report = AuditReport {
            namespace: Namespace::new("shop").unwrap(),
            at: Timestamp::from_millis(7000),
            instances: BTreeMap::from([(app.clone(), 9), (AppId::new("payments").unwrap(), 1)]),
            stuck_instances: BTreeMap::from([(app, 3)]),
            findings: vec![leftover],
            more: 17,
            undecided: Vec::new(),
        };
        let text = report.metrics();
        for line in [
            "leveret_stuck_instances{namespace=\"shop\",app=\"orders\"} 3\n",
            "leveret_stuck_instances{namespace=\"shop\",app=\"payments\"} 0\n",
            "leveret_audit_leftovers{namespace=\"shop\"} 1\n",
            "leveret_audit_more{namespace=\"shop\"} 17\n",
            "leveret_audit_timestamp_seconds{namespace=\"shop\"} 7\n",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        assert!(!report.is_clean());
    }
}
