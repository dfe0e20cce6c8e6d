//! What processes have used, as the system counts it.

use std::path::Path;

/// Seconds of processor time that a process and its threads have used since it began; 0 if it is gone.
pub(crate) fn cpu_seconds(process: u32) -> f64 {
    /// Of `/proc`, on every Linux that there is.
    const TICKS_A_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything; the fields stand behind it.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map_or(Vec::new(), |(_, rest)| rest.split_whitespace().collect());
    let ticks = |field: usize| {
        fields
            .get(field)
            .and_then(|text| text.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    (ticks(11) + ticks(12)) / TICKS_A_SECOND
}

/// What a process holds in memory, and the most that it ever held, in bytes; 0 if it is gone.
pub(crate) fn memory(process: u32) -> [u64; 2] {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    ["VmRSS:", "VmHWM:"].map(|name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        number.unwrap_or(0) * 1024
    })
}

/// A process ID that the script of the servers wrote down.
pub(crate) fn noted(directory: &Path, name: &str) -> Option<u32> {
    let env = std::fs::read_to_string(directory.join("servers/env")).ok()?;
    env.lines()
        .find_map(|line| line.strip_prefix(&format!("export {name}=")))?
        .parse()
        .ok()
}
