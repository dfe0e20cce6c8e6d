//! Configuration: `Config::read` of whatever an environment may hold.

use fastrand::Rng;
use leveret::backend::Backend;
use leveret::config::{Config, Place, variables};

use super::bytes;
use super::runner::{Fate, play};

const SECRET: &str = "s3cr3t";

#[test]
fn environment() {
    play("environment", |rng| {
        let set: Vec<(String, String)> = (0..rng.usize(1..5)).map(|_| variable(rng)).collect();
        match Config::read(set.iter().cloned()) {
            Ok(config) => {
                for warning in &config.warnings {
                    assert!(
                        !warning.contains(SECRET) && names_one(warning, &set),
                        "{warning}: {set:?}"
                    );
                }
                if let Place::Servers(servers) = &config.place {
                    let limits = &config.settings.limits;
                    assert!(limits.payload_bytes + limits.bundle_bytes <= servers.amqp_message_bytes);
                }
                let settings = &config.settings;
                assert!(settings.activities > 0 && settings.turns > 0 && settings.prefetch > 0 && settings.lanes > 0);
                assert!(!settings.heartbeat.is_zero() && !settings.due_interval.is_zero());
                assert!(!format!("{config:?}").contains(SECRET), "a secret is shown");
                if rng.u8(0..16) == 0 {
                    // It can be run with.
                    drop(Backend::memory(config.namespace.clone()).with_settings(config.settings.clone()));
                }
                Fate::Taken
            }
            Err(error) => {
                assert!(!error.problems().is_empty());
                for problem in error.problems() {
                    assert!(!problem.contains(SECRET), "a secret is told: {problem}");
                    assert!(names_one(problem, &set), "{problem}: {set:?}");
                    assert!(problem.contains(" is ") || problem.contains(" need "), "{problem}");
                    assert!(problem.len() < 600, "no message repeats all of a long value: {problem}");
                }
                Fate::Refused
            }
        }
    });
}

fn names_one(line: &str, set: &[(String, String)]) -> bool {
    set.iter().any(|(name, _)| line.contains(name.as_str())) || line.contains("LEVERET_PAYLOAD_BYTES")
}

fn variable(rng: &mut Rng) -> (String, String) {
    let known = &variables()[rng.usize(..variables().len())];
    let mut name = known.name().to_owned();
    if rng.u8(0..8) == 0 {
        let at = rng.usize("LEVERET_".len()..name.len());
        match rng.u8(0..3) {
            0 => drop(name.remove(at)),
            1 => name.insert(at, rng.uppercase()),
            _ => name.push_str(&bytes::text(rng)),
        }
    }
    let mut value = match rng.u8(0..9) {
        0..3 => known.default(),
        3 => format!(
            "{}{}",
            rng.u64(..) >> rng.u32(0..64),
            ["", "ms", "s", "m", "h", "d", "KiB", "MiB", "GiB"][rng.usize(..9)]
        ),
        4 => [
            "yes",
            "no",
            "off",
            "classic",
            "quorum",
            "127.0.0.1:80",
            "[::1]:80",
            "1.5s",
            "-1",
            "+5",
            "0",
        ][rng.usize(..11)]
        .into(),
        5 => format!(
            "amqp://user:{SECRET}@host:{}/{}",
            rng.u32(..) >> rng.u32(0..32),
            bytes::text(rng)
        ),
        6 => format!("redis://:{SECRET}@{}:6379/0", bytes::text(rng)),
        7 => format!("{}://user:{SECRET}@host", bytes::text(rng)),
        _ => bytes::text(rng),
    };
    // A secret belongs into the variables that are for secrets, where it may not be told.
    if value.contains(SECRET) && !name.ends_with("_URL") {
        value = bytes::text(rng);
    }
    (name, value)
}
