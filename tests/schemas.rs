//! The JSON Schemas in `schemas/` are those of the types, and what the types write is valid by them.

mod samples;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use leveret::Failure;
use leveret::replay::history::{HistoryEvent, TimeLimits, Turn};
use leveret::wire::{
    Bundle, CommandItem, CompletionItem, EventItem, Item, ProbeItem, RawStart, StartItem, TaskItem, TimerItem, WakeItem,
};
use schemars::{JsonSchema, Schema, schema_for};
use serde::Serialize;
use serde_json::{Value, json};

/// Set to write the files instead of comparing them.
const WRITE: &str = "LEVERET_WRITE_SCHEMAS";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas")
}

fn name_of<T: JsonSchema>() -> String {
    let mut name = String::new();
    for c in T::schema_name().chars() {
        if c.is_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.extend(c.to_lowercase());
    }
    name
}

/// Each file and what stands in it.
fn generated() -> BTreeMap<String, String> {
    fn add<T: JsonSchema>(files: &mut BTreeMap<String, String>, schema: Schema) {
        let text = serde_json::to_string_pretty(&schema).expect("a schema is JSON");
        files.insert(format!("{}.json", name_of::<T>()), text + "\n");
    }
    macro_rules! all {
        ($($root:ty),*) => {{
            let mut files = BTreeMap::new();
            $(add::<$root>(&mut files, schema_for!($root));)*
            files
        }};
    }
    all!(
        Bundle,
        StartItem,
        TaskItem,
        CompletionItem,
        EventItem,
        CommandItem,
        TimerItem,
        WakeItem,
        ProbeItem,
        RawStart,
        Turn,
        HistoryEvent,
        Failure
    )
}

#[test]
fn the_schema_files_are_those_of_the_types() {
    let (folder, files) = (folder(), generated());
    if std::env::var_os(WRITE).is_some() {
        std::fs::create_dir_all(&folder).expect("schemas/ can be made");
        for (name, text) in &files {
            std::fs::write(folder.join(name), text).expect("schemas/ can be written");
        }
    }
    let how = format!(
        "run `{WRITE}=1 cargo test --test schemas` and look at the difference: stored histories and other releases must still fit"
    );
    for (name, text) in &files {
        let stored = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert!(stored == *text, "schemas/{name} is not what the type gives: {how}");
    }
    for entry in std::fs::read_dir(&folder).expect("schemas/ is there") {
        let name = entry
            .expect("it can be listed")
            .file_name()
            .into_string()
            .expect("a plain name");
        assert!(
            files.contains_key(&name),
            "schemas/{name} belongs to no type: remove it"
        );
    }
}

fn schema<T: JsonSchema>() -> Value {
    let path = folder().join(format!("{}.json", name_of::<T>()));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).expect("a schema is JSON")
}

/// Checks each instance against the file of its type, and that it leaves nothing of the listed enums out.
fn check<T: JsonSchema + Serialize>(instances: &[T], enums: &[&str]) {
    let schema = schema::<T>();
    let validator = jsonschema::validator_for(&schema).expect("the schema is one");
    let mut words = BTreeSet::new();
    for instance in instances {
        let value = serde_json::to_value(instance).expect("it has a JSON form");
        if let Err(error) = validator.validate(&value) {
            panic!("{value:#} does not fit schemas/{}.json: {error}", name_of::<T>());
        }
        collect_words(&value, &mut words);
    }
    for name in enums {
        let definition = if *name == T::schema_name() {
            &schema
        } else {
            &schema["$defs"][name]
        };
        let variants = variants(definition);
        assert!(!variants.is_empty(), "{name} is an enum in the schema");
        for variant in variants {
            assert!(words.contains(&variant), "no instance of {name}::{variant} is checked");
        }
    }
}

fn collect_words(value: &Value, words: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => drop(words.insert(text.clone())),
        Value::Array(list) => list.iter().for_each(|value| collect_words(value, words)),
        Value::Object(fields) => {
            for (name, value) in fields {
                words.insert(name.clone());
                collect_words(value, words);
            }
        }
        _ => {}
    }
}

