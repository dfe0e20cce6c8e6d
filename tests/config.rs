//! Configuration: what the environment may say, and how a start behaves while servers are away or refuse.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use leveret::Settings;
use leveret::backend::{Backend, Retryable};
use leveret::config::{Config, Place, Servers, variables};

type Given<'a> = &'a [(&'a str, &'a str)];

fn read(given: Given<'_>) -> Config {
    Config::read(given.iter().copied()).expect("a right configuration")
}

fn problems(given: Given<'_>) -> Vec<String> {
    let error = Config::read(given.iter().copied()).expect_err("refused");
    assert_eq!(error.to_string(), error.problems().join("\n"));
    error.problems().to_vec()
}

fn servers(given: Given<'_>) -> Servers {
    match read(given).place {
        Place::Servers(servers) => servers,
        Place::File(path) => panic!("a file at {}", path.display()),
    }
}

const AMQP: (&str, &str) = ("LEVERET_AMQP_URL", "amqp://me:s3cret@rabbit:5672/%2f");
const REDIS: (&str, &str) = ("LEVERET_REDIS_URL", "redis://:s3cret@redis:6379/0");

#[test]
fn an_empty_environment_is_an_embedded_file_with_the_defaults() {
    let config = read(&[("PATH", "/bin"), ("LEVERET_AMQP_URL", ""), ("LEVERET_LANES", " ")]);
    assert!(matches!(&config.place, Place::File(path) if path == Path::new("leveret.db")));
    assert_eq!(config.namespace.as_str(), "default");
    assert_eq!(format!("{:?}", config.settings), format!("{:?}", Settings::default()));
    assert!(config.warnings.is_empty());
}

#[test]
fn values_reach_their_settings() {
    let config = read(&[
        ("LEVERET_FILE", "/var/lib/shop.db"),
        ("LEVERET_NAMESPACE", "shop"),
        ("LEVERET_ACTIVITIES", "8\n"),
        ("LEVERET_WORKER_HEARTBEAT", "250ms"),
        ("LEVERET_DELIVERY_TIMEOUT", "2h"),
        ("LEVERET_HTTP", "0.0.0.0:8080"),
        ("LEVERET_PAYLOAD_BYTES", "64MiB"),
        ("LEVERET_CACHE_BYTES", "65536"),
        ("LEVERET_RETENTION_COMPLETED", "1d"),
        ("LEVERET_RETENTION_FAILED", "OFF"),
    ]);
    assert!(matches!(&config.place, Place::File(path) if path == Path::new("/var/lib/shop.db")));
    let settings = config.settings;
    assert_eq!(settings.activities, 8);
    assert_eq!(settings.heartbeat, Duration::from_millis(250));
    assert_eq!(settings.delivery_timeout, Duration::from_secs(7200));
    assert_eq!(settings.http, "0.0.0.0:8080".parse().ok());
    assert_eq!(
        (settings.limits.payload_bytes, settings.limits.cache_bytes),
        (64 << 20, 65_536)
    );
    assert_eq!(settings.retention.completed, Some(Duration::from_secs(86_400)));
    assert_eq!(
        (settings.retention.failed, settings.retention.terminated),
        (None, Some(Duration::from_secs(30 * 86_400)))
    );
}

#[test]
fn both_urls_are_servers() {
    let servers = servers(&[
        AMQP,
        REDIS,
        ("LEVERET_QUEUE_TYPE", "Classic"),
        ("LEVERET_AMQP_HEARTBEAT", "5s"),
    ]);
    assert_eq!(servers.queue_type, leveret::QueueType::Classic);
    assert_eq!(servers.amqp_heartbeat, Duration::from_secs(5));
    assert!(!format!("{servers:?}").contains("s3cret"));
}

