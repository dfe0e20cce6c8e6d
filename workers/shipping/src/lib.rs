//! The example service `shipping`: it hosts the child workflow that brings a parcel on its way.

use std::time::Duration;

use contracts::*;
use leveret::backend::Backend;
use leveret::{ActivityContext, Failure, Result, Retry, Worker, WorkflowContext};

/// The worker of app `shipping`.
pub fn worker(backend: Backend) -> Worker {
    Worker::new("shipping", backend)
        .workflow(SHIP, ship)
        .activity(PACK, pack)
        .activity(BOOK, book)
}

/// Packs the parcel, waits for the carrier's next round, hands it over.
///
/// # Errors
/// `NoCarrier` if nobody goes there.
pub async fn ship(ctx: WorkflowContext, parcel: Parcel) -> Result<Tracking> {
    ctx.call(PACK, parcel.clone()).await?;
    // Durable: a restart does not begin the wait anew.
    ctx.timer(Duration::from_millis(1200)).await?;
    ctx.call(BOOK, parcel)
        .retry(Retry::times(3).first(Duration::from_millis(300)))
        .await
}

async fn pack(_: ActivityContext, parcel: Parcel) -> Result<()> {
    tokio::time::sleep(Duration::from_millis(100) * u32::try_from(parcel.items)?).await;
    Ok(())
}

async fn book(_: ActivityContext, parcel: Parcel) -> Result<Tracking> {
    tokio::time::sleep(Duration::from_millis(200)).await;
    let Parcel { order, country, .. } = parcel;
    if country == "Atlantis" {
        return Err(Failure::new("NoCarrier", format!("no carrier goes to {country}")).fatal());
    }
    let prefix: String = country.chars().take(2).flat_map(char::to_uppercase).collect();
    Ok(Tracking {
        code: format!("{prefix}-{order}"),
    })
}
