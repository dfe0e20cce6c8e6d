//! How a start behaves while servers are away, or refuse.

use std::net::{Ipv4Addr, SocketAddr};

use leveret::Namespace;
use leveret::backend::{RabbitMqConfig, RedisConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::*;
use crate::log::Log;

const PATIENCE: Duration = Duration::from_secs(60);

fn url(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run the tests with tests/run, which starts the servers"))
}

fn namespace() -> String {
    format!("t{}", uuid::Uuid::new_v4().simple())
}

/// An address where nobody listens now.
async fn free() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    listener.local_addr().expect("bound")
}

/// The `host:port` of a URL.
fn host_of(url: &str) -> String {
    let rest = url.split_once("://").expect("a URL").1;
    let authority = rest.split('/').next().expect("a host");
    authority.rsplit('@').next().expect("a host").to_owned()
}

/// Forwards what comes to this address until it is dropped.
async fn relay(address: SocketAddr, server: String) -> AbortOnDropHandle<()> {
    let listener = TcpListener::bind(address).await.expect("the port is still free");
    AbortOnDropHandle::new(TaskTracker::new().spawn(async move {
        let tasks = TaskTracker::new();
        while let Ok((mut client, _)) = listener.accept().await {
            let server = server.clone();
            tasks.spawn(async move {
                let mut server = TcpStream::connect(server).await.expect("the server is there");
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    }))
}

/// Status and body, or `None` if nobody listens.
async fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
}

#[tokio::test]
async fn a_broker_that_is_away_is_waited_for_and_the_process_is_live_and_not_ready() {
    let (amqp, redis) = (url("LEVERET_TEST_AMQP_URL"), url("LEVERET_TEST_REDIS_URL"));
    let (away, health) = (free().await, free().await);
    let server = host_of(&amqp);
    let config = read(&[
        ("LEVERET_AMQP_URL", &amqp.replace(&server, &away.to_string())),
        ("LEVERET_REDIS_URL", &redis),
        ("LEVERET_NAMESPACE", &namespace()),
        ("LEVERET_HTTP", &health.to_string()),
        ("LEVERET_LANES", "3"),
    ]);
    let opening = AbortOnDropHandle::new(TaskTracker::new().spawn(Backend::open(config)));
    let expected = format!("not ready: not connected to the broker at amqp://{away}/%2f");
    let waiting = async {
        while !matches!(get(health, "/ready").await, Some((503, reason)) if reason.starts_with(&expected)) {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("a reason");
    assert_eq!(get(health, "/live").await, Some((200, "live\n".into())));
    assert!(!opening.is_finished());

    let _relay = relay(away, server).await;
    let backend = timeout(PATIENCE, opening)
        .await
        .expect("connected")
        .expect("no panic")
        .expect("a backend");
    assert_eq!(get(health, "/ready").await, Some((200, "ready\n".into())));
    assert_eq!(backend.settings().lanes, 3);

    // A worker on it joins the same port, and its leaving leaves it open.
    let worker = leveret::Worker::new("orders", backend.clone())
        .start()
        .await
        .expect("started");
    assert_eq!(get(health, "/ready").await, Some((200, "ready\n".into())));
    worker.stop().await;
    assert_eq!(get(health, "/live").await, Some((200, "live\n".into())));
}

#[tokio::test]
async fn a_refusal_is_told_at_once_even_while_the_other_server_is_away() {
    let (amqp, away) = (url("LEVERET_TEST_AMQP_URL"), free().await);
    let redis = format!("redis://{away}/");
    assert!(
        amqp.contains("%2f"),
        "the tests expect the virtual host / in LEVERET_TEST_AMQP_URL"
    );
    let amqp = amqp.replace("%2f", "nowhere");
    let config = read(&[
        ("LEVERET_AMQP_URL", &amqp),
        ("LEVERET_REDIS_URL", &redis),
        ("LEVERET_NAMESPACE", &namespace()),
    ]);
    let error = timeout(PATIENCE, Backend::open(config))
        .await
        .expect("it ends")
        .expect_err("refused");
    assert!(error.is_permanent());
    assert!(error.to_string().contains("virtual host \"nowhere\""), "{error}");
}

#[tokio::test]
async fn broker_and_store_have_to_be_of_one_namespace() {
    let named = |name| Namespace::new(name).expect("a valid name");
    let rabbit = RabbitMqConfig::new("amqp://localhost", named("shop"));
    let error = Backend::servers(rabbit, RedisConfig::new("redis://localhost", named("stop")))
        .await
        .expect_err("refused");
    assert!(error.is_permanent());
    assert!(
        error.to_string().contains("namespace shop") && error.to_string().contains("namespace stop"),
        "{error}"
    );
}

/// The lines that tell of another try, and how long is waited for it, in seconds.
fn tries(log: &Log) -> Vec<(String, f64)> {
    let before = "; trying again in ";
    let wait = |line: &str| -> Option<f64> { line.split_once(before)?.1.strip_suffix(" s")?.parse().ok() };
    let lines = log.lines(before).into_iter();
    lines.filter_map(|line| wait(&line).map(|wait| (line, wait))).collect()
}

#[tokio::test]
async fn a_redis_that_is_away_is_waited_for_longer_and_longer_with_a_line_each_time() {
    let (amqp, redis) = (url("LEVERET_TEST_AMQP_URL"), url("LEVERET_TEST_REDIS_URL"));
    let (away, health) = (free().await, free().await);
    let server = host_of(&redis);
    let config = read(&[
        ("LEVERET_AMQP_URL", &amqp),
        ("LEVERET_REDIS_URL", &redis.replace(&server, &away.to_string())),
        ("LEVERET_NAMESPACE", &namespace()),
        ("LEVERET_HTTP", &health.to_string()),
    ]);
    let log = Log::default();
    log.hear_this_thread();
    // On this thread too.
    let mut opening = Box::pin(Backend::open(config));
    let waiting = async {
        loop {
            let is_told =
                matches!(get(health, "/ready").await, Some((503, reason)) if reason.contains(&away.to_string()));
            if is_told && tries(&log).len() >= 4 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        opened = &mut opening => panic!("Redis is away: {opened:?}"),
        waited = timeout(PATIENCE, waiting) => waited.expect("four tries"),
    }
    let tries = tries(&log);
    for (line, _) in &tries {
        assert!(line.contains("WARN") && line.contains(&away.to_string()), "{line}");
    }
    let waits: Vec<f64> = tries.iter().map(|(_, wait)| *wait).collect();
    // The first around a quarter of a second, from the third on a second and up to as much by chance.
    assert!(waits[0] < 0.6 && waits[0] < waits[2] && waits[2] >= 0.9, "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= 2.1), "{waits:?}");

    let _relay = relay(away, server).await;
    timeout(PATIENCE, opening).await.expect("connected").expect("a backend");
}

#[tokio::test]
async fn wrong_credentials_of_redis_end_the_start_at_once_and_are_not_shown() {
    let (redis, away) = (url("LEVERET_TEST_REDIS_URL"), free().await);
    let config = read(&[
        ("LEVERET_AMQP_URL", &format!("amqp://guest:guest@{away}/%2f")),
        (
            "LEVERET_REDIS_URL",
            &redis.replace("redis://", "redis://nobody:s3cret@"),
        ),
        ("LEVERET_NAMESPACE", &namespace()),
    ]);
    let error = timeout(PATIENCE, Backend::open(config))
        .await
        .expect("it ends")
        .expect_err("refused");
    assert!(error.is_permanent());
    let told = format!("{error} {error:?}");
    assert!(
        told.contains("Redis") && told.contains("user name or password"),
        "{told}"
    );
    assert!(told.contains(&host_of(&redis)) && !told.contains("s3cret"), "{told}");
}
