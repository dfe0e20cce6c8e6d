//! What a plan may come to: the reference that the system is compared with. Plain code, nothing concurrent.

use crate::plan::{CallPlan, ChildPlan, NO_APP, Plan, Seen, Step, event_name, event_value, result_of};

/// How an instance ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Ended {
    Completed(Vec<Seen>),
    /// The failure's kind.
    Failed(String),
    Terminated,
}

/// What there may have been before an instance began: of that, children that nobody waits for may still be active, under the IDs that this one's
/// children come to have. A call of such a child fails.
#[derive(Clone, Copy)]
pub(crate) struct Before {
    /// A run of the same instance ID, so that derived IDs may be taken.
    pub(crate) run: bool,
    /// A run of the same plan, so that chosen IDs may be taken.
    pub(crate) plan: bool,
}

impl Before {
    fn of_child(self, child: &ChildPlan) -> Self {
        let plan = self.plan || child.attempts > 1;
        // Each attempt derives an ID of its own.
        let run = if child.id.is_some() { plan } else { self.run };
        Self { run, plan }
    }

    fn may_take_id_of(self, child: &ChildPlan) -> bool {
        if child.id.is_some() { self.plan } else { self.run }
    }
}

/// Says what is wrong with the end of an instance of this plan that nobody terminated.
pub(crate) fn check(plan: &Plan, ended: &Ended, before: Before) -> Result<(), String> {
    match ended {
        Ended::Failed(kind) if plan.fails && kind == "PlanFailed" => Ok(()),
        Ended::Completed(seen) if !plan.fails => check_seen(plan, seen, before),
        other => Err(format!("ended as {other:?}, and its plan fails: {}", plan.fails)),
    }
}

fn check_seen(plan: &Plan, seen: &[Seen], before: Before) -> Result<(), String> {
    let steps = plan.steps.len();
    let rounds = plan.rounds as usize + 1;
    if seen.len() != steps * rounds {
        return Err(format!(
            "{} steps in {rounds} rounds, and {} results",
            steps,
            seen.len()
        ));
    }
    for (number, seen) in seen.iter().enumerate() {
        let (step, round) = (&plan.steps[number % steps], (number / steps) as u32);
        check_step(step, round, seen, before).map_err(|problem| format!("step {number} ({step:?}): {problem}"))?;
    }
    Ok(())
}

fn check_step(step: &Step, round: u32, seen: &Seen, before: Before) -> Result<(), String> {
    let is_right = match (step, seen) {
        (Step::Call(call), seen) => return check_call(call, round, seen),
        (Step::All(calls), Seen::Many(seen)) if calls.len() == seen.len() => {
            return calls
                .iter()
                .zip(seen)
                .try_for_each(|(call, seen)| check_call(call, round, seen));
        }
        (Step::Child(child), Seen::Child(seen)) => {
            let ended = Ended::Completed(seen.clone());
            return check(&child.plan, &ended, before.of_child(child));
        }
        (Step::Child(child), Seen::Failed(kind)) if kind == "AppNotFound" => child.attempts > 1,
        (Step::Child(child), Seen::Failed(kind)) if kind == "InstanceAlreadyExists" => before.may_take_id_of(child),
        (Step::Child(child), Seen::Failed(kind)) => {
            let ended = Ended::Failed(kind.clone());
            return check(&child.plan, &ended, before.of_child(child));
        }
        (Step::Event { name, .. }, Seen::Event(Some(value))) => *value == event_value(&event_name(name, round)),
        (Step::Event { within, .. }, Seen::Event(None)) => within.is_some(),
        (Step::Race { call, .. }, Seen::Race(Some(seen))) => return check_call(call, round, seen),
        (Step::Race { .. }, Seen::Race(None)) => true,
        (Step::Timer { .. } | Step::Detached(_) | Step::Raise { .. } | Step::Status(_), Seen::Nothing) => true,
        (Step::Patched, Seen::Value(value)) => *value == 1,
        _ => false,
    };
    if is_right {
        Ok(())
    } else {
        Err(format!("came to {seen:?}"))
    }
}

fn check_call(call: &CallPlan, round: u32, seen: &Seen) -> Result<(), String> {
    let is_right = match seen {
        Seen::Value(value) => {
            call.app != NO_APP
                && call.succeeds_from > 0
                && call.succeeds_from <= call.attempts
                && *value == result_of(call.value, round)
        }
        Seen::Failed(kind) => match kind.as_str() {
            // Rightly, before an app's first worker.
            "AppNotFound" => call.attempts > 1,
            "Hopeless" => call.succeeds_from == 0,
            "Planned" => call.succeeds_from > call.attempts,
            "TimedOut" => call.timeout.is_some(),
            "TargetUnavailable" => call.schedule_to_start.is_some(),
            // Rightly, while no worker of the newer build is up.
            "ActivityNotRegistered" => call.is_new,
            _ => false,
        },
        _ => false,
    };
    if is_right {
        Ok(())
    } else {
        Err(format!("call {call:?} came to {seen:?}"))
    }
}

/// The steps of a plan and of its children whose bodies run at most once for each time that the plan runs, with their rounds and with how often
/// that may be at most.
pub(crate) fn calls_of(plan: &Plan, runs: usize, found: &mut Vec<(String, u32, usize)>) {
    for step in &plan.steps {
        for round in 0..=plan.rounds {
            match step {
                Step::Call(call) | Step::Race { call, .. } => found.push((call.key.clone(), round, runs)),
                Step::All(calls) => found.extend(calls.iter().map(|call| (call.key.clone(), round, runs))),
                Step::Child(child) | Step::Detached(child) => {
                    calls_of(&child.plan, runs * child.attempts as usize, found);
                }
                _ => {}
            }
        }
    }
}
