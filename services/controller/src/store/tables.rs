//! The tables: what is where, how it is written and read.
//!
//! Invariant: everything that was answered is in both of the database's two roots. redb keeps the root before the newest
//! one and may fall back to it when the newest is damaged or was being written; the second, small commit of [`write`]
//! makes the two say the same, so that a fall back loses nothing.

use redb::{
    Database, ReadTransaction, ReadableTable, ReadableTableMetadata, Table, TableDefinition, WriteTransaction,
};
use serde::{Serialize, de::DeserializeOwned};

use super::{Batch, Bounds, Decision, Desired, FORMAT, Kept, Revision, Targets};

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const INTENT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("intent");
const TARGETS: TableDefinition<'_, (&str, &str), u32> = TableDefinition::new("targets");
const REVISIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("revisions");
const DECISIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("decisions");
/// Bytes of each revision, so that they are counted without being read. Controllers before this table do without it.
const SIZES: TableDefinition<'_, u64, u64> = TableDefinition::new("revision_bytes");

const META_FORMAT: &str = "format";
const META_APPLIED: &str = "applied";
const META_SEAL: &str = "seal";
const CURRENT: &str = "current";

type Result<T> = std::result::Result<T, redb::Error>;

/// Makes the tables of a new file.
pub(super) fn begin(database: &Database) -> Result<()> {
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        meta.insert(META_FORMAT, encode(&FORMAT)?.as_slice())?;
        let mut intent = transaction.open_table(INTENT)?;
        intent.insert(CURRENT, encode(&Desired::default())?.as_slice())?;
        transaction.open_table(TARGETS)?;
        transaction.open_table(REVISIONS)?;
        transaction.open_table(DECISIONS)?;
    }
    transaction.commit()?;
    seal(database)
}

/// The format that a file says it has.
pub(super) fn format(transaction: &ReadTransaction) -> Result<Option<u64>> {
    let meta = transaction.open_table(META)?;
    let found = meta.get(META_FORMAT)?;
    found.map(|bytes| decode(bytes.value())).transpose()
}

/// Reads everything once.
pub(super) fn inspect(transaction: &ReadTransaction) -> Result<()> {
    load(transaction)?;
    revisions(transaction, &mut |_| true)?;
    decisions(transaction, &mut |_| true)
}

pub(super) fn load(transaction: &ReadTransaction) -> Result<Kept> {
    let intent = transaction.open_table(INTENT)?;
    let desired = match intent.get(CURRENT)? {
        Some(bytes) => decode(bytes.value())?,
        None => return Err(redb::Error::Corrupted("there is no current intent".into())),
    };
    let mut targets = Targets::new();
    for row in transaction.open_table(TARGETS)?.iter()? {
        let (key, count) = row?;
        let (application, deployment) = key.value();
        targets.insert((application.to_owned(), deployment.to_owned()), count.value());
    }
    let meta = transaction.open_table(META)?;
    let applied = meta.get(META_APPLIED)?;
    Ok(Kept {
        desired,
        targets,
        applied: applied.map(|bytes| decode(bytes.value())).transpose()?,
    })
}

/// Passes revisions on, newest first.
pub(super) fn revisions(transaction: &ReadTransaction, see: &mut dyn FnMut(Revision) -> bool) -> Result<()> {
    newest_first(&transaction.open_table(REVISIONS)?, see)
}

/// Passes decisions on, newest first.
pub(super) fn decisions(transaction: &ReadTransaction, see: &mut dyn FnMut(Decision) -> bool) -> Result<()> {
    newest_first(&transaction.open_table(DECISIONS)?, see)
}

/// Writes a batch and waits for the disk.
pub(super) fn write(database: &Database, bounds: Bounds, batch: &Batch<'_>) -> Result<()> {
    let transaction = database.begin_write()?;
    fill(&transaction, bounds, batch)?;
    transaction.commit()?;
    seal(database)
}

