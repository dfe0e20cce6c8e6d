//! The example service `orders`: it hosts the workflow that spans all three services, and keeps the stock.

use std::time::Duration;

use contracts::*;
use leveret::backend::Backend;
use leveret::{ActivityContext, Compensations, Failure, Result, Retry, Worker, WorkflowContext, all};

/// The worker of app `orders`.
pub fn worker(backend: Backend) -> Worker {
    Worker::new("orders", backend)
        .workflow(CHECKOUT, checkout)
        .activity(RESERVE, reserve)
        .activity(RELEASE, release)
        .activity(NOTIFY, notify)
}

/// Takes an order to its end, or undoes what was done.
///
/// # Errors
/// The failure of the step that could not be done, after the steps before it were undone.
pub async fn checkout(ctx: WorkflowContext, order: Order) -> Result<Summary> {
    let mut undo = Compensations::new();
    match purchase(&ctx, &order, &mut undo).await {
        Err(failure) if !undo.is_empty() => {
            ctx.set_custom_status(Stage::Undoing)?;
            Err(undo.run(failure).await)
        }
        ended => ended,
    }
}

async fn purchase(ctx: &WorkflowContext, order: &Order, undo: &mut Compensations) -> Result<Summary> {
    ctx.set_custom_status(Stage::Reserving)?;
    let reservation = ctx.call(RESERVE, order.clone()).await?;
    undo.push(ctx.call(RELEASE, reservation));

    if order.cents() >= LARGE_CENTS {
        ctx.set_custom_status(Stage::WaitingForApproval)?;
        approved(ctx).await?;
    }

    ctx.set_custom_status(Stage::Charging)?;
    let charge = Charge {
        order: order.id.clone(),
        card: order.card.clone(),
        cents: order.cents(),
    };
    let patience = Retry::times(5)
        .first(Duration::from_millis(400))
        .cap(Duration::from_secs(10));
    let receipt = ctx
        .call(CHARGE, charge)
        .retry(patience.clone())
        .timeout(Duration::from_secs(10))
        .await?;
    undo.push(ctx.call(REFUND, receipt.clone()).retry(Retry::forever()));

    ctx.set_custom_status(Stage::Shipping)?;
    let parcel = Parcel {
        order: order.id.clone(),
        country: order.country.clone(),
        items: order.items.len(),
    };
    let tracking = ctx
        .child(SHIP, parcel)
        .id(format!("ship-{}", ctx.instance_id()))
        .await?;

    ctx.set_custom_status(Stage::Closing)?;
    let points = order.cents() / 100;
    let text = format!("your order is on its way as {}", tracking.code);
    let told = ctx
        .call(
            NOTIFY,
            Notice {
                customer: order.customer.clone(),
                text,
            },
        )
        .retry(patience.clone());
    let booked = ctx
        .call(
            POINTS,
            Points {
                customer: order.customer.clone(),
                points,
            },
        )
        .retry(patience);
    all([told, booked]).await.into_iter().collect::<Result<()>>()?;
    Ok(Summary {
        receipt,
        tracking,
        points,
    })
}

/// Waits for a manager, for a day at most.
async fn approved(ctx: &WorkflowContext) -> Result<()> {
    match ctx.event(APPROVAL).within(Duration::from_secs(86_400)).await? {
        Some(Approval { is_approved: true, .. }) => Ok(()),
        Some(Approval { by, .. }) => Err(Failure::new("Rejected", format!("{by} did not approve the order"))),
        None => Err(Failure::new("Rejected", "nobody approved the order within a day")),
    }
}

/// Sets the stock aside. The reservation is named after the call, so that a second run of it is the same reservation.
async fn reserve(ctx: ActivityContext, order: Order) -> Result<Reservation> {
    tokio::time::sleep(Duration::from_millis(150)).await;
    if let Some(item) = order.items.iter().find(|item| item.sku == "unicorn") {
        return Err(Failure::new("OutOfStock", format!("there is no {} left", item.sku)).fatal());
    }
    Ok(Reservation {
        id: ctx.task_execution_id().to_string(),
    })
}

async fn release(_: ActivityContext, _: Reservation) -> Result<()> {
    tokio::time::sleep(Duration::from_millis(150)).await;
    Ok(())
}

async fn notify(_: ActivityContext, _: Notice) -> Result<()> {
    tokio::time::sleep(Duration::from_millis(120)).await;
    Ok(())
}