#[test]
fn every_wrong_value_is_named_with_what_would_be_right() {
    let problems = problems(&[
        ("LEVERET_RETENTION_COMPLETED", "never"),
        ("LEVERET_QUEUE_TYPE", "mirrored"),
        ("LEVERET_LANES", "257"),
        ("LEVERET_SHUTDOWN_GRACE", "10"),
        ("LEVERET_PAYLOAD_BYTES", "8MB"),
        ("LEVERET_HTTP", "8080"),
        ("LEVERET_NAMESPACE", "a b"),
    ]);
    assert_eq!(
        problems,
        [
            r#"LEVERET_NAMESPACE="a b" is not a name of 1 to 63 letters, digits, - and _ that begins with a letter or a digit and is not amq"#,
            r#"LEVERET_QUEUE_TYPE="mirrored" is not quorum or classic"#,
            r#"LEVERET_LANES="257" is not a whole number from 1 to 256"#,
            r#"LEVERET_SHUTDOWN_GRACE="10" is not a duration from 0s to 1d, such as 250ms, 10s, 5m, 2h or 7d"#,
            r#"LEVERET_HTTP="8080" is not an IP address and a port, such as 0.0.0.0:8080"#,
            r#"LEVERET_PAYLOAD_BYTES="8MB" is not a size from 1KiB to 512MiB, such as 65536, 64KiB, 8MiB or 1GiB"#,
            r#"LEVERET_RETENTION_COMPLETED="never" is not a duration up to 36500d, or off, such as 250ms, 10s, 5m, 2h or 7d"#,
        ]
    );
}

#[test]
fn a_value_is_told_in_one_short_line() {
    let long = format!("1\n2{}", "x".repeat(5000));
    let problems = problems(&[("LEVERET_TURNS", &long)]);
    assert_eq!(problems.len(), 1);
    assert!(
        !problems[0].contains('\n') && problems[0].len() < 200,
        "{}",
        problems[0]
    );
}

#[cfg(unix)]
#[test]
fn what_is_not_text_is_refused_and_named() {
    use std::os::unix::ffi::OsStringExt;
    let value = OsString::from_vec(b"a\xffb".to_vec());
    let error = Config::read([(OsString::from("LEVERET_FILE"), value)]).expect_err("refused");
    assert!(error.to_string().starts_with("LEVERET_FILE="), "{error}");
}

#[test]
fn a_wrong_url_is_named_and_not_told() {
    for bad in [
        "http://me:s3cret@host",
        "me:s3cret@host",
        "amqp://me:s3cret@",
        "amqp://me:s3cret@host:port",
        "amqp://me:s3cret@host:0/",
    ] {
        let problems = problems(&[("LEVERET_AMQP_URL", bad), REDIS]);
        assert_eq!(problems.len(), 1);
        assert!(
            problems[0].starts_with("LEVERET_AMQP_URL is not a URL like amqp://"),
            "{problems:?}"
        );
        assert!(!problems[0].contains("s3cret"), "{problems:?}");
    }
    for good in [
        "amqp://host",
        "amqps://me:pass%2fword@[::1]:5671/shop?heartbeat=3",
        "amqp://host?heartbeat=3",
    ] {
        servers(&[("LEVERET_AMQP_URL", good), REDIS]);
    }
}

#[test]
fn one_url_needs_the_other() {
    assert_eq!(
        problems(&[AMQP]),
        [
            "LEVERET_AMQP_URL is set and LEVERET_REDIS_URL is not: set both for RabbitMQ and Redis, or none for an embedded file (LEVERET_FILE)"
        ]
    );
    assert!(problems(&[REDIS])[0].starts_with("LEVERET_REDIS_URL is set and LEVERET_AMQP_URL is not"));
    assert!(problems(&[AMQP, REDIS, ("LEVERET_FILE", "x.db")])[0].starts_with("LEVERET_FILE is set together with"));
}

#[test]
fn a_payload_has_to_fit_into_a_message() {
    let problems = problems(&[AMQP, REDIS, ("LEVERET_PAYLOAD_BYTES", "16MiB")]);
    assert!(problems[0].starts_with("LEVERET_PAYLOAD_BYTES=16MiB"), "{problems:?}");
    servers(&[
        AMQP,
        REDIS,
        ("LEVERET_PAYLOAD_BYTES", "16MiB"),
        ("LEVERET_AMQP_MESSAGE_BYTES", "32MiB"),
    ]);
    read(&[("LEVERET_PAYLOAD_BYTES", "16MiB")]);
}

