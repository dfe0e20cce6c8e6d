//! The service as a process.

#[path = "../../wrong_setting.rs"]
mod wrong_setting;

const BINARY: &str = env!("CARGO_BIN_EXE_leveret-orders");
