//! The auditor: things are broken by hand, and it finds each and mends it. What works it leaves alone.

mod left_alone;
mod lost_entries;
mod lost_messages;
mod once;
mod undecided;

pub(crate) use left_alone::*;
pub(crate) use lost_entries::*;
pub(crate) use lost_messages::*;
pub(crate) use once::*;
pub(crate) use undecided::*;

use std::future::IntoFuture;
use std::time::Duration;

use leveret::backend::{DueEntry, DueKind, Mark, Queue, When};
use leveret::client::{AuditReport, Finding, Repair, Trouble};
use leveret::replay::history::HistoryEvent;
use leveret::wire::Item;
use leveret::{Client, RunningWorker, Settings, Status, Worker, Workflow, WorkflowContext};

use crate::between::{Call, with_answers_seen, with_store_behind};
use crate::harness::*;
use crate::programs::*;

const MAIN: Workflow<u64, u64> = Workflow::new("orders", "main");
const HOUR: Duration = Duration::from_secs(3600);

impl Stage {
    /// What an audit finds that leaves nothing alone for being young.
    pub(crate) async fn audit(&self) -> AuditReport {
        soon("an audit", self.client.audit().grace(Duration::ZERO).into_future())
            .await
            .unwrap()
    }

    pub(crate) async fn repair(&self) -> AuditReport {
        self.repair_by(&self.client).await
    }

    /// The same by another client.
    async fn repair_by(&self, client: &Client) -> AuditReport {
        let audit = client.audit().grace(Duration::ZERO).repair();
        soon("an audit", audit.into_future()).await.unwrap()
    }

    /// An audit finds just this; one that repairs mends it.
    pub(crate) async fn mends(&self, troubles: &[Trouble]) -> Vec<Finding> {
        let found = self.audit().await;
        assert_eq!(sorts(&found), troubles, "{found:?}");
        assert!(found.findings.iter().all(|finding| finding.repair == Repair::NotAsked));
        assert!(!found.is_clean());
        let repaired = self.repair().await;
        assert_eq!(sorts(&repaired), troubles, "{repaired:?}");
        assert!(repaired.is_clean(), "{repaired:?}");
        assert!(repaired.stuck().is_empty());
        found.findings
    }

    pub(crate) async fn finds_nothing(&self) -> AuditReport {
        let report = self.audit().await;
        assert!(report.findings.is_empty(), "{report:?}");
        report
    }

    async fn unschedule(&self, app_id: &str, entries: &[DueEntry]) {
        let keys: Vec<_> = entries.iter().map(|entry| entry.key.clone()).collect();
        self.backend.store().unschedule(&app(app_id), &keys).await.unwrap();
    }

    /// Returns when no worker is about to make effects of the instance.
    async fn settled(&self, app: &str, id: &str) {
        until(&format!("{app}/{id} to have no marks"), async || {
            let record = self.record(app, id).await.unwrap();
            record.marks.is_empty().then_some(())
        })
        .await;
    }

    async fn wait_for_entry(&self, app_id: &str, kind: DueKind) -> DueEntry {
        until(&format!("an entry of {kind:?}"), async || {
            self.due(app_id, kind).await.into_iter().next()
        })
        .await
    }
}

/// The sorts of what was found, each as often as it was.
fn sorts(report: &AuditReport) -> Vec<Trouble> {
    let mut sorts: Vec<_> = report.findings.iter().map(|finding| finding.trouble).collect();
    sorts.sort();
    sorts
}

fn is_result(event: &HistoryEvent) -> bool {
    matches!(
        event,
        HistoryEvent::TaskCompleted { .. } | HistoryEvent::TaskFailed { .. } | HistoryEvent::ChildCompleted { .. }
    )
}

/// Takes messages out of a lane until a completion has come.
async fn take_completion(stage: &Stage, lane: &Queue) {
    while !matches!(stage.take(lane).await[..], [Item::Completion(_)]) {}
}
