//! What the outbox knows of items: how much room one takes, and what stands in for one that takes too much.

use crate::backend::{Error, Queue};
use crate::model::{Failure, kinds};
use crate::wire::{CompletionItem, Item, Outcome};

/// What goes out in place of an item that is too large, and where to: the failure of its call.
pub(super) fn stand_in(queue: &Queue, item: Item, error: &Error) -> Option<(Queue, Item)> {
    let failure = || Failure::new(kinds::PAYLOAD_TOO_LARGE, error.to_string()).fatal();
    match item {
        Item::Task(task) => {
            let queue = Queue::Events(task.caller.instance.app.clone(), task.reply_to);
            let completion = CompletionItem {
                task: task.caller,
                task_execution_id: Some(task.task_execution_id),
                from: task.app,
                outcome: Outcome::Failed(failure()),
                progressed: false,
                ran: None,
            };
            Some((queue, Item::Completion(completion)))
        }
        Item::Completion(completion) => {
            let failure = failure().at(&completion.from);
            let completion = CompletionItem {
                outcome: Outcome::Failed(failure),
                ..completion
            };
            Some((queue.clone(), Item::Completion(completion)))
        }
        _ => None,
    }
}

/// Roughly the item's size as bytes: payloads and a constant.
pub(super) fn weight(item: &Item) -> usize {
    const REST: usize = 200;
    REST + match item {
        Item::Task(task) => task.input.len(),
        Item::Event(event) => event.payload.len(),
        Item::Completion(completion) => match &completion.outcome {
            Outcome::Completed(output) => output.len(),
            Outcome::Failed(failure) => failure.bytes(),
        },
        _ => 0,
    }
}
