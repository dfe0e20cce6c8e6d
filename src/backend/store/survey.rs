//! What an audit reads: everything that the store holds, page by page, whether anything refers to it or not.

use super::{DueEntry, Record};
use crate::model::InstanceRef;

/// A page of a due-set, of entries of all kinds in no particular order.
#[derive(Clone, Debug, Default)]
pub struct DuePage {
    /// Entries. One that is there throughout is on a page at least once; one may be on two.
    pub entries: Vec<DueEntry>,
    /// Pass this to get the next page; `None` at the end. A page may be empty and still have a next.
    pub next: Option<String>,
}

/// A page of all that the store holds of instances.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Instances that are not over, or still have marks, without their inputs and outcomes, which may be large. One that is there throughout is on a page
    /// at least once; one may be on two.
    pub active: Vec<(InstanceRef, Record)>,
    /// Instances whose records this release cannot read, and why.
    pub unreadable: Vec<(InstanceRef, String)>,
    /// What is stored of instances that have no record, and does not lapse by itself.
    pub strays: Vec<Stray>,
    /// Instances that the index has and that have no record.
    pub indexed: Vec<InstanceRef>,
    /// Pass this to get the next page; `None` at the end. A page may be empty and still have a next.
    pub next: Option<String>,
}

/// Something that is stored of an instance that has no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// Whose it was.
    pub instance: InstanceRef,
    /// What it is, in the store's own words: `inbox`, `claims`, `receipt:...`.
    pub part: String,
}
