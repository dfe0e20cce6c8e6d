//! What a worker says of itself while it starts, works and stops: by a call, and at its port.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use leveret::{Settings, Worker, Workflow};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use crate::between::{Call, with_store_behind};
use crate::harness::*;
use crate::programs::*;

const MAIN: Workflow<u64, u64> = Workflow::new("orders", "main");

/// What `/ready` answers, without its headers; `None` if nobody listens.
async fn ready(address: SocketAddr) -> Option<(String, String)> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = "GET /ready HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.to_owned(), body.to_owned()))
}

async fn wait_until_it_says(address: SocketAddr, status: &str, body: &str) {
    let said = Some((status.to_owned(), body.to_owned()));
    until(&format!("{status} {body:?}"), async || {
        (ready(address).await == said).then_some(())
    })
    .await;
}

pub(crate) async fn a_worker_is_ready_from_its_start_to_its_end_and_says_why_not(h: &impl Harness) {
    let stage = Stage::new(h).await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    // Its start waits for the store.
    let gate = Gate::new();
    let held = gate.clone();
    let backend = with_store_behind(&stage.backend, move |call: Call| {
        let gate = held.clone();
        Box::pin(async move {
            if call.method == "adopt_app" {
                gate.pass().await;
            }
        })
    });
    let (begun, end) = (Tally::new(), Gate::new());
    let worker = Worker::new("payments", backend)
        .settings(Settings {
            http: Some(address),
            shutdown_grace: PATIENCE,
            ..settings()
        })
        .activity(WORK, gated(&begun, &end));
    let starting = TaskTracker::new().spawn(worker.start());
    wait_until_it_says(address, "503", "not ready: the worker is still setting up its queues\n").await;
    gate.open();
    let worker = soon("the worker to start", starting).await.unwrap().unwrap();
    assert_eq!(worker.readiness(), Ok(()));
    wait_until_it_says(address, "200", "ready\n").await;

    // It stops while an activity still runs.
    let _orders = up(stage.worker("orders").workflow(MAIN, call_work)).await;
    let run = stage.client.start(MAIN, 7).await.unwrap();
    begun.reach(1).await;
    let stopping = TaskTracker::new().spawn(worker.stop());
    wait_until_it_says(address, "503", "not ready: the worker is stopping\n").await;
    end.open();
    soon("the worker to stop", stopping).await.unwrap();
    assert_eq!(done(&run).await, 7);
    until("nobody to listen any more", async || {
        tokio::time::timeout(Duration::from_secs(5), TcpStream::connect(address))
            .await
            .is_ok_and(|connected| connected.is_err())
            .then_some(())
    })
    .await;
}
