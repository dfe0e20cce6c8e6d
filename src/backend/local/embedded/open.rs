//! How a file becomes a backend, once a process.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::super::engine::Engine;
use super::super::open::Shared;
use super::{Embedded, file};
use crate::backend::{Backend, Error, Result, SystemClock};
use crate::model::Namespace;

/// The files that this process has open. A second call with the same path gets the same engine, so that several apps of one process can call each
/// other.
static OPEN: Mutex<Option<HashMap<PathBuf, Weak<Shared>>>> = Mutex::new(None);

impl Backend {
    /// A backend on one file, durable and without servers: for one process at a time, with as many apps and workers as it likes. The file is made
    /// if it is not there; its directory has to exist. Several calls with one path share the open file, and namespaces share it without meeting.
    ///
    /// What was answered survives the end of the process and of the machine: every answer waits for the disk.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use leveret::Namespace;
    /// use leveret::backend::Backend;
    /// let path = std::env::temp_dir().join(format!("doc-{}.leveret", std::process::id()));
    /// let backend = Backend::embedded(&path, Namespace::new("shop").unwrap()).await?;
    /// assert!(backend.store().readiness().is_ok());
    /// # drop(backend);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<_, leveret::backend::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// Permanent if another process has the file open, if it is not a Leveret file, or if it has the format of another release; the message names
    /// the path and the way out.
    pub async fn embedded(path: impl AsRef<Path>, namespace: Namespace) -> Result<Backend> {
        let path = path.as_ref().to_owned();
        let description = path.display().to_string();
        // Opening reads the disk, all of the file if it was not closed.
        let opened = tokio::task::spawn_blocking(move || open(&path)).await;
        let shared = opened.map_err(|cause| Error::permanent("opening the file has panicked").caused_by(cause))??;
        Ok(shared.backend(namespace, Arc::new(SystemClock), &description))
    }
}

/// The file's engine, opened if this process does not have it open. One file is opened after the other: there are few.
fn open(path: &Path) -> Result<Arc<Shared>> {
    let path = canonical(path).map_err(|cause| {
        Error::permanent(format!("there is no place for {}: {cause}", path.display())).caused_by(cause)
    })?;
    let mut all = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let open = all.get_or_insert_default();
    open.retain(|_, shared| shared.strong_count() > 0);
    if let Some(shared) = open.get(&path).and_then(Weak::upgrade) {
        return Ok(shared);
    }
    let opener = {
        let path = path.clone();
        Box::new(move || file::open(&path))
    };
    let shared = Shared::new(Engine::Embedded(Embedded::open(opener)?));
    open.insert(path, Arc::downgrade(&shared));
    Ok(shared)
}

/// One path for one file, whether it is there yet or not.
fn canonical(path: &Path) -> io::Result<PathBuf> {
    match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let name = path.file_name().ok_or(error)?;
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            Ok(parent.unwrap_or(Path::new(".")).canonicalize()?.join(name))
        }
        found => found,
    }
}
