//! What activities have done, as seen from outside: each process notes the beginnings and ends of bodies in a file of its own.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use leveret::ActivityContext;

const EXTENSION: &str = "effects";

/// A process's file.
pub(crate) struct Journal(Mutex<File>);

/// The file of that process. It is there once the process has begun.
pub(crate) fn path(directory: &Path, process: &str) -> PathBuf {
    directory.join(process).with_extension(EXTENSION)
}

impl Journal {
    pub(crate) fn create(directory: &Path, process: &str) -> std::io::Result<Self> {
        let path = path(directory, process);
        Ok(Self(Mutex::new(
            File::options().create_new(true).append(true).open(path)?,
        )))
    }

    /// A whole line in one write: it survives the process, though not the machine.
    pub(crate) fn note(&self, what: &str, step: &str, ctx: &ActivityContext) {
        let line = format!("{what} {} {step}\n", ctx.task_execution_id());
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(line.as_bytes()).expect("the effects file takes a line");
    }
}

/// Bytes of all files: a measure of the work that was done so far.
pub(crate) fn bytes(directory: &Path) -> u64 {
    files(directory)
        .filter_map(|path| std::fs::metadata(path).ok())
        .map(|facts| facts.len())
        .sum()
}

fn files(directory: &Path) -> impl Iterator<Item = std::path::PathBuf> + use<> {
    let found = std::fs::read_dir(directory).into_iter().flatten().flatten();
    found
        .map(|file| file.path())
        .filter(|path| path.extension().is_some_and(|end| end == EXTENSION))
}

/// All that was noted.
#[derive(Default)]
pub(crate) struct Effects {
    /// Bodies that have begun.
    pub(crate) begun: usize,
    /// Calls of which a body has come to its end.
    pub(crate) ended: HashSet<String>,
    /// The calls that ran each step to its end: more than one means that the step was taken twice.
    pub(crate) calls: BTreeMap<String, BTreeSet<String>>,
}

pub(crate) fn read(directory: &Path) -> std::io::Result<Effects> {
    let mut effects = Effects::default();
    for path in files(directory) {
        for line in std::fs::read_to_string(&path)?.lines() {
            let words: Vec<_> = line.splitn(3, ' ').collect();
            match words[..] {
                ["begin", task, step] => {
                    effects.begun += 1;
                    effects
                        .calls
                        .entry(step.to_owned())
                        .or_default()
                        .insert(task.to_owned());
                }
                ["end", task, _] => {
                    effects.ended.insert(task.to_owned());
                }
                _ => {
                    let problem = format!("{}: not a line of effects: {line:?}", path.display());
                    return Err(std::io::Error::other(problem));
                }
            }
        }
    }
    Ok(effects)
}
