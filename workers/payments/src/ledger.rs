//! The bank's ledger: one line a booking, each booked once by its ID.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// A booking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The idempotency key: the ID of the call that asked for it.
    pub id: String,
    /// For which order.
    pub order: String,
    /// How much; a refund is negative.
    pub cents: i64,
}

/// All bookings. Clones share it.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    entries: Vec<Entry>,
    /// Where they are kept; `None` for as long as the process lives.
    file: Option<File>,
}

impl Ledger {
    /// A ledger in memory.
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// A ledger in a file of JSON lines, which is made if it is not there. Half a line, left by a process that was killed, is cut off.
    ///
    /// # Errors
    /// If the file cannot be read or written, or holds something else.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let entries = text[..whole]
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?;
        file.set_len(whole as u64)?;
        file.seek(io::SeekFrom::End(0))?;
        Ok(Self(Arc::new(Mutex::new(Inner {
            entries,
            file: Some(file),
        }))))
    }

    /// Books it, unless a booking of this ID is there already.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn book(&self, entry: Entry) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.entries.iter().any(|booked| booked.id == entry.id) {
            return Ok(());
        }
        if let Some(file) = &mut inner.file {
            let line = format!("{}\n", serde_json::to_string(&entry)?);
            file.write_all(line.as_bytes())?;
        }
        inner.entries.push(entry);
        Ok(())
    }

    /// All bookings so far.
    pub fn entries(&self) -> Vec<Entry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entries.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_booking_counts_once_also_after_a_kill_in_the_middle_of_a_line() {
        let path = std::env::temp_dir().join(format!("ledger-{}.jsonl", std::process::id()));
        let entry = Entry {
            id: "a".into(),
            order: "17".into(),
            cents: 100,
        };
        let ledger = Ledger::open(&path).unwrap();
        ledger.book(entry.clone()).unwrap();
        ledger.book(entry.clone()).unwrap();
        OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"{\"id\":\"b\"")
            .unwrap();
        let ledger = Ledger::open(&path).unwrap();
        ledger.book(entry.clone()).unwrap();
        ledger
            .book(Entry {
                id: "b".into(),
                ..entry
            })
            .unwrap();
        assert_eq!(Ledger::open(&path).unwrap().entries().len(), 2);
        std::fs::remove_file(path).unwrap();
    }
}
