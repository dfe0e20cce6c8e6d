//! What is told while the orders run: bars on a terminal, plain lines elsewhere. Always on stderr.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use leveret::Status;

use crate::outcome::Outcome;
use crate::paint;
use crate::plan::Plan;

/// With more orders than this, a line each would not fit on a screen.
const MOST_BARS: usize = 24;

/// See the module.
pub(crate) enum Progress {
    Bars {
        all: MultiProgress,
        total: ProgressBar,
        orders: HashMap<String, ProgressBar>,
        is_painted: bool,
    },
    Lines {
        began: Instant,
    },
}

impl Progress {
    pub(crate) fn new(plan: &Plan) -> Self {
        if !std::io::stderr().is_terminal() {
            return Progress::Lines { began: Instant::now() };
        }
        let all = MultiProgress::new();
        let mut orders = HashMap::new();
        if plan.orders.len() <= MOST_BARS {
            let style = ProgressStyle::with_template("{spinner} {prefix:26} {wide_msg}").expect("a valid template");
            for order in &plan.orders {
                let bar = all.add(
                    ProgressBar::new_spinner()
                        .with_style(style.clone())
                        .with_prefix(plan.instance_id(order)),
                );
                bar.set_message("");
                orders.insert(plan.instance_id(order), bar);
            }
        }
        let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} orders, {elapsed}").expect("a valid template");
        let total = all.add(ProgressBar::new(plan.orders.len() as u64).with_style(style));
        total.enable_steady_tick(Duration::from_millis(200));
        Progress::Bars {
            all,
            total,
            orders,
            is_painted: paint::wanted(true),
        }
    }

    /// A line about the whole.
    pub(crate) fn say(&self, text: &str) {
        match self {
            // Not println: it would be lost if it came before the first bar is drawn.
            Progress::Bars { all, .. } => all.suspend(|| eprintln!("{text}")),
            Progress::Lines { .. } => eprintln!("{text}"),
        }
    }

    /// What an order does now.
    pub(crate) fn stage(&self, id: &str, text: &str) {
        match self {
            Progress::Bars { orders, .. } => {
                if let Some(bar) = orders.get(id) {
                    bar.enable_steady_tick(Duration::from_millis(120));
                    bar.set_message(text.to_owned());
                }
            }
            Progress::Lines { began } => eprintln!("{:5.1} s  {id}  {text}", began.elapsed().as_secs_f32()),
        }
    }

    /// An order has come to its end.
    pub(crate) fn ended(&self, id: &str, outcome: &Outcome) {
        let words = outcome.words();
        match self {
            Progress::Bars {
                all,
                total,
                orders,
                is_painted,
            } => {
                let text = format!(
                    "{} {words}",
                    paint::status(outcome.status.as_str(), outcome.status, *is_painted)
                );
                match orders.get(id) {
                    Some(bar) => bar.finish_with_message(text),
                    None => all.suspend(|| eprintln!("{id}  {text}")),
                }
                total.inc(1);
            }
            Progress::Lines { began } => {
                eprintln!(
                    "{:5.1} s  {id}  {}: {words}",
                    began.elapsed().as_secs_f32(),
                    outcome.status
                );
            }
        }
    }

    /// An order had come to its end before this process began.
    pub(crate) fn ended_before(&self, id: &str, status: Status) {
        if let Progress::Bars {
            total,
            orders,
            is_painted,
            ..
        } = self
        {
            if let Some(bar) = orders.get(id) {
                bar.finish_with_message(format!(
                    "{} before",
                    paint::status(status.as_str(), status, *is_painted)
                ));
            }
            total.inc(1);
        }
    }

    /// Nothing more will be told.
    pub(crate) fn end(&self) {
        if let Progress::Bars { total, orders, .. } = self {
            for bar in orders.values().filter(|bar| !bar.is_finished()) {
                bar.abandon();
            }
            total.finish_and_clear();
            // The cursor stands behind the last bar.
            eprintln!();
        }
    }
}
