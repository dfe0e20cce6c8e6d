//! What kind of queues a broker keeps messages in.

/// The kind of queues that are declared. A queue's kind cannot be changed once it exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueType {
    /// Replicated by Raft and written to disk before a confirm. For any number of nodes, one included.
    #[default]
    Quorum,
    /// On one node. A confirm of a version 2 classic queue comes when the message is written, before it is synced: a host crash can lose it.
    Classic,
}

impl QueueType {
    /// Its name, as RabbitMQ's argument `x-queue-type` has it.
    pub(crate) fn argument(self) -> &'static str {
        match self {
            QueueType::Quorum => "quorum",
            QueueType::Classic => "classic",
        }
    }
}
