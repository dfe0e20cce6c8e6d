//! What is said to wrong use and to servers that are away: one line on stderr, nothing on stdout.

use crate::place::{bare, code, text};

#[test]
fn wrong_use_is_told_in_one_line() {
    for (arguments, told) in [
        (&[][..], "say what to do"),
        (&["dead"], "say what to do"),
        (&["bury"], "bury"),
        (&["dead", "list", "--colour"], "--colour"),
        (&["dead", "list", "--older-than", "soon"], "a whole number and a unit"),
        (&["dead", "list", "--most", "-1"], "-1"),
        (&["dead", "list", "--most", "0"], "--most 0"),
        (&["dead", "retry"], "say which to retry"),
        (&["dead", "drop", "--json"], "say which to drop"),
        // A variable of a script that is not set.
        (&["dead", "drop", ""], "[IDS]"),
        (&["dead", "retry", "3f2a9c", ""], "[IDS]"),
        (&["dead", "drop", "--reason", ""], "--reason"),
        (&["dead", "drop", "--app="], "--app"),
        (&["audit", "--repair", "--app", ""], "--app"),
        (&["dead", "list"], "LEVERET_AMQP_URL"),
        (&["audit"], "LEVERET_AMQP_URL"),
        (&["audit", "--metrics", "127.0.0.1:0"], "--every"),
        (&["audit", "--metrics", "nowhere", "--every", "5m"], "nowhere"),
        (&["audit", "--every", "0s"], "--every 0s"),
        (
            &["audit", "--app", "no app", "--repair", "--grace", "x"],
            "a whole number and a unit",
        ),
    ] {
        let output = bare(arguments).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(code(&output), 2, "{arguments:?}: {said}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
        assert!(
            said.starts_with("leveret: ") && said.contains(told),
            "{arguments:?}: {said}"
        );
    }
}

#[test]
fn an_environment_that_is_wrong_is_told_by_its_variable() {
    let output = bare(&["dead", "list"])
        .env("LEVERET_AMQP_URL", "amqp://localhost")
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert_eq!(code(&output), 2, "{said}");
    assert!(said.contains("LEVERET_REDIS_URL"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn servers_that_are_away_are_not_waited_for_without_an_end() {
    let output = bare(&["dead", "list", "--wait", "1s"])
        .env("LEVERET_NAMESPACE", "t")
        .env("LEVERET_AMQP_URL", "amqp://guest:s3cret@127.0.0.1:1/%2f")
        .env("LEVERET_REDIS_URL", "redis://127.0.0.1:1/")
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert_eq!(code(&output), 1, "{said}");
    assert!(output.stdout.is_empty());
    assert!(said.contains("did not answer within 1s"), "{said}");
    assert!(!said.contains("s3cret"), "{said}");
}

#[test]
fn help_is_data_and_no_fault() {
    for arguments in [&["--help"][..], &["dead", "--help"], &["--version"]] {
        let output = bare(arguments).output().unwrap();
        assert_eq!(code(&output), 0);
        assert!(output.stderr.is_empty() && !output.stdout.is_empty());
    }
}
