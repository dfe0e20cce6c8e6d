//! The file: how it comes into being, and what is checked before it is used.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use redb::{Builder, Database, DatabaseError, ReadableDatabase, StorageError, TableDefinition, TableHandle};

use crate::backend::{Error, Result};

/// All keys and values.
pub(super) const DATA: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("leveret.data");

/// What sort of file this is.
const FORMAT: TableDefinition<'static, &str, u64> = TableDefinition::new("leveret.format");

/// The version of the format that this release reads and writes: the keys of `key.rs` and their values.
const VERSION: u64 = 3;

/// Bytes of pages kept in memory.
const CACHE_BYTES: usize = 64 << 20;

/// How long a file that is in use is waited for: the process that had it may just be ending.
const IN_USE_PATIENCE: Duration = Duration::from_secs(1);

/// Opens the file; makes it if it is not there.
///
/// # Errors
/// Permanent, with the path and the way out, if it is in use, is not a Leveret file, or has another format.
pub(super) fn open(path: &Path) -> Result<Database> {
    if !path.exists() {
        create(path)
            .map_err(|cause| Error::permanent(format!("cannot create {}: {cause}", path.display())).caused_by(cause))?;
    }
    let database = open_patiently(path).map_err(|cause| explain(path, cause))?;
    match check(&database) {
        Ok(Ok(())) => Ok(database),
        Ok(Err(problem)) => Err(Error::permanent(format!("{} {problem}", path.display()))),
        Err(cause) => Err(Error::permanent(format!("{} cannot be read: {cause}", path.display())).caused_by(cause)),
    }
}

fn open_patiently(path: &Path) -> std::result::Result<Database, DatabaseError> {
    let since = Instant::now();
    loop {
        // An empty file that somebody has put there is taken as a new one.
        match Builder::new().set_cache_size(CACHE_BYTES).create(path) {
            Err(DatabaseError::DatabaseAlreadyOpen) if since.elapsed() < IN_USE_PATIENCE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            opened => return opened,
        }
    }
}

fn explain(path: &Path, cause: DatabaseError) -> Error {
    let path = path.display();
    let not_ours = [io::ErrorKind::InvalidData, io::ErrorKind::UnexpectedEof];
    let message = match &cause {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => format!(
            "{path} is in use by another process: one process at a time can have it open; stop that one, give this one another file, or run both \
             on RabbitMQ and Redis"
        ),
        DatabaseError::UpgradeRequired(version) => format!(
            "{path} has the file format {version} of an older redb: open it with the release of Leveret that wrote it"
        ),
        DatabaseError::Storage(StorageError::Io(error)) if not_ours.contains(&error.kind()) => {
            format!("{path} is not a Leveret file: move it away or name another path")
        }
        DatabaseError::Storage(StorageError::Corrupted(what)) => {
            format!(
                "{path} is not a Leveret file or is damaged ({what}): restore it from a backup or name another path"
            )
        }
        other => format!("cannot open {path}: {other}"),
    };
    Error::permanent(message).caused_by(cause)
}

/// Makes the file beside its place and moves it there whole, so that no crash leaves half a file. Whoever is first wins: the move never replaces a
/// file that is there, which another process may have open.
fn create(path: &Path) -> std::result::Result<(), redb::Error> {
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let fresh = beside(path);
    let _ = fs::remove_file(&fresh);
    let made = Builder::new()
        .create(&fresh)
        .map_err(redb::Error::from)
        .and_then(|database| format(&database));
    let moved = made.and_then(|()| match fs::hard_link(&fresh, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        // A file system without links: there two processes must not make the file at the same moment.
        Err(_) => fs::rename(&fresh, path).map_err(redb::Error::Io),
        Ok(()) => Ok(()),
    });
    let _ = fs::remove_file(&fresh);
    moved?;
    // The name too has to survive a power failure. Not every system can open a directory; there it is the system's business.
    if let Ok(directory) = File::open(directory) {
        directory.sync_all()?;
    }
    Ok(())
}

/// A name that no other process uses.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    path.with_file_name(name)
}

/// Makes an empty database one of ours.
pub(super) fn format(database: &Database) -> std::result::Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(FORMAT)?.insert("version", VERSION)?;
    transaction.open_table(DATA)?;
    transaction.commit()?;
    Ok(())
}

/// Checks that it is one of ours; else says what it is, to be read after the path.
fn check(database: &Database) -> std::result::Result<std::result::Result<(), String>, redb::Error> {
    let read = database.begin_read()?;
    let tables: Vec<_> = read.list_tables()?.map(|table| table.name().to_owned()).collect();
    if tables.is_empty() {
        drop(read);
        format(database)?;
        return Ok(Ok(()));
    }
    if !tables.iter().any(|name| name == FORMAT.name()) {
        let problem = "is a redb file, but not one of Leveret: name another path";
        return Ok(Err(problem.to_owned()));
    }
    let version = read
        .open_table(FORMAT)?
        .get("version")?
        .map_or(0, |version| version.value());
    Ok(if version == VERSION {
        Ok(())
    } else {
        let age = if version > VERSION { "a later" } else { "an earlier" };
        Err(format!(
            "has the format {version} of {age} release; this one reads format {VERSION}: use the release that wrote it"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that goes with the test.
    struct Directory(PathBuf);

    impl Directory {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("leveret-{}", uuid::Uuid::new_v4()));
            fs::create_dir(&path).expect("a directory");
            Self(path)
        }

        fn file(&self) -> PathBuf {
            self.0.join("file")
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_file_of_another_format_is_refused_with_both_versions() {
        for (version, expected) in [
            (1, "has the format 1 of an earlier release; this one reads format 3"),
            (4, "has the format 4 of a later release; this one reads format 3"),
        ] {
            let directory = Directory::new();
            let path = directory.file();
            let database = open(&path).expect("opened");
            let write = database.begin_write().expect("a transaction");
            let mut table = write.open_table(FORMAT).expect("the table");
            table.insert("version", version).expect("written");
            drop(table);
            write.commit().expect("committed");
            drop(database);
            let error = open(&path).expect_err("refused");
            assert!(error.is_permanent());
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn another_programs_redb_file_is_refused() {
        let directory = Directory::new();
        let path = directory.file();
        let database = Database::create(&path).expect("created");
        let write = database.begin_write().expect("a transaction");
        let theirs = TableDefinition::<u64, u64>::new("theirs");
        write.open_table(theirs).expect("a table");
        write.commit().expect("committed");
        drop(database);
        let error = open(&path).expect_err("refused");
        assert!(error.to_string().contains("not one of Leveret"), "{error}");
    }

    #[test]
    fn an_empty_file_is_taken_as_new() {
        let directory = Directory::new();
        File::create(directory.file()).expect("created");
        drop(open(&directory.file()).expect("opened"));
        drop(open(&directory.file()).expect("opened again"));
    }

    #[test]
    fn what_a_crash_left_of_making_a_file_does_no_harm() {
        let directory = Directory::new();
        fs::write(beside(&directory.file()), "half a file").expect("written");
        drop(open(&directory.file()).expect("opened"));
        assert_eq!(fs::read_dir(&directory.0).expect("a directory").count(), 1);
    }
}
