use std::time::Duration;

use leveret::backend::Backend;
use leveret::{ActivityContext, Client, Failure, OnConflict, Result, Retry, Worker, WorkflowContext, shutdown_signal};

use contracts::*;

/// What both services know: names, types, and which app owns what. No logic.
mod contracts {
    use leveret::{Activity, Workflow};
    use serde::{Deserialize, Serialize};

    #[derive(Clone, Serialize, Deserialize)]
    pub struct Order {
        pub customer: String,
        pub book: String,
    }

    pub const ORDER: Workflow<Order, String> = Workflow::new("shop", "order");
    pub const TELL: Activity<String, ()> = Activity::new("shop", "tell");
    pub const PICK: Workflow<Order, u32> = Workflow::new("warehouse", "pick");
    pub const FETCH: Activity<String, u32> = Activity::new("warehouse", "fetch");
}

// --- The shop.

async fn order(ctx: WorkflowContext, order: Order) -> Result<String> {
    let shelf = ctx.child(PICK, order.clone()).await?;
    Ok(format!("{} for {} is on its way, from shelf {shelf}", order.book, order.customer))
}

async fn tell(_: ActivityContext, text: String) -> Result<()> {
    println!("[shop] tells: {text}");
    Ok(())
}

// --- The warehouse.

async fn pick(ctx: WorkflowContext, order: Order) -> Result<u32> {
    let shelf = ctx.call(FETCH, order.book.clone()).retry(Retry::times(5)).await?;
    ctx.call(TELL, format!("{}, we have {}", order.customer, order.book)).await?;
    ctx.timer(Duration::from_secs(10)).await?; // the van comes
    Ok(shelf)
}

async fn fetch(ctx: ActivityContext, book: String) -> Result<u32> {
    println!("[warehouse] fetches {book}, attempt {}", ctx.attempt());
    if ctx.attempt() == 1 {
        return Err(Failure::new("NoLadder", "somebody took the ladder"));
    }
    Ok(7)
}

// --- What a process is for is its argument.

#[tokio::main]
async fn main() -> Result<()> {
    let argument = |position, default: &str| std::env::args().nth(position).unwrap_or(default.into());
    let (role, id) = (argument(1, "both"), argument(2, "order-17"));
    let backend = Backend::from_env().await?;
    let client = Client::new(backend.clone());
    let shop = Worker::new("shop", backend.clone()).workflow(ORDER, order).activity(TELL, tell);
    let warehouse = Worker::new("warehouse", backend).workflow(PICK, pick).activity(FETCH, fetch);
    match role.as_str() {
        "shop" => shop.run_until(shutdown_signal()).await?,
        "warehouse" => warehouse.run_until(shutdown_signal()).await?,
        "order" => println!("{}", buy(client, id).await?),
        _ => {
            let (_shop, _warehouse) = (shop.start().await?, warehouse.start().await?);
            println!("{}", buy(client, id).await?);
        }
    }
    Ok(())
}

async fn buy(client: Client, id: String) -> Result<String> {
    let order = Order { customer: "Ada".into(), book: "Notes".into() };
    // The instance ID makes the order one order, however often this runs.
    let run = client.start(ORDER, order).id(id).policy(OnConflict::UseExisting).await?;
    Ok(run.result().await?)
}
