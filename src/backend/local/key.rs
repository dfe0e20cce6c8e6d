//! Keys: one letter for what it is, the namespace, then what the thing is called.
//!
//! Names (namespace, app ID, instance ID, message ID) hold no control characters, so each ends with a zero byte and no name is the beginning of
//! another. Numbers are 8 bytes, the highest first, uuids 16: both sort as their values do. Free bytes stand last. Nothing but a scan's own
//! remainder is ever parsed back out of a key.

use std::ops::Bound;

use uuid::Uuid;

use crate::backend::Queue;
use crate::model::{AppId, InstanceRef, Namespace, Timestamp};

/// The first byte of a key. Part of the file's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Table {
    /// App -> lanes, last seen.
    App = b'a',
    /// Instance, execution, sequence -> an open claim, or the progress of a call that has none.
    Claim = b'c',
    /// Instance, execution, sequence -> nothing: the call is over.
    ClosedCall = b'C',
    /// App, kind, subject -> an entry of the due-set.
    Due = b'd',
    /// App, kind, time, subject -> nothing: the due-set in order of time.
    DueOrder = b'D',
    /// Time, key -> nothing: what lapses when.
    Expiry = b'e',
    /// Instance, execution, version -> a turn.
    Turn = b'h',
    /// Instance -> the state of its inbox.
    Inbox = b'i',
    /// Inbox number, position -> an item.
    InboxItem = b'I',
    /// Queue, position -> a message.
    Message = b'm',
    /// Queue -> its state.
    Queue = b'q',
    /// Instance, run -> the outcome of a run that was replaced or deleted.
    Outcome = b'o',
    /// Instance, request -> what became of the request.
    Receipt = b'p',
    /// Instance -> its record.
    Record = b'r',
    /// App, item -> run tokens.
    Runs = b't',
    /// App, worker -> a live worker.
    Worker = b'w',
    /// App, time of creation, instance ID -> nothing: the index.
    Index = b'x',
    /// Instance -> where it stands in the index.
    IndexPlace = b'X',
    /// Number -> a range of keys that nothing refers to any more.
    Trash = b'z',
    /// Counters of a namespace.
    Counter = b'n',
}

/// A key under construction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key(Vec<u8>);

impl Key {
    /// The beginning of all of a namespace's keys in a table.
    pub(super) fn new(table: Table, namespace: &Namespace) -> Self {
        let mut bytes = Vec::with_capacity(96);
        bytes.push(table as u8);
        Self(bytes).name(namespace.as_str())
    }

    /// The beginning of all of an app's keys in a table.
    pub(super) fn of_app(table: Table, namespace: &Namespace, app: &AppId) -> Self {
        Self::new(table, namespace).name(app.as_str())
    }

    /// The beginning of all of an instance's keys in a table.
    pub(super) fn of_instance(table: Table, namespace: &Namespace, instance: &InstanceRef) -> Self {
        Self::of_app(table, namespace, &instance.app).name(instance.id.as_str())
    }

    /// The beginning of all of a queue's keys in a table. A queue's local name holds no zero byte, and no two queues share one.
    pub(super) fn of_queue(table: Table, namespace: &Namespace, queue: &Queue) -> Self {
        Self::new(table, namespace).name(&queue.local_name())
    }

    pub(super) fn name(mut self, name: &str) -> Self {
        debug_assert!(!name.as_bytes().contains(&0), "names hold no control characters");
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(0);
        self
    }

    pub(super) fn number(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    pub(super) fn time(self, time: Timestamp) -> Self {
        self.number(time.as_millis())
    }

    pub(super) fn uuid(mut self, id: Uuid) -> Self {
        self.0.extend_from_slice(id.as_bytes());
        self
    }

    pub(super) fn letter(mut self, letter: char) -> Self {
        debug_assert!(letter.is_ascii(), "letters of keys are one byte");
        self.0.push(letter as u8);
        self
    }

    /// Free bytes: they end the key.
    pub(super) fn rest(mut self, bytes: &[u8]) -> Vec<u8> {
        self.0.extend_from_slice(bytes);
        self.0
    }

    /// The key is whole.
    pub(super) fn end(self) -> Vec<u8> {
        self.0
    }

    /// The length so far: where a scanned key's remainder begins.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// All keys that begin with this.
    pub(super) fn range(self) -> KeyRange {
        let to = successor(&self.0);
        KeyRange { from: self.0, to }
    }

    /// The keys that begin with this, from the one with this remainder on.
    pub(super) fn range_from(self, remainder: &[u8]) -> KeyRange {
        let to = successor(&self.0);
        KeyRange {
            from: self.rest(remainder),
            to,
        }
    }

    /// The keys that begin with this, followed by a number of `from..to`.
    pub(super) fn range_of_numbers(self, numbers: std::ops::Range<u64>) -> KeyRange {
        KeyRange {
            from: self.clone().number(numbers.start).end(),
            to: Some(self.number(numbers.end).end()),
        }
    }
}

/// Keys from the first on, up to and without the second (`None`: to the end).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct KeyRange {
    #[serde(with = "serde_bytes")]
    from: Vec<u8>,
    #[serde(with = "serde_bytes")]
    to: Option<Vec<u8>>,
}

