//! What a worker says at its health port while its servers go and come back.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use leveret::{Settings, Worker};

use super::apps::LANES;
use super::servers::Servers;
use super::soon::{PATIENCE, soon};

/// An address that nobody listens at.
fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}

/// Status and body.
fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("somebody listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n").expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    let status = answer.split(' ').nth(1).expect("a status").parse().expect("a number");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    (status, body.to_owned())
}

fn wait_until_ready(address: SocketAddr) {
    soon("the worker to be ready", PATIENCE, || {
        (get(address, "/ready") == (200, "ready\n".into())).then_some(())
    });
}

/// The reason must name the server.
fn wait_until_not_ready(address: SocketAddr, server: &str) {
    soon(&format!("not ready, for {server}"), PATIENCE, || {
        let (status, body) = get(address, "/ready");
        (status == 503 && body.starts_with("not ready: ") && body.contains(server)).then_some(())
    });
    assert_eq!(
        get(address, "/live"),
        (200, "live\n".into()),
        "it waits, and is not to be killed for that"
    );
}

#[test]
fn a_worker_is_not_ready_while_one_of_its_servers_is_away_and_says_which() {
    let servers = Servers::start();
    let place = servers.place();
    let (amqp, redis) = place.hosts();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let address = free();
    let worker = runtime.block_on(async {
        let settings = Settings {
            lanes: LANES,
            http: Some(address),
            ..Settings::default()
        };
        let worker = Worker::new("orders", place.open().await).settings(settings);
        worker.start().await.expect("started")
    });
    wait_until_ready(address);
    for (server, host) in [("broker", &amqp), ("redis", &redis)] {
        for end in ["stop", "kill"] {
            servers.tell(&format!("{end}-{server}"));
            wait_until_not_ready(address, host);
            let reason = worker.readiness().expect_err("the call says so too");
            assert!(reason.contains(host.as_str()), "{reason}");
            servers.tell(&format!("start-{server}"));
            wait_until_ready(address);
            assert_eq!(worker.readiness(), Ok(()));
        }
    }
    servers.tell("kill-redis");
    servers.tell("kill-broker");
    wait_until_not_ready(address, &amqp);
    servers.tell("start-broker");
    wait_until_not_ready(address, &redis);
    servers.tell("start-redis");
    wait_until_ready(address);
    runtime.block_on(worker.stop());
}
