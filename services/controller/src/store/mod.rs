//! What the controller keeps over a restart: the intent, the revisions that led to it, and what its scalers decided.
//!
//! One file, `controller.redb`, below the state directory; or the same tables in memory. Refuses a file that is damaged,
//! is none of ours or is of a newer format, and leaves it as it is. Refuses a directory that another controller uses.
//!
//! Invariants: what [`Store::commit`] has answered is on the disk, and survives the process at any point after that; a
//! commit is there whole or not at all; history and decisions are bounded, the current intent is always kept.

mod file;
mod record;
mod tables;
#[cfg(test)]
mod tests;

use std::{
    fs::{File, TryLockError},
    io::Write,
    path::{Path, PathBuf},
};

use redb::{Database, ReadableDatabase, backends::InMemoryBackend};
use serde::{Deserialize, Serialize};

pub(crate) use self::record::{Action, Decision, Desired, Entry, Revision, Source, Targets};
use crate::Error;

/// Version of the tables and of what is in them.
pub(crate) const FORMAT: u64 = 1;

const FILE: &str = "controller.redb";
const LOCK: &str = "controller.lock";

/// Where it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nowhere: a restart forgets it.
    Memory,
    /// In a directory, which is made if need be.
    Dir(PathBuf),
}

impl Place {
    /// The file, or words for none.
    fn file(&self) -> PathBuf {
        match self {
            Self::Memory => PathBuf::from("(memory)"),
            Self::Dir(dir) => dir.join(FILE),
        }
    }
}

/// How much history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Revisions, the current one among them.
    pub(crate) revisions: u64,
    /// Bytes of all revisions together, as they are written; the current one is kept whatever it has.
    pub(crate) bytes: u64,
    pub(crate) decisions: u64,
}

/// Everything but the history.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Kept {
    pub(crate) desired: Desired,
    pub(crate) targets: Targets,
    /// Digest of what the flags said to deploy when they were last heeded.
    pub(crate) applied: Option<String>,
}

/// What is written at once.
#[derive(Debug, Default)]
pub(crate) struct Batch<'a> {
    /// Put in place of all revisions and decisions that are there, before anything else.
    pub(crate) history: Option<&'a History>,
    /// A new revision; what it says becomes the intent.
    pub(crate) revision: Option<&'a Revision>,
    /// All targets, in place of those that are there.
    pub(crate) targets: Option<&'a Targets>,
    pub(crate) applied: Option<&'a str>,
    pub(crate) decisions: &'a [Decision],
}

/// Revisions and decisions, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct History {
    pub(crate) revisions: Vec<Revision>,
    pub(crate) decisions: Vec<Decision>,
}

/// An open store.
#[derive(Debug)]
pub(crate) struct Store {
    place: Place,
    bounds: Bounds,
    /// None after a failure: the database does not go on after one, it has to be opened anew.
    database: Option<Database>,
    /// Held while the store is open; the kernel lets go of it when the process ends, however it ends.
    _lock: Option<File>,
}

impl Store {
    /// Opens what is kept at a place, or begins it.
    ///
    /// # Errors
    ///
    /// [`Error::StateDir`], [`Error::StateInUse`], [`Error::StateFile`]; whatever is there is left as it is.
    pub(crate) fn open(place: Place, bounds: Bounds) -> Result<Self, Error> {
        let (lock, database) = match &place {
            Place::Memory => {
                let fresh = file::builder().create_with_backend(InMemoryBackend::new());
                let fresh = fresh.map_err(redb::Error::from).and_then(|database| {
                    tables::begin(&database)?;
                    Ok(database)
                });
                (None, fresh.map_err(|error| failed(&place, error))?)
            }
            Place::Dir(dir) => (Some(take(dir)?), file::open(&dir.join(FILE))?),
        };
        Ok(Self {
            place,
            bounds,
            database: Some(database),
            _lock: lock,
        })
    }

    /// Everything but the history.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] if it cannot be read.
    pub(crate) fn load(&mut self) -> Result<Kept, Error> {
        self.run(|database, _| tables::load(&database.begin_read()?))
    }

    /// Writes a batch. When this answers, it is on the disk.
    ///
    /// # Errors
    ///
    /// [`Error::Store`]; whether the batch is there shows when the store is read again.
    pub(crate) fn commit(&mut self, batch: &Batch<'_>) -> Result<(), Error> {
        self.run(|database, bounds| tables::write(database, bounds, batch))
    }

    /// Passes revisions to `see`, newest first, until it has seen enough and says false.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] if they cannot be read.
    pub(crate) fn revisions(&mut self, mut see: impl FnMut(Revision) -> bool) -> Result<(), Error> {
        self.run(|database, _| tables::revisions(&database.begin_read()?, &mut see))
    }

    /// Passes decisions to `see`, newest first, until it says false.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] if they cannot be read.
    pub(crate) fn decisions(&mut self, mut see: impl FnMut(Decision) -> bool) -> Result<(), Error> {
        self.run(|database, _| tables::decisions(&database.begin_read()?, &mut see))
    }

    /// The error for what is there and cannot be used.
    pub(crate) fn unreadable(&self, why: String) -> Error {
        Error::StateFile {
            path: self.place.file(),
            why,
        }
    }

    /// True if the last call failed: what is in the file may differ from what the caller knows.
    pub(crate) fn is_broken(&self) -> bool {
        self.database.is_none()
    }

    /// Has everything read again before the next work: what the caller knows may not be what the disk says.
    pub(crate) fn distrust(&mut self) {
        if matches!(self.place, Place::Dir(_)) {
            self.database = None;
        }
    }

    fn run<T>(&mut self, work: impl FnOnce(&Database, Bounds) -> Result<T, redb::Error>) -> Result<T, Error> {
        let database = match (self.database.take(), &self.place) {
            (Some(database), _) => database,
            (None, Place::Dir(dir)) => file::open(&dir.join(FILE))?,
            (None, Place::Memory) => return Err(failed(&self.place, redb::Error::DatabaseClosed)),
        };
        match work(&database, self.bounds) {
            Ok(done) => {
                self.database = Some(database);
                Ok(done)
            }
            Err(error) => Err(failed(&self.place, error)),
        }
    }
}

/// Makes the directory and takes it for this process alone.
fn take(dir: &Path) -> Result<File, Error> {
    let unusable = |source| Error::StateDir {
        path: dir.to_path_buf(),
        source,
    };
    std::fs::create_dir_all(dir).map_err(unusable)?;
    let path = dir.join(LOCK);
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(Error::StateInUse {
                path: dir.to_path_buf(),
                by: std::fs::read_to_string(&path)
                    .unwrap_or_default()
                    .trim()
                    .to_owned(),
            });
        }
        Err(TryLockError::Error(source)) => return Err(unusable(source)),
    }
    // For the words of the one that comes second; the lock itself does not depend on it.
    let _ = file.set_len(0);
    let _ = write!(file, "{}", std::process::id());
    Ok(file)
}

fn failed(place: &Place, source: redb::Error) -> Error {
    Error::Store {
        path: place.file(),
        source: Box::new(source),
    }
}