impl KeyRange {
    #[cfg(test)]
    pub(super) fn all() -> Self {
        Self {
            from: Vec::new(),
            to: None,
        }
    }

    /// Ends the range before this key, if it does not end sooner.
    pub(super) fn until(mut self, key: Vec<u8>) -> Self {
        self.to = Some(self.to.map_or(key.clone(), |to| to.min(key)));
        self
    }

    /// As the standard library's ranges want it.
    pub(super) fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        // A range that ends before it begins is empty here and a panic there.
        let to = self.to.as_deref().map(|to| to.max(&self.from));
        (
            Bound::Included(&self.from),
            to.map_or(Bound::Unbounded, Bound::Excluded),
        )
    }
}

/// The first key after all that begin with the prefix.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut next = prefix[..=last].to_vec();
    next[last] += 1;
    Some(next)
}

/// The number at the beginning of a scanned key's remainder.
pub(super) fn leading_number(remainder: &[u8]) -> Option<u64> {
    remainder.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::InstanceId;

    fn namespace() -> Namespace {
        Namespace::new("n").expect("valid")
    }

    fn instance(app: &str, id: &str) -> InstanceRef {
        InstanceRef::new(AppId::new(app).expect("valid"), InstanceId::new(id).expect("valid"))
    }

    #[test]
    fn no_instance_owns_keys_of_another() {
        let hostile = ["a", "a:b", "a/", "a b", "ab", "ü", "a.1"];
        for one in hostile {
            for other in hostile.iter().filter(|other| **other != one) {
                let of = |id| Key::of_instance(Table::Turn, &namespace(), &instance("app", id)).end();
                assert!(!of(other).starts_with(&of(one)), "{other:?} lies within {one:?}");
            }
        }
        let key = |app, id| Key::of_instance(Table::Record, &namespace(), &instance(app, id)).end();
        assert_ne!(key("a", "b-c"), key("a-b", "c"));
    }

    proptest::proptest! {
        #![proptest_config(crate::backend::many_inputs())]

        /// Any two instances, however much alike: neither's keys lie within the other's, and none is one of its app's.
        #[test]
        fn no_two_instances_share_a_key(
            apps in proptest::array::uniform2("[ab]|[A-Za-z0-9][A-Za-z0-9_-]{0,62}"),
            ids in proptest::array::uniform2("[ab%/:{} ]{1,8}|[^\\p{Cc}]{1,40}"),
        ) {
            proptest::prop_assume!(apps.iter().all(|app| app != "amq"));
            let of = |at: usize| Key::of_instance(Table::Turn, &namespace(), &instance(&apps[at], &ids[at])).end();
            let is_same = (&apps[0], &ids[0]) == (&apps[1], &ids[1]);
            let (one, other) = (of(0), of(1));
            assert_eq!(one == other, is_same);
            assert!(is_same || !(one.starts_with(&other) || other.starts_with(&one)), "{one:?} {other:?}");
            let numbered = Key::of_instance(Table::Turn, &namespace(), &instance(&apps[0], &ids[0])).number(7).end();
            assert!(numbered.starts_with(&one) && (is_same || !numbered.starts_with(&other)));
        }
    }

    #[test]
    fn a_prefix_ends_where_the_next_one_begins() {
        assert_eq!(successor(&[1, 2]), Some(vec![1, 3]));
        assert_eq!(successor(&[1, 255, 255]), Some(vec![2]));
        assert_eq!(successor(&[255]), None);
    }

    #[test]
    fn numbers_sort_by_value() {
        let key = |number| Key::new(Table::Trash, &namespace()).number(number).end();
        assert!(key(1) < key(256) && key(256) < key(u64::MAX));
    }
}
