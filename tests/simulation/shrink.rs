//! Making a failing script smaller: whatever can be left out is, as long as it still fails in the same way.

use leveret::testing::Faults;

use crate::plan::{Command, Life, Plan, Step, Told};
use crate::script::Script;

/// The smallest script that was found, and what is wrong with it. `fails` says what is wrong with a script, if anything is.
pub(crate) fn shrink(script: &Script, wrong: &str, fails: impl Fn(&Script) -> Option<String>) -> (Script, String) {
    let (mut smallest, mut its_wrong) = (script.clone(), wrong.to_owned());
    'smaller: loop {
        for candidate in smaller(&smallest) {
            if let Some(wrong) = fails(&candidate).filter(|wrong| kind(wrong) == kind(&its_wrong)) {
                (smallest, its_wrong) = (candidate, wrong);
                continue 'smaller;
            }
        }
        return (smallest, its_wrong);
    }
}

/// How much there is to a script.
pub(crate) fn size(script: &Script) -> usize {
    fn of(plan: &Plan) -> usize {
        let steps = plan.steps.iter().map(|step| match step {
            Step::Child(child) | Step::Detached(child) => 1 + of(&child.plan),
            Step::All(calls) => calls.len(),
            _ => 1,
        });
        steps.sum()
    }
    let lives = script.roots.iter().flat_map(|root| &root.lives);
    let of_lives = lives.map(|life| 1 + of(&life.plan) + life.commands.len());
    of_lives.sum::<usize>() + script.chaos.len() + script.replicas
}

/// The same kind of failure: the invariant, or the words of what was found without the names in it.
fn kind(wrong: &str) -> String {
    let words = wrong
        .split_whitespace()
        .filter(|word| !word.contains(|c: char| c.is_ascii_digit() || c == '/'));
    match wrong.split_once(':') {
        Some((invariant, _)) if invariant.len() == 2 && invariant.starts_with('I') => invariant.to_owned(),
        _ => words.take(2).collect::<Vec<_>>().join(" "),
    }
}

/// All scripts with one thing left out, the large things first. What is left makes sense by itself: no wait without what it waits for.
fn smaller(script: &Script) -> Vec<Script> {
    let mut found = Vec::new();
    let mut try_with = |change: &dyn Fn(&mut Script)| {
        let mut candidate = script.clone();
        change(&mut candidate);
        found.push(candidate);
    };
    for root in 0..script.roots.len() {
        try_with(&|script| drop(script.roots.remove(root)));
    }
    for (number, root) in script.roots.iter().enumerate() {
        for life in (0..root.lives.len()).filter(|_| root.lives.len() > 1) {
            try_with(&|script| drop(script.roots[number].lives.remove(life)));
        }
    }
    for event in 0..script.chaos.len() {
        try_with(&|script| {
            script.chaos.remove(event);
        });
    }
    if script.replicas > 1 {
        try_with(&|script| {
            script.replicas = 1;
            script.chaos.clear();
        });
    }
    for (number, root) in script.roots.iter().enumerate() {
        for (life_number, life) in root.lives.iter().enumerate() {
            for step in 0..steps(&life.plan) {
                try_with(&|script| {
                    remove_step(&mut script.roots[number].lives[life_number].plan, &mut step.clone());
                });
            }
            for told in 0..life.commands.len() {
                // A suspend without its resume would wait for ever.
                if life.commands[told].command != Command::Resume {
                    try_with(&|script| remove_command(&mut script.roots[number].lives[life_number], told));
                }
            }
            if life.is_purged {
                try_with(&|script| script.roots[number].lives[life_number].is_purged = false);
            }
            if life.is_abandoned_once {
                try_with(&|script| script.roots[number].lives[life_number].is_abandoned_once = false);
            }
            if life.plan.rounds > 0 {
                try_with(&|script| script.roots[number].lives[life_number].plan.rounds -= 1);
            }
        }
    }
    for without in without_a_fault(&script.faults) {
        try_with(&|script| script.faults = without.clone());
    }
    if script.held_up.is_some() {
        try_with(&|script| script.held_up = None);
    }
    if script.retention.is_some() {
        try_with(&|script| script.retention = None);
    }
    if script.late_app.is_some() {
        try_with(&|script| script.late_app = None);
    }
    if script.has_old_build {
        try_with(&|script| script.has_old_build = false);
    }
    found
}

fn without_a_fault(all: &Faults) -> Vec<Faults> {
    let without = |change: &dyn Fn(&mut Faults)| {
        let mut faults = all.clone();
        change(&mut faults);
        faults
    };
    let each = [
        without(&|faults| faults.refused = 0.0),
        without(&|faults| faults.answer_lost = 0.0),
        without(&|faults| faults.late = 0.0),
        without(&|faults| faults.doubled = 0.0),
        without(&|faults| faults.to_two = 0.0),
        without(&|faults| faults.overtaken = 0.0),
        without(&|faults| faults.overlooked = 0.0),
        without(&|faults| faults.cut = 0.0),
        without(&|faults| faults.dies = 0.0),
    ];
    each.into_iter().filter(|faults| faults != all).collect()
}

/// All steps, those of children included.
fn steps(plan: &Plan) -> usize {
    let each = plan.steps.iter().map(|step| match step {
        Step::Child(child) | Step::Detached(child) => 1 + steps(&child.plan),
        _ => 1,
    });
    each.sum()
}

/// Removes a command, and with a suspend the resume that follows.
fn remove_command(life: &mut Life, number: usize) {
    let removed = life.commands.remove(number);
    let is_its_end = |told: &Told| told.command == Command::Resume && told.child == removed.child;
    if removed.command == Command::Suspend
        && let Some(resume) = life.commands.iter().position(is_its_end)
    {
        life.commands.remove(resume);
    }
}

/// Removes the step of that number, counted as [`steps`] does. Events that are raised for it wait for nobody then, which harms nobody.
fn remove_step(plan: &mut Plan, number: &mut usize) -> bool {
    for index in 0..plan.steps.len() {
        if *number == 0 {
            plan.steps.remove(index);
            return true;
        }
        *number -= 1;
        if let Step::Child(child) | Step::Detached(child) = &mut plan.steps[index]
            && remove_step(&mut child.plan, number)
        {
            return true;
        }
    }
    false
}
