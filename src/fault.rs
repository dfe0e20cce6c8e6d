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

/// Defects that are built in on purpose, for a simulation to find. Each is what somebody might write who has not thought of one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "testing"),
    allow(dead_code, unreachable_pub, reason = "nobody plants them")
)]
pub enum Defect {
    /// A commit's lost reply is taken for a conflict, and for whoever won to publish what the turn caused.
    LostReplyIsConflict,
    /// A turn whose only effect is a timer is not marked.
    TimerIsNoEffect,
    /// Retention deletes a turn that is still marked.
    MarkedTurnIsRetired,
    /// A purge does.
    MarkedTurnIsPurged,
    /// A new start does.
    MarkedTurnIsReplaced,
    /// A completion is dropped because the live state, which may be older than the history, does not know its task.
    UnknownTaskIsDropped,
    /// The guard compares the version alone.
    GuardIsTheVersion,
    /// The start of a child's second attempt is taken for a duplicate of the first.
    SecondAttemptIsDuplicate,
    /// An event that comes before the start is lost.
    EarlyEventIsLost,
    /// A terminate that comes before the start of the child that it is for is lost.
    EarlyTerminateIsLost,
    /// A start is dropped before the turn that it begins is committed, and the record may have changed since it was sent.
    StartIsDroppedFirst,
    /// Continue-as-new forgets the IDs of the events that it has seen.
    SeenIsForgotten,
    /// Messages are acknowledged before what they cause is published.
    AcknowledgedFirst,
    /// What a turn causes is published before it is committed.
    PublishedFirst,
    /// Whoever gets a message by a lane takes itself for the lane's only holder, and commits without a guard.
    LaneIsGuard,
    /// A due timer is removed before its event is confirmed.
    TimerIsRemovedFirst,
    /// A redelivered task does not look for a lease.
    LeaseIsIgnored,
    /// A mark is cleared by a worker that has not made its effects.
    OthersMarkIsCleared,
    /// A purge begins with the parent.
    ParentIsPurgedFirst,
    /// What was pushed into the inbox while a commit ended `Pending` or `Suspended` stays unread.
    InboxStaysUnread,
    /// Nobody notices that the next execution after a continue-as-new has not begun.
    NextExecutionIsForgotten,
    /// A claim can be taken once only.
    ClaimIsTakenOnce,
    /// The taker of a start creates the instance if it is not there.
    TakerCreates,
    /// A deleted child leaves no receipt for its parent's call, and nobody sees to it first that the parent does not start it again.
    NoReceiptIsLeft,
    /// The check of an instance that is over and has no marks goes without a look at whether its end was settled.
    EndIsNotSettled,
}

/// True if the defect is built in, in this thread.
#[cfg(not(feature = "testing"))]
#[inline(always)]
pub(crate) const fn planted(_defect: Defect) -> bool {
    false
}

#[cfg(feature = "testing")]
pub(crate) use planting::{plant, planted};

#[cfg(feature = "testing")]
mod planting {
    use std::cell::Cell;

    use super::Defect;

    thread_local! {
        static PLANTED: Cell<Option<Defect>> = const { Cell::new(None) };
    }

    pub(crate) fn planted(defect: Defect) -> bool {
        PLANTED.get() == Some(defect)
    }

    /// Builds a defect in, in this thread, or takes it out again.
    pub(crate) fn plant(defect: Option<Defect>) {
        PLANTED.set(defect);
    }
}

impl Defect {
    /// All of them.
    #[cfg(feature = "testing")]
    pub const ALL: [Defect; 25] = [
        Defect::LostReplyIsConflict,
        Defect::TimerIsNoEffect,
        Defect::MarkedTurnIsRetired,
        Defect::MarkedTurnIsPurged,
        Defect::MarkedTurnIsReplaced,
        Defect::UnknownTaskIsDropped,
        Defect::GuardIsTheVersion,
        Defect::SecondAttemptIsDuplicate,
        Defect::EarlyEventIsLost,
        Defect::EarlyTerminateIsLost,
        Defect::StartIsDroppedFirst,
        Defect::SeenIsForgotten,
        Defect::AcknowledgedFirst,
        Defect::PublishedFirst,
        Defect::LaneIsGuard,
        Defect::TimerIsRemovedFirst,
        Defect::LeaseIsIgnored,
        Defect::OthersMarkIsCleared,
        Defect::ParentIsPurgedFirst,
        Defect::InboxStaysUnread,
        Defect::NextExecutionIsForgotten,
        Defect::ClaimIsTakenOnce,
        Defect::TakerCreates,
        Defect::NoReceiptIsLeft,
        Defect::EndIsNotSettled,
    ];
}
