//! What a plan may come to: the reference that the system is compared with. Plain code, nothing concurrent.

use std::collections::BTreeSet;

use crate::plan::{CallPlan, ChildPlan, NO_APP, Plan, Seen, Step, event_name, event_value, result_of};

/// How an instance ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Ended {
    Completed(Vec<Seen>),
    /// The failure's kind.
    Failed(String),
    Terminated,
    /// It was purged before the client knew. What watches the commits has seen its end.
    Unknown,
}

/// What an instance's plan does not say and what matters for its end.
#[derive(Clone, Copy)]
pub(crate) struct Given<'a> {
    /// There may have been a run of the same instance ID before. Of that, children that nobody waits for may still be active, under the IDs that this
    /// one's children come to have: a call of such a child fails. So derived IDs may be taken.
    pub(crate) follows_run: bool,
    /// There may have been a run of the same plan before, so that chosen IDs may be taken.
    pub(crate) follows_plan: bool,
    /// Children that somebody has ended.
    pub(crate) ended: &'a BTreeSet<String>,
    /// Nothing goes wrong, so that nothing takes longer than it has to.
    pub(crate) is_calm: bool,
}

/// By how much, in milliseconds, something may come late in a calm world.
const LATE: u64 = 1_000;

impl Given<'_> {
    fn of_child(self, child: &ChildPlan) -> Self {
        let follows_plan = self.follows_plan || child.attempts > 1;
        Self {
            // Each attempt derives an ID of its own.
            follows_run: if child.id.is_some() {
                follows_plan
            } else {
                self.follows_run
            },
            follows_plan,
            ..self
        }
    }

    fn may_take_id_of(self, child: &ChildPlan) -> bool {
        if child.id.is_some() {
            self.follows_plan
        } else {
            self.follows_run
        }
    }

    fn may_be_ended(self, child: &ChildPlan) -> bool {
        child.id.as_ref().is_some_and(|id| self.ended.contains(id))
    }
}

/// Says what is wrong with the end of an instance of this plan that nobody terminated.
pub(crate) fn check(plan: &Plan, ended: &Ended, given: Given<'_>) -> Result<(), String> {
    match ended {
        Ended::Failed(kind) if plan.fails && kind == "PlanFailed" => Ok(()),
        Ended::Completed(seen) if !plan.fails => check_seen(plan, seen, given),
        other => Err(format!("ended as {other:?}, and its plan fails: {}", plan.fails)),
    }
}

fn check_seen(plan: &Plan, seen: &[Seen], given: Given<'_>) -> Result<(), String> {
    let steps = plan.steps.len();
    let rounds = plan.rounds as usize + 1;
    let given = Given {
        follows_run: given.follows_run || rounds > 1,
        follows_plan: given.follows_plan || rounds > 1,
        ..given
    };
    if seen.len() != steps * rounds {
        return Err(format!(
            "{} steps in {rounds} rounds, and {} results",
            steps,
            seen.len()
        ));
    }
    for (number, seen) in seen.iter().enumerate() {
        let (step, round) = (&plan.steps[number % steps], (number / steps) as u32);
        check_step(step, round, seen, given).map_err(|problem| format!("step {number} ({step:?}): {problem}"))?;
    }
    Ok(())
}

fn check_step(step: &Step, round: u32, seen: &Seen, given: Given<'_>) -> Result<(), String> {
    let is_right = match (step, seen) {
        (Step::Call(call), seen) => return check_call(call, round, seen, given),
        (Step::All(calls), Seen::Many(seen)) if calls.len() == seen.len() => {
            return calls
                .iter()
                .zip(seen)
                .try_for_each(|(call, seen)| check_call(call, round, seen, given));
        }
        (Step::Child(child), Seen::Child(seen)) => {
            let ended = Ended::Completed(seen.clone());
            return check(&child.plan, &ended, given.of_child(child));
        }
        (Step::Child(child), Seen::Failed(kind)) if kind == "AppNotFound" => child.attempts > 1 && !given.is_calm,
        (Step::Child(child), Seen::Failed(kind)) if kind == "Terminated" => given.may_be_ended(child),
        (Step::Child(child), Seen::Failed(kind)) if kind == "InstanceAlreadyExists" => given.may_take_id_of(child),
        (Step::Child(child), Seen::Failed(kind)) => {
            let ended = Ended::Failed(kind.clone());
            return check(&child.plan, &ended, given.of_child(child));
        }
        (Step::Event { name, .. }, Seen::Event(Some(value))) => *value == event_value(&event_name(name, round)),
        (Step::Event { within, .. }, Seen::Event(None)) => within.is_some(),
        (Step::Race { call, millis }, Seen::Race(Some(seen)))
            if !given.is_calm || call.takes_at_least() < millis + LATE =>
        {
            return check_call(call, round, seen, given);
        }
        (Step::Race { call, millis }, Seen::Race(None)) => !given.is_calm || call.takes() + LATE > *millis,
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

fn check_call(call: &CallPlan, round: u32, seen: &Seen, given: Given<'_>) -> Result<(), String> {
    let is_right = match seen {
        Seen::Value(value) => {
            call.app != NO_APP
                && call.succeeds_from > 0
                && call.succeeds_from <= call.attempts
                && *value == result_of(call.value, round)
        }
        Seen::Failed(kind) => match kind.as_str() {
            // Rightly, before an app's first worker.
            "AppNotFound" => call.attempts > 1 && (call.app == NO_APP || !given.is_calm),
            "Hopeless" => call.succeeds_from == 0,
            "Planned" => call.succeeds_from > call.attempts,
            "TimedOut" => call
                .timeout
                .is_some_and(|timeout| !given.is_calm || call.millis + LATE > timeout),
            "TargetUnavailable" => call.schedule_to_start.is_some() && (call.app == NO_APP || !given.is_calm),
            // Rightly, while no worker of the newer build is up.
            "ActivityNotRegistered" => call.is_new && !given.is_calm,
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
        if let Step::Child(child) | Step::Detached(child) = step {
            let rounds = plan.rounds as usize + 1;
            calls_of(&child.plan, runs * rounds * child.attempts as usize, found);
        }
        for round in 0..=plan.rounds {
            match step {
                Step::Call(call) | Step::Race { call, .. } => found.push((call.key.clone(), round, runs)),
                Step::All(calls) => found.extend(calls.iter().map(|call| (call.key.clone(), round, runs))),
                _ => {}
            }
        }
    }
}
