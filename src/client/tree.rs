//! An instance with its children, and theirs: walked leaves first, in memory that grows with the depth alone.

use super::history::{ChildCall, PAGE, turns_after};
use super::{Client, Error};
use crate::backend::Record;
use crate::model::{ExecutionId, InstanceRef, MessageId, Timestamp};
use crate::wire::TaskRef;

/// A finished instance, as far as its deletion needs to know it.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) instance: InstanceRef,
    pub(super) execution: ExecutionId,
    /// The request that created it, by which its check entry is named.
    pub(super) request: MessageId,
    pub(super) ended_at: Timestamp,
    /// The call that created it, if it is a child.
    pub(super) parent: Option<TaskRef>,
    /// Turns in its history.
    version: u64,
}

impl Node {
    /// # Errors
    /// [`Error::StillActive`] names the instance if it is not over.
    pub(super) fn finished(instance: InstanceRef, record: &Record) -> Result<Self, Error> {
        if !record.status.is_terminal() {
            return Err(Error::StillActive {
                instance,
                status: record.status,
            });
        }
        Ok(Self {
            instance,
            execution: record.execution,
            request: record.origin.request.clone(),
            ended_at: record.ended_at.unwrap_or(record.updated_at),
            parent: record.origin.parent.as_ref().map(|parent| parent.task.clone()),
            version: record.version,
        })
    }
}

/// A node whose children are being walked.
struct Open {
    node: Node,
    /// Turns read so far.
    read: u64,
    /// Calls of these turns that are still to be walked.
    calls: std::vec::IntoIter<ChildCall>,
}

/// A walk through a tree of finished instances. Each node comes after all of its children. A child is known by the call in its parent's history and
/// by its own link back to just that call, so an instance that has merely taken its ID is left out, and so is a detached child.
pub(super) struct Walk<'a> {
    client: &'a Client,
    path: Vec<Open>,
}

impl<'a> Walk<'a> {
    pub(super) fn from(client: &'a Client, root: Node) -> Self {
        let mut walk = Self {
            client,
            path: Vec::new(),
        };
        walk.enter(root);
        walk
    }

    fn enter(&mut self, node: Node) {
        self.path.push(Open {
            node,
            read: 0,
            calls: Vec::new().into_iter(),
        });
    }

    /// The next node; `None` after the root.
    ///
    /// # Errors
    /// [`Error::StillActive`] names a child that is not over, [`Error::UnreadableHistory`] a turn that may name children and cannot be read.
    pub(super) async fn next(&mut self) -> Result<Option<Node>, Error> {
        while let Some(open) = self.path.last_mut() {
            if let Some(call) = open.calls.next() {
                if call.is_detached {
                    continue;
                }
                if let Some(record) = call.record(self.client).await? {
                    let child = Node::finished(call.child, &record)?;
                    self.enter(child);
                }
            } else if open.read < open.node.version {
                let node = &open.node;
                let turns = turns_after(self.client, &node.instance, node.execution, open.read, PAGE).await?;
                if turns.is_empty() {
                    let node = node.clone();
                    let record = self.client.record(&node.instance).await?;
                    if record.is_some_and(|record| record.execution == node.execution) {
                        return Err(Error::UnreadableHistory {
                            instance: node.instance,
                            version: open.read + 1,
                            problem: "it is missing, and may name children".into(),
                        });
                    }
                }
                // No more turns: it is gone, or in another execution. Then nothing of it is ours to delete.
                open.read = if turns.is_empty() {
                    open.node.version
                } else {
                    open.read + turns.len() as u64
                };
                let calls = turns
                    .into_iter()
                    .flat_map(|turn| ChildCall::of_turn(&node.instance, node.execution, turn));
                open.calls = calls.collect::<Vec<_>>().into_iter();
            } else {
                return Ok(self.path.pop().map(|open| open.node));
            }
        }
        Ok(None)
    }
}
