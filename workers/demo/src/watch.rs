//! Starting the orders, playing the manager, and telling what happens until all are over.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use contracts::{APPROVAL, Approval, CHECKOUT, Order, Stage};
use leveret::client::{Filter, InstanceSummary};
use leveret::{Client, OnConflict, Status};

use crate::outcome;
use crate::plan::{Plan, TAG};
use crate::problem::Problem;
use crate::progress::Progress;

/// Orders come in one after the other, this far apart, but all of them within `ARRIVAL`.
const APART: Duration = Duration::from_millis(350);
const ARRIVAL: Duration = Duration::from_secs(4);
/// How often we look.
const LOOK: Duration = Duration::from_millis(80);
/// How long the manager thinks.
const THINKS: Duration = Duration::from_millis(1200);
/// What the manager approves at most: 5,000.00.
const MOST_CENTS: u64 = 500_000;

/// Starts what is not there yet and returns when all orders are over.
pub(crate) async fn to_the_end(client: &Client, plan: &Plan, progress: &Progress) -> Result<(), Problem> {
    let before = instances(client, plan).await?;
    greet(&before, plan, progress);
    start(client, plan, &before).await?;
    let mut manager = Manager::default();
    let mut last: HashMap<String, String> = HashMap::new();
    for instance in before.values().filter(|instance| instance.status.is_terminal()) {
        let id = instance.instance.id.to_string();
        progress.ended_before(&id, instance.status);
        last.insert(id, String::new());
    }
    loop {
        let began = Instant::now();
        let now = instances(client, plan).await?;
        for order in &plan.orders {
            let id = plan.instance_id(order);
            let Some(instance) = now.get(&id) else { continue };
            let text = describe(instance);
            let is_news = instance.status != Status::Pending && last.get(&id) != Some(&text);
            if instance.status.is_terminal() {
                if !last.get(&id).is_some_and(String::is_empty) {
                    let outcome = outcome::of(client, plan, order).await?;
                    progress.ended(&id, &outcome);
                    last.insert(id, String::new());
                }
                continue;
            }
            if is_news {
                progress.stage(&id, &text);
                last.insert(id, text);
            }
            manager.look(client, instance, order, progress).await?;
        }
        if last.len() == plan.orders.len() && last.values().all(String::is_empty) {
            return Ok(());
        }
        // A large input takes longer to look at: then look less often.
        tokio::time::sleep(LOOK.max(began.elapsed() * 3)).await;
    }
}

async fn instances(client: &Client, plan: &Plan) -> Result<HashMap<String, InstanceSummary>, Problem> {
    let listed = client
        .list(Filter::app("orders").tag(TAG, &plan.label))
        .page_size(1000)
        .collect()
        .await?;
    Ok(listed
        .into_iter()
        .map(|instance| (instance.instance.id.to_string(), instance))
        .collect())
}

fn greet(before: &HashMap<String, InstanceSummary>, plan: &Plan, progress: &Progress) {
    let all = plan.orders.len();
    let finished = before.values().filter(|instance| instance.status.is_terminal()).count();
    progress.say(&if before.is_empty() {
        "kill this at any time and run it again: it goes on where it was".to_owned()
    } else if finished == all {
        format!("all {all} orders were already finished; --fresh begins anew (with `submit`: --again LABEL)")
    } else {
        format!(
            "resuming: {finished} of {all} orders were already finished, {} go on",
            all - finished
        )
    });
}

async fn start(client: &Client, plan: &Plan, before: &HashMap<String, InstanceSummary>) -> Result<(), Problem> {
    let new: Vec<_> = plan
        .orders
        .iter()
        .filter(|order| !before.contains_key(&plan.instance_id(order)))
        .collect();
    let apart = APART.min(ARRIVAL / u32::try_from(new.len().max(1)).unwrap_or(u32::MAX));
    for (position, order) in (0..).zip(new) {
        let id = plan.instance_id(order);
        let start = client
            .start(CHECKOUT, order.clone())
            .id(&id)
            .request_id(&id)
            .policy(OnConflict::UseExisting);
        start.tag(TAG, &plan.label).after(apart * position).await?;
    }
    Ok(())
}

/// What the order does now, in words.
fn describe(instance: &InstanceSummary) -> String {
    match stage(instance) {
        Some(stage) => stage.to_string(),
        None => format!("is {}", instance.status),
    }
}

fn stage(instance: &InstanceSummary) -> Option<Stage> {
    instance.custom_status.as_ref()?.decode().ok()
}

/// Approves or refuses large orders, after a moment.
#[derive(Default)]
struct Manager {
    asked: HashMap<String, Asked>,
}

enum Asked {
    At(Instant),
    Answered,
}

impl Manager {
    async fn look(
        &mut self,
        client: &Client,
        instance: &InstanceSummary,
        order: &Order,
        progress: &Progress,
    ) -> Result<(), Problem> {
        if stage(instance) != Some(Stage::WaitingForApproval) {
            return Ok(());
        }
        let id = instance.instance.id.to_string();
        let asked = self
            .asked
            .entry(id.clone())
            .or_insert_with(|| Asked::At(Instant::now()));
        if !matches!(asked, Asked::At(since) if since.elapsed() >= THINKS) {
            return Ok(());
        }
        *asked = Asked::Answered;
        let is_approved = order.cents() <= MOST_CENTS;
        let approval = Approval {
            is_approved,
            by: "the manager".into(),
        };
        // The same message ID after a restart: the answer counts once.
        client
            .handle(instance.instance.clone())
            .raise(APPROVAL, approval)
            .message_id(format!("approval-{id}"))
            .await?;
        progress.stage(
            &id,
            if is_approved {
                "is approved by the manager"
            } else {
                "is refused by the manager"
            },
        );
        Ok(())
    }
}
