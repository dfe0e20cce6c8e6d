//! Envelopes and items: `Bundle::decode`, and what an execution makes of an item that was taken.

use std::sync::{Arc, LazyLock};

use fastrand::Rng;
use leveret::replay::{Code, CodeFuture, Execution};
use leveret::wire::{Bundle, DecodeError, Item, Outcome};
use leveret::{ExecutionId, Limits, Payload, WorkflowContext};

use super::runner::{Fate, play};
use super::tree::Tree;
use super::{bytes, samples};

/// One bundle for each item, and one of all.
static VALID: LazyLock<Vec<(Vec<u8>, Tree)>> = LazyLock::new(|| {
    let mut bundles: Vec<_> = samples::items().into_iter().map(|item| vec![item]).collect();
    bundles.push(samples::items());
    let encoded = bundles.into_iter().map(|items| Bundle::new(items).encode());
    encoded.map(|bytes| (bytes.to_vec(), Tree::read(&bytes))).collect()
});

pub(crate) fn schema(name: &str) -> jsonschema::Validator {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("schemas")
        .join(name);
    let text = std::fs::read_to_string(path).expect("the schema is there");
    jsonschema::validator_for(&serde_json::from_str(&text).expect("a schema is JSON")).expect("the schema is one")
}

/// What is taken has a JSON form, which fits the schema. (A user's value may be nested deeper, or hold a number larger,
/// than serde_json reads: Leveret does not read it.)
pub(crate) fn fits(taken: &impl serde::Serialize, validator: &jsonschema::Validator) {
    let text = serde_json::to_vec(taken).expect("what is taken has a JSON form");
    match serde_json::from_slice::<serde_json::Value>(&text) {
        Ok(json) => {
            if let Err(problem) = validator.validate(&json) {
                panic!("what is taken does not fit the schema: {problem}\n{json}");
            }
        }
        Err(problem) => {
            let text = problem.to_string();
            assert!(
                text.contains("recursion limit") || text.contains("number out of range"),
                "{text}"
            );
        }
    }
}

/// Bytes to read, and whether they are whole MessagePack, so that a refusal can name a field.
pub(crate) fn spoil(rng: &mut Rng, (encoded, tree): &(Vec<u8>, Tree)) -> (Vec<u8>, bool) {
    match rng.u8(0..8) {
        0 => (bytes::random(rng), false),
        1..3 => {
            let mut changed = encoded.clone();
            bytes::change(rng, &mut changed);
            (changed, false)
        }
        _ => {
            let mut changed = tree.clone();
            changed.change(rng);
            (changed.pack(), true)
        }
    }
}

/// A refusal of something that is whole says where the fault is; the outermost value is no field.
pub(crate) fn names_a_field(problem: &str) -> bool {
    ["field `", "the outermost value: ", "wire version"]
        .iter()
        .any(|place| problem.contains(place))
}

fn payloads(item: &Item) -> Vec<&Payload> {
    match item {
        Item::Task(task) => vec![&task.input],
        Item::Event(event) => vec![&event.payload],
        Item::Completion(completion) => match &completion.outcome {
            Outcome::Completed(output) => vec![output],
            Outcome::Failed(failure) => {
                let chain = std::iter::successors(Some(failure), |failure| failure.cause.as_deref());
                chain.filter_map(|failure| failure.details.as_ref()).collect()
            }
        },
        _ => Vec::new(),
    }
}

/// Waits for ever.
struct Endless;

impl Code for Endless {
    fn begin(&self, _: WorkflowContext, _: Payload) -> CodeFuture {
        Box::pin(std::future::pending())
    }
}

/// An execution of the instance that the samples are for.
pub(crate) fn execution() -> Execution {
    let id: ExecutionId = uuid::Uuid::from_u128(1).into();
    let instance = samples::items()[0].instance().expect("a start has one").clone();
    Execution::new(instance, id, Arc::new(Endless), &Limits::default())
}

#[test]
fn bundles() {
    let validator = schema("bundle.json");
    play("bundles", |rng| {
        let valid = &VALID[rng.usize(..VALID.len())];
        let (body, is_whole) = spoil(rng, valid);
        let bundle = match Bundle::decode(&body) {
            Ok(bundle) => bundle,
            Err(problem) => {
                let text = problem.to_string();
                let is_named = !matches!(problem, DecodeError::Malformed(_)) || names_a_field(&text);
                assert!(is_named || !is_whole, "no field is named: {text}\n{body:02x?}");
                return Fate::Refused;
            }
        };
        let again = Bundle::decode(&bundle.encode()).expect("what is taken can be written and read");
        assert_eq!(again, bundle);
        fits(&bundle, &validator);
        let execution = execution();
        for item in &bundle.items {
            assert!(
                payloads(item)
                    .into_iter()
                    .all(|payload| payload.decode::<serde::de::IgnoredAny>().is_ok())
            );
            execution.examine(item);
            assert!(!format!("{} {:?}", item.kind(), item).is_empty());
        }
        Fate::Taken
    });
}
