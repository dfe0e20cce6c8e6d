//! Fault points: places where a test has the process killed, to show that a crash there costs nothing.
//!
//! Without the feature `testing` a fault point is nothing at all. With it, `LEVERET_FAULT=turn-committed` has the process killed by SIGKILL when it
//! passes the point of that name; `turn-committed:3` when it passes it for the third time.

#[cfg(not(feature = "testing"))]
#[inline(always)]
pub(crate) fn fault_point(_name: &'static str) {}

#[cfg(feature = "testing")]
pub(crate) fn fault_point(name: &'static str) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// The point's name, and how often it is to be passed still.
    static FAULT: LazyLock<Option<(String, AtomicU32)>> = LazyLock::new(|| {
        let text = std::env::var("LEVERET_FAULT").ok()?;
        let (name, pass) = text.split_once(':').unwrap_or((&text, "1"));
        Some((
            name.to_owned(),
            AtomicU32::new(pass.parse().expect("LEVERET_FAULT is a name and a number")),
        ))
    });

    let Some((wanted, left)) = &*FAULT else { return };
    if wanted == name && left.fetch_sub(1, Ordering::Relaxed) == 1 {
        die();
    }
}

/// No destructor runs, no connection is closed in order, and whoever passed the point does not go on.
#[cfg(feature = "testing")]
fn die() -> ! {
    let this = std::process::id().to_string();
    let killed = std::process::Command::new("kill").args(["-KILL", &this]).status();
    unreachable!("the process outlived SIGKILL: {killed:?}");
}
