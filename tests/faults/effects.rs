//! What activities have done, as seen from outside: a line for each beginning and each end of a body.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use leveret::ActivityContext;

const FILE: &str = "effects";

/// Notes that a body has begun (`begin`) or ended (`end`). A whole line in one write: lines of several processes do not mix, and what is written
/// survives the process.
pub(crate) fn note(directory: &Path, ctx: &ActivityContext, what: &str) {
    let line = format!(
        "{} {} {} {} {} {what}\n",
        ctx.task_execution_id(),
        ctx.attempt(),
        std::process::id(),
        ctx.caller().id,
        ctx.name()
    );
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(directory.join(FILE))
        .expect("opened");
    file.write_all(line.as_bytes()).expect("written");
}

/// The runs of one call.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    pub(crate) activity: String,
    pub(crate) begun: usize,
    pub(crate) ended: usize,
}

/// All calls whose body has run, by task execution ID.
pub(crate) fn read(directory: &Path) -> BTreeMap<String, Runs> {
    let text = std::fs::read_to_string(directory.join(FILE)).unwrap_or_default();
    let mut calls: BTreeMap<String, Runs> = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let [task, _attempt, _process, _caller, activity, what] = words[..] else {
            panic!("a line of the effects file: {line:?}")
        };
        let runs = calls.entry(task.to_owned()).or_default();
        runs.activity = activity.to_owned();
        match what {
            "begin" => runs.begun += 1,
            _ => runs.ended += 1,
        }
    }
    calls
}