fn fill(transaction: &WriteTransaction, bounds: Bounds, batch: &Batch<'_>) -> Result<()> {
    let mut revisions = transaction.open_table(REVISIONS)?;
    let mut decisions = transaction.open_table(DECISIONS)?;
    let mut sizes = transaction.open_table(SIZES)?;
    measure(&revisions, &mut sizes)?;
    if let Some(history) = batch.history {
        revisions.retain(|_, _| false)?;
        sizes.retain(|_, _| false)?;
        decisions.retain(|_, _| false)?;
        for revision in &history.revisions {
            insert(&mut revisions, &mut sizes, revision)?;
        }
        append(&mut decisions, &history.decisions)?;
    }
    if let Some(revision) = batch.revision {
        insert(&mut revisions, &mut sizes, revision)?;
        let mut intent = transaction.open_table(INTENT)?;
        intent.insert(CURRENT, encode(&revision.desired)?.as_slice())?;
    }
    append(&mut decisions, batch.decisions)?;
    forget(&mut revisions, &mut sizes, bounds)?;
    while decisions.len()? > bounds.decisions.max(1) {
        decisions.pop_first()?;
    }
    if let Some(targets) = batch.targets {
        let mut table = transaction.open_table(TARGETS)?;
        table.retain(|(application, deployment), _| {
            targets.contains_key(&(application.to_owned(), deployment.to_owned()))
        })?;
        for ((application, deployment), count) in targets {
            table.insert((application.as_str(), deployment.as_str()), count)?;
        }
    }
    if let Some(digest) = batch.applied {
        transaction
            .open_table(META)?
            .insert(META_APPLIED, encode(&digest)?.as_slice())?;
    }
    Ok(())
}

/// Makes a file say that it has another format.
#[cfg(test)]
pub(super) fn pretend(database: &Database, format: u64) -> Result<()> {
    let transaction = database.begin_write()?;
    transaction
        .open_table(META)?
        .insert(META_FORMAT, encode(&format)?.as_slice())?;
    transaction.commit()?;
    Ok(())
}

/// Makes a file one of a controller that does not measure its revisions.
#[cfg(test)]
pub(super) fn unmeasured(database: &Database) -> Result<()> {
    let transaction = database.begin_write()?;
    transaction.delete_table(SIZES)?;
    transaction.commit()?;
    Ok(())
}

/// Makes the second root say what the first does.
fn seal(database: &Database) -> Result<()> {
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        let before = match meta.get(META_SEAL)? {
            Some(bytes) => decode::<u64>(bytes.value())?,
            None => 0,
        };
        meta.insert(META_SEAL, encode(&before.wrapping_add(1))?.as_slice())?;
    }
    transaction.commit()?;
    Ok(())
}

fn append(table: &mut Table<'_, u64, &[u8]>, decisions: &[Decision]) -> Result<()> {
    let newest = table.last()?.map(|(key, _)| key.value());
    let keys = newest.map_or(0, |key| key + 1)..;
    for (key, decision) in keys.zip(decisions) {
        table.insert(key, encode(decision)?.as_slice())?;
    }
    Ok(())
}

fn insert(
    revisions: &mut Table<'_, u64, &[u8]>,
    sizes: &mut Table<'_, u64, u64>,
    revision: &Revision,
) -> Result<()> {
    let (version, bytes) = (revision.desired.resource_version, encode(revision)?);
    revisions.insert(version, bytes.as_slice())?;
    sizes.insert(version, bytes.len() as u64)?;
    Ok(())
}

/// Measures every revision anew if another controller has written some.
fn measure(revisions: &Table<'_, u64, &[u8]>, sizes: &mut Table<'_, u64, u64>) -> Result<()> {
    let there = (
        revisions.first()?.map(|(key, _)| key.value()),
        revisions.last()?.map(|(key, _)| key.value()),
    );
    let known = (
        sizes.first()?.map(|(key, _)| key.value()),
        sizes.last()?.map(|(key, _)| key.value()),
    );
    if there == known && revisions.len()? == sizes.len()? {
        return Ok(());
    }
    sizes.retain(|_, _| false)?;
    for row in revisions.iter()? {
        let (version, bytes) = row?;
        sizes.insert(version.value(), bytes.value().len() as u64)?;
    }
    Ok(())
}

/// Lets the oldest revisions go that are more, or larger, than is kept.
fn forget(
    revisions: &mut Table<'_, u64, &[u8]>,
    sizes: &mut Table<'_, u64, u64>,
    bounds: Bounds,
) -> Result<()> {
    let mut bytes = 0_u64;
    for row in sizes.iter()? {
        bytes = bytes.saturating_add(row?.1.value());
    }
    // The newest revision is the current intent.
    while revisions.len()? > 1 && (revisions.len()? > bounds.revisions || bytes > bounds.bytes) {
        revisions.pop_first()?;
        if let Some((_, size)) = sizes.pop_first()? {
            bytes = bytes.saturating_sub(size.value());
        }
    }
    Ok(())
}

fn newest_first<T: DeserializeOwned>(
    table: &impl ReadableTable<u64, &'static [u8]>,
    see: &mut dyn FnMut(T) -> bool,
) -> Result<()> {
    for row in table.iter()?.rev() {
        let (_, bytes) = row?;
        if !see(decode(bytes.value())?) {
            break;
        }
    }
    Ok(())
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| redb::Error::Io(error.into()))
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| redb::Error::Corrupted(error.to_string()))
}
