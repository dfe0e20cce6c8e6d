//! The example service `payments`: it stands before a bank that declines some cards and is out of reach at times.

mod ledger;

use std::time::Duration;

use contracts::*;
use leveret::backend::Backend;
use leveret::{ActivityContext, Failure, Result, Worker};

pub use ledger::{Entry, Ledger};

/// The worker of app `payments`, with the bank's ledger.
pub fn worker(backend: Backend, ledger: Ledger) -> Worker {
    let refunds = ledger.clone();
    Worker::new("payments", backend)
        .activity(CHARGE, move |ctx, order| charge(ctx, order, ledger.clone()))
        .activity(REFUND, move |ctx, receipt| refund(ctx, receipt, refunds.clone()))
        .activity(POINTS, points)
}

/// An activity runs at least once. The bank books a charge once all the same: it knows it by the call's ID, which is the same for every attempt and
/// for a run after a crash.
async fn charge(ctx: ActivityContext, charge: Charge, ledger: Ledger) -> Result<Receipt> {
    tokio::time::sleep(Duration::from_millis(250)).await;
    if charge.card.ends_with("0002") {
        return Err(Failure::new("CardDeclined", "the bank declined the card").fatal());
    }
    if charge.card.ends_with("0119") && ctx.attempt() <= 2 {
        return Err(Failure::new(
            "BankUnavailable",
            format!("the bank did not answer attempt {}", ctx.attempt()),
        ));
    }
    let id = ctx.task_execution_id().to_string();
    let cents = i64::try_from(charge.cents)?;
    ledger.book(Entry {
        id: id.clone(),
        order: charge.order.clone(),
        cents,
    })?;
    Ok(Receipt {
        id,
        order: charge.order,
        cents: charge.cents,
        attempt: ctx.attempt(),
    })
}

async fn refund(ctx: ActivityContext, receipt: Receipt, ledger: Ledger) -> Result<()> {
    tokio::time::sleep(Duration::from_millis(250)).await;
    let cents = -i64::try_from(receipt.cents)?;
    ledger.book(Entry {
        id: ctx.task_execution_id().to_string(),
        order: receipt.order,
        cents,
    })?;
    Ok(())
}

async fn points(_: ActivityContext, _: Points) -> Result<()> {
    tokio::time::sleep(Duration::from_millis(180)).await;
    Ok(())
}
