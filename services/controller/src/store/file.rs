//! Opening the file, and refusing it in words.
//!
//! An existing file is read into memory first and checked there, whole: opening it for writing may write to it, and a
//! damaged file is evidence that is not to be touched. Invariant: a file that is refused has the bytes that it had.

use std::{
    fs::{self, File},
    io,
    path::Path,
    thread,
};

use redb::{Builder, Database, DatabaseError, ReadableDatabase, StorageBackend, backends::InMemoryBackend};

use super::{FORMAT, tables};
use crate::Error;

/// Of the file's pages, in memory: the intent and what is asked most; redb's own default is 1 GiB.
const CACHE_BYTES: usize = 8 << 20;
/// Larger is no file of ours: the largest intent a hundred times over, its decisions, and as much again.
const MAX_FILE_BYTES: u64 = 1 << 30;

pub(super) fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Opens a file, or begins one where none is.
pub(super) fn open(path: &Path) -> Result<Database, Error> {
    let refuse = |why: String| Error::StateFile {
        path: path.to_path_buf(),
        why,
    };
    let unreadable = |error: io::Error| refuse(format!("it cannot be read: {error}"));
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            begin(path).map_err(|error| refuse(format!("it cannot be made: {error}")))?;
        }
        Err(error) => return Err(unreadable(error)),
        Ok(found) if found.len() > MAX_FILE_BYTES => {
            return Err(refuse(format!(
                "it has {} bytes and is no state file of a controller",
                found.len()
            )));
        }
        Ok(_) => {
            let bytes = fs::read(path).map_err(unreadable)?;
            // On a thread of its own, so that a panic in the reading of a damaged file is one more way to refuse it.
            let inspected = thread::spawn(move || inspect(&bytes)).join();
            inspected
                .unwrap_or_else(|_| Err("it is damaged".to_owned()))
                .map_err(refuse)?;
        }
    }
    builder().open(path).map_err(|error| refuse(say(error)))
}

/// Makes a file with empty tables under another name first, so that an empty or half-made file is never taken for one
/// that has nothing in it.
fn begin(path: &Path) -> Result<(), redb::Error> {
    let new = path.with_extension("new");
    let file = File::options()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(&new)?;
    let database = builder().create_file(file)?;
    tables::begin(&database)?;
    drop(database);
    fs::rename(&new, path)?;
    // The name is on the disk when its directory is.
    if let Some(dir) = path.parent() {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

/// Says what is wrong with a file's bytes.
pub(super) fn inspect(bytes: &[u8]) -> Result<(), String> {
    if bytes.is_empty() {
        return Err("it is empty".into());
    }
    let copy = InMemoryBackend::new();
    let copied = copy
        .set_len(bytes.len() as u64)
        .and_then(|()| copy.write(0, bytes));
    copied.map_err(|error| error.to_string())?;
    let mut database = builder().create_with_backend(copy).map_err(say)?;
    // False says that it was repaired: by the older of two roots, which has the same in it.
    database.check_integrity().map_err(say)?;
    let transaction = database.begin_read().map_err(|error| damaged(&error))?;
    match tables::format(&transaction).map_err(|error| damaged(&error))? {
        Some(FORMAT) => {}
        Some(format) if format > FORMAT => {
            return Err(format!(
                "it was written by a newer controller (format {format}; this one reads {FORMAT}): start that one"
            ));
        }
        Some(_) | None => return Err("it is no state file of a controller".into()),
    }
    tables::inspect(&transaction).map_err(|error| damaged(&error))
}

fn say(error: DatabaseError) -> String {
    match error {
        DatabaseError::DatabaseAlreadyOpen => "another process has it open".into(),
        DatabaseError::UpgradeRequired(_)
        | DatabaseError::RepairAborted
        | DatabaseError::TransactionInProgress
        | DatabaseError::Storage(_)
        | _ => damaged(&error),
    }
}

fn damaged(error: &dyn std::error::Error) -> String {
    format!("it is damaged, or no state file of a controller ({error})")
}
