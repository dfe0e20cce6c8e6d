//! What somebody might build who has not thought of one thing. The protocol makes none of these; the model finds each.

/// See the module. Those that `leveret::testing::Defect` has too bear its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Mistake {
    /// What a turn causes is published before it is committed.
    PublishedFirst,
    /// Messages are acknowledged before what they cause is committed.
    AcknowledgedFirst,
    /// A turn is acknowledged after its commit and before its effects, and is not marked.
    AcknowledgedBeforeEffects,
    /// Turns are not marked: whoever commits one makes its effects, or nobody does.
    TurnIsNotMarked,
    /// A turn whose only effect is a timer is not marked.
    TimerIsNoEffect,
    /// The mark is cleared, then the effects are made.
    MarkIsClearedFirst,
    /// A mark is kept as confirmed before the effects are made.
    ConfirmedTooEarly,
    /// A mark that was kept clears that of the same turn of another execution.
    ConfirmedOutlivesItsExecution,
    /// A mark is cleared by a worker that has not made its effects.
    OthersMarkIsCleared,
    /// A commit's lost reply is taken for a conflict, and for whoever won to publish what the turn caused.
    LostReplyIsConflict,
    /// The guard compares the version alone.
    GuardIsTheVersion,
    /// Whoever gets a message takes itself for the lane's only holder, and commits without a guard.
    LaneIsGuard,
    /// An item is dropped because of a live state that was not read again: it does not know the item's task yet, say.
    CachedStateIsBelieved,
    /// The check entry is written after the record.
    CheckIsWrittenLast,
    /// The check entry is removed once the final turn is committed, before its effects are made.
    CheckIsRemovedEarly,
    /// The check of an instance that is over and has no marks goes, whether or not its end was settled.
    EndIsNotSettled,
    /// A check that finds no record removes itself and refuses nothing.
    AbsentIsForgotten,
    /// A due timer is removed before its event is confirmed.
    TimerIsRemovedFirst,
    /// Retention or a new start deletes a turn that is still marked.
    MarkedTurnIsDeleted,
    /// What was pushed into the inbox while a commit ended `Pending` stays unread.
    InboxStaysUnread,
    /// A commit empties the inbox, whatever has come since it was read.
    InboxIsEmptied,
    /// An event that comes before the record is lost.
    EarlyEventIsLost,
    /// Nobody notices that the next execution after a continue-as-new has not begun.
    NextExecutionIsForgotten,
    /// Continue-as-new forgets the IDs of the events that it has seen.
    SeenIsForgotten,
    /// A completion counts for whatever execution is current.
    ExecutionIsNotCompared,
    /// A result counts whoever sent it.
    SenderIsNotCompared,
    /// The taker of a start creates the instance if it is not there.
    TakerCreates,
    /// A deleted instance leaves no receipt of its request.
    NoReceiptIsLeft,
    /// The client clears the start's mark before it has published the start.
    StartIsClearedFirst,
}
