//! What happened to one order, event by event, on all apps.

use leveret::client::Filter;
use leveret::replay::history::{HistoryEvent, Turn};
use leveret::{Client, Timestamp};

use crate::arguments::History;
use crate::host;
use crate::problem::Problem;

/// Prints the history of the order's instance, and of its shipment.
pub(crate) async fn show(arguments: History) -> Result<(), Problem> {
    let History { order, store, servers } = arguments;
    let backend = if servers {
        host::servers().await?
    } else if store.exists() {
        host::open(&store).await?
    } else {
        return Err(Problem::Usage(format!(
            "there is no {}: run the demo first, or name another with --store",
            store.display()
        )));
    };
    let client = Client::new(backend);
    let wanted = [order.clone(), format!("order-{order}")];
    let listed = client
        .list(Filter::app("orders").name("checkout"))
        .page_size(1000)
        .collect()
        .await?;
    // The newest, if the order was taken through several times.
    let found = listed.into_iter().rev().find(|instance| {
        let id = instance.instance.id.as_str();
        wanted.iter().any(|wanted| {
            id == wanted
                || id
                    .strip_prefix(wanted.as_str())
                    .is_some_and(|rest| rest.starts_with('.'))
        })
    });
    let Some(found) = found else {
        return Err(Problem::Usage(format!("there is no order {order} here")));
    };
    let handle = client.handle(found.instance.clone());
    let turns = handle.history().await?;
    let zero = turns.first().map(|turn| turn.at).unwrap_or_default();
    println!("{} ({}), workflow {}", found.instance, found.status, found.workflow);
    print(&turns, zero);
    for child in handle.children().await? {
        let Some(status) = child.status else { continue };
        println!(
            "\n{} ({status}), workflow {}, child of {}",
            child.instance, child.workflow, found.instance
        );
        print(&client.handle(child.instance).history().await?, zero);
    }
    let info = handle.get().await?;
    if info.waiting.total > 0 {
        println!("\nIt waits for:\n{}", info.waiting);
    }
    Ok(())
}

fn print(turns: &[Turn], zero: Timestamp) {
    for turn in turns {
        let at = format!("{:7.3} s  turn {:2}", turn.at.since(zero).as_secs_f64(), turn.version);
        for event in &turn.events {
            let arrow = if event.is_arrived() { "<-" } else { "->" };
            println!("{at}  {arrow} {}", words(event));
        }
    }
}

/// The event in words, with what it carries where that says more.
fn words(event: &HistoryEvent) -> String {
    let text = event.describe();
    match event {
        HistoryEvent::TaskFailed { failure, .. }
        | HistoryEvent::ChildFailed { failure, .. }
        | HistoryEvent::ExecutionFailed { failure } => {
            format!("{text}: {}", failure.message)
        }
        HistoryEvent::TaskCompleted { output, .. }
        | HistoryEvent::ChildCompleted { output, .. }
        | HistoryEvent::ExecutionCompleted { output } => format!("{text}: {}", carried(output)),
        HistoryEvent::EventRaised { payload, .. } => format!("{text}: {}", carried(payload)),
        _ => text,
    }
}

fn carried(payload: &leveret::Payload) -> String {
    const MOST: usize = 100;
    let text = String::from_utf8_lossy(payload.as_bytes());
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}
