//! How long instances that have ended are kept.

use std::time::Duration;

use leveret::{Failure, Result, Retention, Settings, Status, Workflow, WorkflowContext};

use crate::harness::*;
use crate::programs::*;

pub(crate) async fn a_finished_instance_is_kept_for_its_time(h: &impl Harness) {
    let stage = Stage::new(h).await;
    const APPS: [(&str, Status); 3] = [
        ("brief-completed", Status::Completed),
        ("brief-failed", Status::Failed),
        ("brief-terminated", Status::Terminated),
    ];
    // Each of the three is the one that goes soon, in an app of its own; the others are kept for an hour, or for ever.
    for (name, soon) in APPS {
        let kept = |status: Status| match status {
            _ if status == soon => Some(millis(100)),
            Status::Failed => None,
            _ => Some(Duration::from_secs(3600)),
        };
        let retention = Retention {
            completed: kept(Status::Completed),
            failed: kept(Status::Failed),
            terminated: kept(Status::Terminated),
        };
        let main: Workflow<u64, u64> = Workflow::new(name, "main");
        let worker = stage.worker(name).settings(Settings {
            retention,
            ..settings()
        });
        let code = async |ctx: WorkflowContext, n: u64| -> Result<u64> {
            ctx.event(GO).await?;
            match n {
                0 => Err(Failure::new("Refused", "on purpose")),
                n => Ok(n),
            }
        };
        let _orders = up(worker.workflow(main, code)).await;
        let start = async |id: Status, n: u64| stage.client.start(main, n).id(id.as_str()).await.unwrap();
        let completed = start(Status::Completed, 1).await;
        let failed = start(Status::Failed, 0).await;
        let terminated = start(Status::Terminated, 1).await;
        stage
            .wait_for_status(name, Status::Terminated.as_str(), Status::Running)
            .await;
        terminated.terminate("enough").and_wait(PATIENCE).await.unwrap();
        completed.raise(GO, ()).await.unwrap();
        failed.raise(GO, ()).await.unwrap();
        assert_eq!(done(&completed).await, 1);
        assert_eq!(failure(&failed).await.kind, "Refused");
        until(&format!("the {soon} one to go"), async || {
            stage.record(name, soon.as_str()).await.is_none().then_some(())
        })
        .await;
        for (_, other) in APPS.into_iter().filter(|(_, end)| *end != soon) {
            assert!(stage.record(name, other.as_str()).await.is_some(), "{other} stays");
        }
        // Its outcome stays a while for whoever waits.
        assert_eq!(done(&completed).await, 1);
    }
}
