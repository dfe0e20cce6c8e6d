//! Pulses: workflows of each app that never rest, by which the time is taken from a fault to the moment when its instances go on.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use leveret::backend::Backend;
use leveret::{AppId, Client, InstanceId, InstanceRef, Result, Timestamp, Workflow, WorkflowContext};
use serde::{Deserialize, Serialize};

use crate::apps::{APPS, Work};
use crate::load::insist;

/// Pulses of each app.
const EACH: usize = 6;
/// Steps of one execution.
const STEPS: u64 = 40;
const STOP: &str = "stop";
/// Between two looks at the records.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// A pulse's input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Beat {
    id: String,
    home: usize,
    count: u64,
}

pub(crate) fn workflow(app: &'static str) -> Workflow<Beat, u64> {
    Workflow::new(app, "pulse")
}

/// A short wait, an activity on one app after the other, and so on until it is told to stop.
pub(crate) async fn run(ctx: WorkflowContext, beat: Beat) -> Result<u64> {
    for count in beat.count..beat.count + STEPS {
        let stop = ctx.event_named::<()>(STOP).within(Duration::from_millis(100)).await?;
        if stop.is_some() {
            return Ok(count);
        }
        let work = Work {
            step: format!("{}/{count}", beat.id),
            value: count,
            succeeds_from: 1,
            millis: 0,
        };
        let app = APPS[(beat.home + count as usize) % APPS.len()];
        ctx.call_named::<u64>("work", work).app_id(app).await?;
    }
    ctx.continue_as_new(Beat {
        count: beat.count + STEPS,
        ..beat
    })
}

/// The pulses that run.
pub(crate) struct Pulses {
    instances: Vec<InstanceRef>,
    client: Client,
    /// Goes past the proxies.
    observer: Backend,
}

impl Pulses {
    pub(crate) async fn start(client: Client, observer: Backend) -> std::result::Result<Self, String> {
        let mut instances = Vec::new();
        for number in 0..EACH * APPS.len() {
            let home = number % APPS.len();
            let beat = Beat {
                id: format!("pulse-{number}"),
                home,
                count: 0,
            };
            let start = client
                .start(workflow(APPS[home]), beat.clone())
                .id(&beat.id)
                .request_id(&beat.id);
            start
                .await
                .map_err(|error| format!("a pulse does not start: {error}"))?;
            let app = AppId::new(APPS[home]).expect("valid");
            instances.push(InstanceRef::new(app, InstanceId::new(&beat.id).expect("valid")));
        }
        Ok(Self {
            instances,
            client,
            observer,
        })
    }

    /// How long from that moment until each of them had made a turn; gives up after so long. The longest, or how many have not gone on.
    pub(crate) async fn all_go_on(&self, since: Timestamp, patience: Duration) -> std::result::Result<Duration, usize> {
        let began = Instant::now();
        let mut waiting: Vec<_> = self.instances.iter().collect();
        let mut longest = Duration::ZERO;
        loop {
            let looks = waiting.into_iter().map(|instance| async move {
                let record = self.observer.store().record(instance).await.ok().flatten();
                (instance, record)
            });
            let looks = join_all(looks).await;
            waiting = Vec::new();
            for (instance, record) in looks {
                match record.filter(|record| record.updated_at > since) {
                    Some(record) => longest = longest.max(record.updated_at.since(since)),
                    None => waiting.push(instance),
                }
            }
            if waiting.is_empty() {
                return Ok(longest);
            }
            if began.elapsed() > patience {
                return Err(waiting.len());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Has all of them end well. Says who does not within this time.
    pub(crate) async fn stop(&self, within: Duration) -> Vec<String> {
        let ends = self.instances.iter().map(|instance| async move {
            let handle = self.client.handle(instance.clone());
            let end = async {
                insist(|| async { handle.raise_named(STOP, ()).message_id("stop").await.map(drop) }).await?;
                insist(|| async { handle.result_as::<u64>().await }).await
            };
            match tokio::time::timeout(within, end).await {
                Ok(Ok(_)) => None,
                Ok(Err(error)) => Some(format!("{instance} ended with {error}")),
                Err(_) => Some(format!("{instance} does not end")),
            }
        });
        join_all(ends).await.into_iter().flatten().collect()
    }
}
