//! Ids: what their constructors take is what the docs and the schemas say, no more and no less.

use fastrand::Rng;
use leveret::{AppId, BuildId, ExecutionId, IdError, InstanceId, InstanceRef, MessageId, Namespace, derived_child_id};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::bytes;
use super::runner::{Fate, play};

/// The rule of namespaces and app IDs, said once more.
fn is_name(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric();
    text.len() <= 63
        && text != "amq"
        && text.starts_with(is_word)
        && text.chars().all(|c| is_word(c) || c == '-' || c == '_')
}

/// The rule of the others.
fn is_printable(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn check<T>(text: &str, made: Result<T, IdError>, is_right: bool, validator: &jsonschema::Validator) -> Fate
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug + std::fmt::Display,
{
    let json = serde_json::to_value(text).unwrap();
    let read: Result<T, _> = serde_json::from_value(json.clone());
    let Ok(id) = made else {
        let problem = made.unwrap_err().to_string();
        assert!(!is_right, "{text:?} is refused: {problem}");
        assert!(
            read.is_err(),
            "{text:?} is refused by its constructor and read all the same"
        );
        assert!(
            problem.contains(" ID \"") || problem.contains("namespace \""),
            "what and which: {problem}"
        );
        assert!(problem.len() < 300, "no message repeats all of a long value: {problem}");
        return Fate::Refused;
    };
    assert!(is_right, "{text:?} is taken");
    assert_eq!(id.to_string(), text);
    assert_eq!(read.unwrap(), id);
    let packed = rmp_serde::to_vec_named(&id).unwrap();
    assert_eq!(rmp_serde::from_slice::<T>(&packed).unwrap(), id);
    assert!(validator.is_valid(&json), "{text:?} does not fit the schema");
    Fate::Taken
}

fn schema<T: schemars::JsonSchema>() -> jsonschema::Validator {
    jsonschema::validator_for(schemars::schema_for!(T).as_value()).expect("the schema is one")
}

#[test]
fn ids() {
    let (names, apps) = (schema::<Namespace>(), schema::<AppId>());
    let (instances, messages, builds) = (schema::<InstanceId>(), schema::<MessageId>(), schema::<BuildId>());
    play("ids", |rng| {
        let text = random(rng);
        let text = text.as_str();
        match rng.u8(0..7) {
            0 => check(text, Namespace::new(text), is_name(text), &names),
            1 => check(text, AppId::new(text), is_name(text), &apps),
            2 => check(text, MessageId::new(text), is_printable(text, 255), &messages),
            3 => check(text, BuildId::new(text), is_printable(text, 128), &builds),
            4 => {
                assert_eq!(InstanceId::chosen(text).is_ok(), is_printable(text, 200), "{text:?}");
                let fate = check(text, InstanceId::new(text), is_printable(text, 1024), &instances);
                if let Ok(parent) = InstanceId::new(text) {
                    let child = derived_child_id(&parent, rng.u64(..));
                    assert!(InstanceId::new(child.as_str()).is_ok(), "{child:?}");
                    assert_ne!(child, parent);
                }
                fate
            }
            5 => match text.parse::<ExecutionId>() {
                Ok(id) => {
                    assert_eq!(id.to_string().parse::<ExecutionId>().unwrap(), id);
                    Fate::Taken
                }
                Err(problem) => {
                    assert!(problem.to_string().contains("ExecutionId"), "{problem}");
                    Fate::Refused
                }
            },
            _ => {
                let packed = bytes::random(rng);
                match rmp_serde::from_slice::<InstanceRef>(&packed) {
                    Ok(instance) => {
                        assert!(is_name(instance.app.as_str()) && is_printable(instance.id.as_str(), 1024));
                        Fate::Taken
                    }
                    Err(_) => Fate::Refused,
                }
            }
        }
    });
}

/// Text, or what has nearly the form of an ID.
fn random(rng: &mut Rng) -> String {
    match rng.u8(0..4) {
        0 => {
            let length = rng.usize(1..70);
            std::iter::repeat_with(|| rng.alphanumeric()).take(length).collect()
        }
        1 => {
            let mut digits = format!("{:032x}", rng.u128(..));
            let at = rng.usize(..digits.len());
            match rng.u8(0..4) {
                0 => digits.replace_range(at..at + 1, &bytes::text(rng)),
                1 => digits.truncate(at),
                2 => digits.insert(at, '-'),
                _ => {}
            }
            digits
        }
        _ => bytes::text(rng),
    }
}