#[test]
fn a_name_with_a_typing_mistake_is_told_the_near_one() {
    for (given, near) in [
        ("LEVERET_LANE", "LEVERET_LANES"),
        ("LEVERET_HTPT", "LEVERET_HTTP"),
        ("LEVERET_lanes", "LEVERET_LANES"),
        ("LEVERET_RETENTION_COMPLETE", "LEVERET_RETENTION_COMPLETED"),
        ("LEVERET_REDISURL", "LEVERET_REDIS_URL"),
    ] {
        let warnings = read(&[(given, "7")]).warnings;
        assert_eq!(
            warnings,
            [format!("{given} is not a setting and has no effect: is {near} meant?")]
        );
    }
    // Those of test runners, of Kubernetes' services, and of others.
    let strangers = [
        ("LEVERET_TEST_AMQP_URL", "x"),
        ("LEVERET_PORT", "tcp://10.0.0.1:80"),
        ("LEVERET_SERVICE_HOST", "10.0.0.1"),
        ("LANES", "1"),
    ];
    assert!(read(&strangers).warnings.is_empty());
}

#[test]
fn what_is_for_servers_alone_is_warned_of_without_them() {
    let warnings = read(&[("LEVERET_QUEUE_TYPE", "classic")]).warnings;
    assert_eq!(
        warnings,
        ["LEVERET_QUEUE_TYPE has no effect without LEVERET_AMQP_URL and LEVERET_REDIS_URL"]
    );
}

/// `LEVERET_TEST_REGENERATE=1 cargo test --test config` writes the table.
#[test]
fn the_documentation_has_every_variable() {
    const BEGIN: &str = "<!-- The table is made from src/config/table.rs; tests/config.rs says how. -->\n";
    const END: &str = "<!-- End of the table. -->\n";
    let mut table = String::from("| variable | sets | takes | default |\n|---|---|---|---|\n");
    for variable in variables() {
        let default = match variable.default() {
            nothing if nothing.is_empty() => "not set".into(),
            default => format!("`{default}`"),
        };
        table += &format!(
            "| `{}` | {} | {} | {default} |\n",
            variable.name(),
            variable.sets(),
            variable.takes()
        );
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let text = std::fs::read_to_string(&path).expect("docs/configuration.md is there");
    let (before, rest) = text.split_once(BEGIN).expect("the line before the table");
    let (written, after) = rest.split_once(END).expect("the line after the table");
    if std::env::var_os("LEVERET_TEST_REGENERATE").is_some() {
        std::fs::write(&path, [before, BEGIN, &table, END, after].concat()).expect("written");
        return;
    }
    assert!(
        written == table,
        "docs/configuration.md is out of date: LEVERET_TEST_REGENERATE=1 cargo test --test config"
    );
}

#[cfg(feature = "embedded")]
#[tokio::test]
async fn a_backend_carries_the_settings_that_it_was_opened_with() {
    let path = std::env::temp_dir().join(format!("leveret-config-{}.db", uuid::Uuid::new_v4().simple()));
    let file = path.to_str().expect("a path that is text");
    let backend = Backend::open(read(&[
        ("LEVERET_FILE", file),
        ("LEVERET_ACTIVITIES", "3"),
        ("LEVERET_NAMESPACE", "shop"),
    ]))
    .await
    .expect("opened");
    assert_eq!(
        (backend.settings().activities, backend.namespace().as_str()),
        (3, "shop")
    );
    assert_eq!(backend.to_string(), file);
    drop(backend);
    std::fs::remove_file(path).expect("the file was there");
}

#[tokio::test]
async fn a_wrong_environment_is_for_a_person_to_mend() {
    let error = leveret::backend::Error::from(Config::read([("LEVERET_LANES", "0")]).expect_err("refused"));
    assert_eq!(error.retryable(), Retryable::Permanent);
}

#[cfg(all(feature = "rabbitmq", feature = "redis"))]
mod log;
#[cfg(all(feature = "rabbitmq", feature = "redis"))]
#[path = "config/servers.rs"]
mod servers;
