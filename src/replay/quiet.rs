//! Silence while workflow code catches up: its log lines were told when they were new.

use std::sync::LazyLock;

use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Dispatch, Event, Metadata, Subscriber};

/// Takes no log line. One that tracing knows of, unlike [`Dispatch::none`]: beside that one, a process with one subscriber takes a line that is first met
/// here for one that nobody wants ever (tracing caches the answer), and it would stay silent when it is new.
struct Quiet;

impl Subscriber for Quiet {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::never()
    }
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        false
    }
    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(tracing::level_filters::LevelFilter::OFF)
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Runs it; what it logs goes nowhere.
pub(super) fn quietly<T>(run: impl FnOnce() -> T) -> T {
    static QUIET: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(Quiet));
    tracing::dispatcher::with_default(&QUIET, run)
}
