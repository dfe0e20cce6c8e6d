//! What may be left when everything is over: nothing but what lapses by itself.

use std::time::Duration;

use deadpool_redis::redis;
use leveret::client::Filter;
use leveret::{Client, Namespace};
use tokio::time::Instant;

use crate::inspect;
use crate::load::insist;
use crate::servers::Servers;

/// A check that a crash has left comes after some seconds, and again after twice as many.
const TIDY_WITHIN: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Waits until nothing is due, marked or on its way. Says what still is when the time is over.
pub(crate) async fn untidy(backend: &leveret::backend::Backend) -> Vec<String> {
    let began = Instant::now();
    loop {
        let left = inspect::untidy(backend).await;
        if left.is_empty() || began.elapsed() > TIDY_WITHIN {
            return left;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Deletes every instance. Says how many, or what does not let itself be deleted.
pub(crate) async fn purge_all(client: &Client) -> Result<u64, String> {
    let purge = || std::future::IntoFuture::into_future(client.purge(Filter::all_apps()));
    insist(purge).await.map_err(|error| error.to_string())
}

/// The keys of the namespace that are left though nothing else is: each that neither lapses by itself nor belongs to the apps.
pub(crate) async fn keys(servers: &Servers, namespace: &Namespace) -> redis::RedisResult<Vec<String>> {
    let mut connection = servers.redis().await?;
    let mut left = Vec::new();
    let mut cursor = 0_u64;
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor)
            .arg("MATCH")
            .arg(format!("lv:{{{namespace}*"))
            .arg("COUNT")
            .arg(1000);
        let (next, keys): (u64, Vec<Vec<u8>>) = scan.query_async(&mut connection).await?;
        for key in keys {
            let lapses: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut connection).await?;
            let key = String::from_utf8_lossy(&key).into_owned();
            if !may_stay(&key, lapses >= 0) {
                left.push(key);
            }
        }
        if next == 0 {
            return Ok(left);
        }
        cursor = next;
    }
}

/// Receipts and past outcomes until they lapse, and events whose copy came when their instance was purged: they wait for another of that ID. Which apps
/// there are stays for ever.
fn may_stay(key: &str, lapses: bool) -> bool {
    let part = key.rsplit_once("}:").map_or("", |(_, part)| part);
    match part {
        "apps" | "seen" => true,
        _ => lapses && (part == "inbox" || part.starts_with("receipt:") || part.starts_with("run:")),
    }
}
