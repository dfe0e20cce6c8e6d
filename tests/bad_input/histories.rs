//! Stored turns: `Turn::decode`, and the replay of what was read.

use std::sync::LazyLock;

use leveret::replay::history::Turn;

use super::messages::{execution, fits, names_a_field, schema, spoil};
use super::runner::{Fate, play};
use super::samples;
use super::tree::Tree;

/// One turn for each event, behind a start, and one of all.
static VALID: LazyLock<Vec<(Vec<u8>, Tree)>> = LazyLock::new(|| {
    let whole = samples::turn();
    let of = |events| Turn {
        events,
        ..whole.clone()
    };
    let mut turns: Vec<_> = whole.events[1..]
        .iter()
        .map(|event| of(vec![whole.events[0].clone(), event.clone()]))
        .collect();
    turns.push(whole.clone());
    let encoded = turns.into_iter().map(|turn| turn.encode());
    encoded.map(|bytes| (bytes.to_vec(), Tree::read(&bytes))).collect()
});

#[test]
fn histories() {
    let validator = schema("turn.json");
    play("histories", |rng| {
        let valid = &VALID[rng.usize(..VALID.len())];
        let (bytes, is_whole) = spoil(rng, valid);
        let turn = match Turn::decode(&bytes) {
            Ok(turn) => turn,
            Err(problem) => {
                assert!(
                    names_a_field(&problem) || !is_whole,
                    "no field is named: {problem}\n{bytes:02x?}"
                );
                return Fate::Refused;
            }
        };
        let again = Turn::decode(&turn.encode()).expect("what is taken can be written and read");
        assert_eq!(again, turn);
        fits(&turn, &validator);
        // It replays, or stalls the instance with a reason; either is an answer.
        let mut execution = execution();
        if let Err(stuck) = execution.replay(&turn) {
            assert!(!stuck.message.is_empty());
            return Fate::Taken;
        }
        let mut decided = Vec::new();
        if execution.begin_turn(turn.at).is_ok() {
            for event in turn.events.iter().filter(|event| event.is_arrived()) {
                if execution.is_over() || execution.advance(event.clone(), &mut decided).is_err() {
                    break;
                }
            }
        }
        Fate::Taken
    });
}
