//! The outcomes as a table for people and as JSON lines for programs.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;
use std::time::Duration;

use leveret::Failure;
use payments::Entry;
use serde_json::{Value, json};

use crate::outcome::Outcome;
use crate::paint;

const APPS: [&str; 3] = ["orders", "payments", "shipping"];

/// One line an order, in columns.
pub(crate) fn for_people(outcomes: &[Outcome], is_painted: bool) -> String {
    let mut rows = vec![
        [
            "instance",
            "status",
            "took",
            "orders did",
            "payments did",
            "shipping did",
            "outcome",
        ]
        .map(String::from),
    ];
    rows.extend(outcomes.iter().map(|outcome| {
        let [orders, payments, shipping] = APPS.map(|app| did(outcome, app));
        let took = outcome.took.map(seconds).unwrap_or_default();
        [
            outcome.instance.id.to_string(),
            outcome.status.to_string(),
            took,
            orders,
            payments,
            shipping,
            outcome.words(),
        ]
    }));
    let mut widths = [0; 7];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            let cell = format!("{cell:width$}");
            line += &match (column, number.checked_sub(1).map(|position| outcomes[position].status)) {
                (1, Some(status)) => paint::status(&cell, status, is_painted),
                _ => cell,
            };
            line += "  ";
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// What an app did for an order: `charge×3 points`.
fn did(outcome: &Outcome, app: &str) -> String {
    let calls = outcome.calls.iter().filter(|called| called.app == app);
    let shown: Vec<String> = calls
        .map(|called| match called.times {
            1 => called.name.clone(),
            times => format!("{}×{times}", called.name),
        })
        .collect();
    shown.join(" ")
}

fn seconds(took: Duration) -> String {
    format!("{:.1} s", took.as_secs_f32())
}

/// One JSON object a line.
pub(crate) fn json_lines(outcomes: &[Outcome], entries: Option<&[Entry]>) -> String {
    let line = |outcome: &Outcome| {
        let mut apps: BTreeMap<&str, BTreeMap<&str, u32>> = BTreeMap::new();
        for called in &outcome.calls {
            apps.entry(&called.app).or_default().insert(&called.name, called.times);
        }
        let booked: Option<Vec<i64>> = entries.map(|entries| {
            let of_order = entries.iter().filter(|entry| entry.order == outcome.order);
            of_order.map(|entry| entry.cents).collect()
        });
        let value = json!({
            "order": outcome.order,
            "instance": outcome.instance.to_string(),
            "status": outcome.status,
            "took_ms": outcome.took.map(|took| took.as_millis() as u64),
            "activities": apps,
            "shipment": outcome.shipment.as_ref().map(ToString::to_string),
            "output": outcome.output,
            "failure": outcome.failure.as_ref().map(failure),
            "outcome": outcome.words(),
            "booked_cents": booked,
        });
        format!("{value}\n")
    };
    outcomes.iter().map(line).collect()
}

fn failure(failure: &Failure) -> Value {
    json!({ "kind": failure.kind, "message": failure.message, "app": failure.app })
}

/// The bank's side in one line.
pub(crate) fn ledger(entries: &[Entry]) -> String {
    let refunds = entries.iter().filter(|entry| entry.cents < 0).count();
    let charges = entries.len() - refunds;
    let mut seen = HashSet::new();
    let twice = entries
        .iter()
        .filter(|entry| !seen.insert((&entry.order, entry.cents < 0)))
        .count();
    let refunds = if refunds == 1 {
        "1 refund".into()
    } else {
        format!("{refunds} refunds")
    };
    format!("\nThe bank's ledger: {charges} charges, {refunds}, {twice} booked twice.")
}