fn variants(definition: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let options = definition["oneOf"].as_array().into_iter().flatten();
    options
        .flat_map(|option| {
            let tags = option["required"].as_array().into_iter().flatten();
            let units = option["enum"].as_array().into_iter().flatten();
            tags.chain(units)
                .chain([&option["const"]])
                .filter_map(text)
                .collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn every_item_fits_its_schema_alone_and_in_a_bundle() {
    let mut fitting = BTreeSet::new();
    for item in samples::items() {
        fitting.insert(item.kind());
        match item {
            Item::Start(item) => check(&[item], &[]),
            Item::Task(item) => check(&[item], &[]),
            Item::Completion(item) => check(&[item], &[]),
            Item::Event(item) => check(&[item], &[]),
            Item::Command(item) => check(&[item], &[]),
            Item::Timer(item) => check(&[item], &[]),
            Item::Wake(item) => check(&[item], &[]),
            Item::Probe(item) => check(&[item], &[]),
        }
    }
    assert_eq!(fitting.len(), 8, "every kind of item: {fitting:?}");
    let bundle = Bundle::new(samples::items());
    assert_eq!(Bundle::decode(&bundle.encode()).expect("it can be read"), bundle);
    check(&[bundle], &["Item", "Outcome", "Command"]);
}

#[test]
fn every_history_event_fits_its_schema_alone_and_in_a_turn() {
    check(&samples::history(), &["HistoryEvent", "TimerPurpose", "Refused"]);
    let turn = samples::turn();
    assert_eq!(Turn::decode(&turn.encode()).expect("it can be read"), turn);
    check(&[turn], &["HistoryEvent"]);
    check(&[samples::failure()], &[]);
}

#[test]
fn time_limits_are_whole_milliseconds_in_history() {
    let limits = TimeLimits {
        timeout: Some(Duration::from_micros(1_500)),
        ..TimeLimits::default()
    };
    assert_eq!(
        serde_json::to_value(limits).expect("it is JSON"),
        json!({ "timeout": 2 })
    );
}

#[test]
fn ids_that_are_not_valid_do_not_fit_either() {
    let validator = jsonschema::validator_for(&schema::<WakeItem>()).expect("the schema is one");
    let fits = |app: &str, id: &str| validator.is_valid(&json!({ "instance": { "app": app, "id": id } }));
    assert!(fits("orders", "a b/ü"));
    for (app, id) in [
        ("a.b", "i"),
        ("-a", "i"),
        ("amq", "i"),
        ("", "i"),
        ("a", ""),
        ("a", "x\ny"),
        ("a", "\u{7f}"),
    ] {
        assert!(!fits(app, id), "{app:?} {id:?}");
    }
}

#[test]
fn the_raw_start_schema_accepts_and_refuses_what_the_reader_does() {
    let validator = jsonschema::validator_for(&schema::<RawStart>()).expect("the schema is one");
    let examples = [
        (
            true,
            json!({ "workflow": "checkout", "instance_id": "order-1", "input": { "n": 1.5 } }),
        ),
        (true, json!({ "workflow": "checkout" })),
        (
            true,
            json!({ "workflow": "w", "input": null, "instance_id": null, "start_at": null, "tags": null }),
        ),
        (
            true,
            json!({ "workflow": "w", "start_at": 1_790_000_000_000_u64, "tags": { "a": "b" } }),
        ),
        (
            true,
            json!({ "workflow": "x".repeat(255), "instance_id": "x".repeat(200) }),
        ),
        (false, json!({ "instance_id": "order-1" })),
        (false, json!({ "workflow": null })),
        (false, json!({ "workflow": "" })),
        (false, json!({ "workflow": 7 })),
        (false, json!({ "workflow": "x".repeat(256) })),
        (false, json!({ "workflow": "w", "instance_id": "" })),
        (false, json!({ "workflow": "w", "instance_id": "a\nb" })),
        (false, json!({ "workflow": "w", "instance_id": "x".repeat(201) })),
        (false, json!({ "workflow": "w", "start_at": -1 })),
        (false, json!({ "workflow": "w", "start_at": "soon" })),
        (false, json!({ "workflow": "w", "tags": { "a": 1 } })),
        (false, json!({ "workflow": "w", "colour": "red" })),
        (false, json!(["w"])),
    ];
    for (accepted, example) in examples {
        let read = RawStart::decode(example.to_string().as_bytes(), Some("application/json"), Some("m-1"));
        assert_eq!(read.is_ok(), accepted, "reader: {example}");
        assert_eq!(validator.is_valid(&example), accepted, "schema: {example}");
        if let Ok((start, ..)) = read {
            let written = serde_json::to_value(&start).expect("it is JSON");
            assert!(validator.is_valid(&written), "what is read can be written: {written}");
        }
    }
}
