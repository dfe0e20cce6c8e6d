//! The built binary. `workers/demo/tests/services.rs` runs all three against servers, and finds them because these tests have them built.

use std::process::Command;

use crate::BINARY;

#[test]
fn a_process_with_a_wrong_setting_ends_at_once_and_names_it() {
    let output = Command::new(BINARY)
        .env("LEVERET_LANES", "none")
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("LEVERET_LANES=\"none\" is not a whole number"), "{said}");
}
