//! How an order ended, and which app did what: read from the histories.

use std::time::Duration;

use contracts::{Order, Summary};
use leveret::replay::history::{HistoryEvent, Turn};
use leveret::{Client, Failure, InstanceRef, Payload, Status};

use crate::plan::Plan;
use crate::problem::Problem;

/// See the module.
pub(crate) struct Outcome {
    pub(crate) order: String,
    pub(crate) instance: InstanceRef,
    pub(crate) status: Status,
    /// From its first turn to its last.
    pub(crate) took: Option<Duration>,
    /// Activity calls, those of the shipment included, in order of the first call.
    pub(crate) calls: Vec<Called>,
    /// The child workflow, if there was one.
    pub(crate) shipment: Option<InstanceRef>,
    pub(crate) output: Option<Payload>,
    pub(crate) failure: Option<Failure>,
}

/// An activity that was called.
pub(crate) struct Called {
    pub(crate) app: String,
    pub(crate) name: String,
    /// Attempts.
    pub(crate) times: u32,
}

impl Outcome {
    /// In a few words.
    pub(crate) fn words(&self) -> String {
        if let Some(failure) = &self.failure {
            let mut root = failure;
            while let Some(cause) = &root.cause {
                root = cause;
            }
            let undone: Vec<_> = ["refund", "release"]
                .into_iter()
                .filter(|name| self.has_called(name))
                .collect();
            let undone = if undone.is_empty() {
                String::new()
            } else {
                format!("; undone: {}", undone.join(", "))
            };
            return format!("{}: {}{undone}", root.kind, root.message);
        }
        match self.output.as_ref().map(Payload::decode::<Summary>) {
            Some(Ok(summary)) => {
                let attempt = summary.receipt.attempt;
                let retried = if attempt > 1 {
                    format!(", paid at attempt {attempt}")
                } else {
                    String::new()
                };
                format!("on its way as {}{retried}", summary.tracking.code)
            }
            Some(Err(failure)) => failure.message,
            None => "is not over".into(),
        }
    }

    fn has_called(&self, name: &str) -> bool {
        self.calls.iter().any(|called| called.name == name)
    }

    fn count(&mut self, history: Vec<Turn>) {
        for event in history.into_iter().flat_map(|turn| turn.events) {
            let HistoryEvent::TaskScheduled { app, name, .. } = event else {
                continue;
            };
            let app = app.to_string();
            match self
                .calls
                .iter_mut()
                .find(|called| called.app == app && called.name == name)
            {
                Some(called) => called.times += 1,
                None => self.calls.push(Called { app, name, times: 1 }),
            }
        }
    }
}

/// The outcome of one order.
pub(crate) async fn of(client: &Client, plan: &Plan, order: &Order) -> Result<Outcome, Problem> {
    let handle = client.instance("orders", plan.instance_id(order))?;
    let info = handle.get().await?;
    let mut outcome = Outcome {
        order: order.id.clone(),
        instance: info.instance.clone(),
        status: info.status,
        took: info
            .ended_at
            .map(|ended| ended.since(info.started_at.unwrap_or(info.created_at))),
        calls: Vec::new(),
        shipment: None,
        output: info.output.clone(),
        failure: info.failure.clone(),
    };
    outcome.count(handle.history().await?);
    for child in handle.children().await? {
        if child.status.is_some() {
            outcome.count(client.handle(child.instance.clone()).history().await?);
        }
        outcome.shipment = Some(child.instance);
    }
    Ok(outcome)
}

/// The outcomes of all orders, in the order of the input.
pub(crate) async fn of_all(client: &Client, plan: &Plan) -> Result<Vec<Outcome>, Problem> {
    let mut outcomes = Vec::with_capacity(plan.orders.len());
    for order in &plan.orders {
        outcomes.push(of(client, plan, order).await?);
    }
    Ok(outcomes)
}
