//! The demo as a user runs it: the built binary.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A directory of this test's own, gone with it.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("leveret-demo-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    fn store(&self) -> PathBuf {
        self.0.join("demo.db")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leveret-demo"));
    command.env_remove("RUST_LOG");
    command
}

fn demo(store: &Path) -> Command {
    let mut command = binary();
    command.args(["demo", "--json", "--store"]).arg(store);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The lines of `--json`, by order.
fn lines(output: &Output) -> BTreeMap<String, Value> {
    let parse = |line: &str| {
        let value: Value = serde_json::from_str(line).expect("a line of JSON");
        (value["order"].as_str().expect("an order").to_owned(), value)
    };
    text(&output.stdout).lines().map(parse).collect()
}

/// What the sample says, whatever happened on the way.
fn assert_all_ended_as_the_orders_say(output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let lines = lines(output);
    assert_eq!(lines.len(), 12);
    for (order, line) in &lines {
        let (status, kind, booked): (&str, Value, Value) = match order.as_str() {
            "1004" => ("Failed", "CardDeclined".into(), serde_json::json!([])),
            "1007" => ("Failed", "NoCarrier".into(), serde_json::json!([2500, -2500])),
            "1009" => ("Failed", "Rejected".into(), serde_json::json!([])),
            "1011" => ("Failed", "OutOfStock".into(), serde_json::json!([])),
            _ => {
                let cents = line["output"]["receipt"]["cents"].clone();
                ("Completed", Value::Null, serde_json::json!([cents]))
            }
        };
        assert_eq!(line["status"], status, "{line}");
        assert_eq!(line["failure"]["kind"], kind, "{line}");
        // Nothing was charged twice, nothing was forgotten.
        assert_eq!(line["booked_cents"], booked, "{line}");
    }
    assert_eq!(lines["1003"]["activities"]["payments"]["charge"], 3);
    assert_eq!(lines["1007"]["activities"]["payments"]["refund"], 1);
    assert_eq!(
        lines["1001"]["activities"]["shipping"],
        serde_json::json!({"pack": 1, "book": 1})
    );
}

#[test]
fn a_demo_that_is_killed_in_the_middle_goes_on_where_it_was() {
    let place = Place::new("kill");
    let mut first = demo(&place.store())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let said = BufReader::new(first.stderr.take().expect("piped"))
        .lines()
        .map(|line| line.expect("a line"));
    let mut before: Vec<String> = Vec::new();
    for line in said {
        before.push(line);
        if before.last().is_some_and(|line| line.contains("Completed: ")) {
            break;
        }
    }
    first.kill().expect("SIGKILL");
    first.wait().expect("it is over");
    assert!(before.iter().any(|line| line.contains("Completed: ")), "{before:#?}");

    let second = demo(&place.store()).output().expect("it runs");
    let said = text(&second.stderr);
    let resumed = said
        .lines()
        .find(|line| line.starts_with("resuming: "))
        .unwrap_or_else(|| panic!("{said}"));
    let numbers: Vec<usize> = resumed.split(' ').filter_map(|word| word.parse().ok()).collect();
    assert!(
        numbers[0] >= 1 && numbers[1] == 12 && numbers[2] == 12 - numbers[0],
        "{resumed}"
    );
    assert_all_ended_as_the_orders_say(&second);

    let third = demo(&place.store()).output().expect("it runs");
    assert!(
        text(&third.stderr).contains("all 12 orders were already finished"),
        "{}",
        text(&third.stderr)
    );
    assert_all_ended_as_the_orders_say(&third);

    let history = binary()
        .args(["history", "1007", "--store"])
        .arg(place.store())
        .output()
        .expect("it runs");
    assert_eq!(history.status.code(), Some(0), "{}", text(&history.stderr));
    assert!(
        text(&history.stdout).contains("activity `refund` on app `payments`"),
        "{}",
        text(&history.stdout)
    );
}

#[test]
fn a_file_of_ones_own_is_taken_and_data_goes_to_stdout_alone() {
    let place = Place::new("own");
    let file = place.0.join("mine.json");
    let order =
        r#"[{"id": "a", "customer": "Me", "card": "0002", "country": "Here", "items": [{"sku": "x", "cents": 100}]}]"#;
    std::fs::write(&file, order).expect("written");
    let mut command = binary();
    let output = command
        .arg("demo")
        .arg(&file)
        .arg("--store")
        .arg(place.store())
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    assert!(
        table.starts_with("instance ") && table.contains("CardDeclined"),
        "{table}"
    );
    assert!(!table.contains('\x1b'), "colours in a pipe");

    // Begins anew.
    let output = demo(&place.store())
        .arg(&file)
        .arg("--fresh")
        .output()
        .expect("it runs");
    assert!(
        !text(&output.stderr).contains("already finished"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(lines(&output)["a"]["failure"]["kind"], "CardDeclined");
}

#[test]
fn a_wrong_use_ends_with_2_and_a_failure_with_1() {
    let place = Place::new("wrong");
    let bare = binary().output().expect("it runs");
    assert_eq!(bare.status.code(), Some(2));
    assert!(text(&bare.stderr).contains("cargo run --release -- demo"));

    let missing = demo(&place.store()).arg("no-such.json").output().expect("it runs");
    assert_eq!(missing.status.code(), Some(2));
    assert!(text(&missing.stderr).contains("no-such.json"));

    let not_a_store = place.0.join("notes.txt");
    std::fs::write(&not_a_store, "my notes").expect("written");
    let refused = demo(&not_a_store).arg("--fresh").output().expect("it runs");
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused.stderr));
    assert_eq!(std::fs::read_to_string(&not_a_store).expect("still there"), "my notes");
}
