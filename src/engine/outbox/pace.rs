//! How long activities take, as their results tell: only tasks that are known to be short share a message.
//!
//! A message is acknowledged as a whole, so a long body would hold up those that came with it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::model::{AppId, Map};
use crate::wire::{CompletionItem, TaskItem};

/// A body that takes no longer is short.
const SHORT: Duration = Duration::from_millis(20);
/// One that takes less than this is over at once.
const INSTANT: Duration = Duration::from_millis(1);
/// An activity that has once taken longer never shares a message again.
const LONG: Duration = Duration::from_secs(1);
/// So many short bodies in a row, and its tasks travel together.
const IN_A_ROW: u8 = 3;
/// Activities that are told apart; those beyond travel alone.
const KNOWN: usize = 4096;

/// See the module.
#[derive(Default)]
pub(super) struct Pace(Mutex<Map<AppId, Map<String, Tempo>>>);

#[derive(Clone, Copy)]
enum Tempo {
    /// Bodies in a row that were short, and of those the last that were over at once.
    Short(u8, u8),
    Long,
}

/// What tasks of an activity share messages with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Company {
    /// Each travels alone.
    None,
    /// Others that are short: as many as run soon in one worker.
    Few,
    /// Others that are over at once: as many as are worth their message.
    Many,
}

impl Pace {
    /// A result has come.
    pub(super) fn learn(&self, completion: &CompletionItem) {
        let Some(ran) = &completion.ran else { return };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = known.values().map(Map::len).sum::<usize>() >= KNOWN;
        let of_app = known.entry(completion.from.clone()).or_default();
        let tempo = match of_app.get_mut(&ran.activity) {
            Some(tempo) => tempo,
            None if is_full => return,
            None => of_app.entry(ran.activity.clone()).or_insert(Tempo::Short(0, 0)),
        };
        *tempo = match (*tempo, Duration::from_millis(ran.millis)) {
            (Tempo::Long, _) => Tempo::Long,
            (_, took) if took > LONG => Tempo::Long,
            (_, took) if took > SHORT => Tempo::Short(0, 0),
            (Tempo::Short(row, _), took) if took >= INSTANT => Tempo::Short(row.saturating_add(1), 0),
            (Tempo::Short(row, at_once), _) => Tempo::Short(row.saturating_add(1), at_once.saturating_add(1)),
        };
    }

    /// With what the task may share a message.
    pub(super) fn company(&self, task: &TaskItem) -> Company {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(&task.app).and_then(|of_app| of_app.get(&task.name)) {
            Some(Tempo::Short(_, at_once)) if *at_once >= IN_A_ROW => Company::Many,
            Some(Tempo::Short(row, _)) if *row >= IN_A_ROW => Company::Few,
            _ => Company::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::outbox::tests::{answer, task};
    use crate::wire::{Item, Ran};

    fn took(pace: &Pace, millis: u64) {
        let Item::Completion(completion) = answer(0, 1) else {
            panic!("it is one")
        };
        let ran = Some(Ran {
            activity: "work".into(),
            millis,
        });
        pace.learn(&CompletionItem { ran, ..completion });
    }

    #[test]
    fn tasks_share_messages_while_their_bodies_are_short_and_never_after_a_long_one() {
        let Item::Task(task) = task(0) else { panic!("it is one") };
        let pace = Pace::default();
        for (millis, company) in [
            (0, Company::None),
            (20, Company::None),
            (19, Company::Few),
            (0, Company::Few),
            (0, Company::Few),
            (0, Company::Many),
            (1, Company::Few),
            (0, Company::Few),
            (21, Company::None),
            (1, Company::None),
            (1, Company::None),
            (1, Company::Few),
            (1001, Company::None),
            (0, Company::None),
            (0, Company::None),
            (0, Company::None),
        ] {
            took(&pace, millis);
            assert_eq!(pace.company(&task), company, "{millis}");
        }
    }

    #[test]
    fn activities_are_told_apart_up_to_a_bound() {
        let pace = Pace::default();
        let Item::Completion(completion) = answer(0, 1) else {
            panic!("it is one")
        };
        for number in 0..KNOWN + 10 {
            let ran = Some(Ran {
                activity: format!("charge-{number}"),
                millis: 0,
            });
            pace.learn(&CompletionItem {
                ran,
                ..completion.clone()
            });
        }
        let known: usize = pace.0.lock().unwrap().values().map(Map::len).sum();
        assert_eq!(known, KNOWN);
    }
}
