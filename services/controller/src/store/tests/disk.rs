//! A disk that forgets: whatever was not synced when the power fails is there, or not, or in part.

use std::{
    io,
    sync::{Arc, Mutex},
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use redb::{StorageBackend, backends::InMemoryBackend};

use super::{
    super::{file, tables},
    *,
};

/// A sector is written whole.
const SECTOR: usize = 512;
/// Writes of the database that are followed, on average, by a power failure.
const FAILURES: f64 = 0.2;

enum Write {
    Bytes(u64, Vec<u8>),
    Length(u64),
}

struct Inner {
    synced: Vec<u8>,
    /// Since the last sync.
    pending: Vec<Write>,
    /// Revisions that were acknowledged, and what the disk held when the power failed.
    failures: Vec<(u64, Vec<u8>)>,
    acknowledged: u64,
    random: StdRng,
}

/// A disk in memory.
#[derive(Clone)]
struct Disk(Arc<Mutex<Inner>>);

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Disk")
    }
}

impl Inner {
    fn apply(bytes: &mut Vec<u8>, write: &Write) {
        match write {
            Write::Length(length) => bytes.resize(*length as usize, 0),
            Write::Bytes(at, data) => {
                let at = *at as usize;
                if bytes.len() < at + data.len() {
                    bytes.resize(at + data.len(), 0);
                }
                bytes[at..at + data.len()].copy_from_slice(data);
            }
        }
    }

    fn now(&self) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        self.pending
            .iter()
            .for_each(|write| Self::apply(&mut bytes, write));
        bytes
    }

    /// The power fails here, sometimes.
    fn perhaps_fail(&mut self) {
        if !self.random.random_bool(FAILURES) {
            return;
        }
        let mut bytes = self.synced.clone();
        let kept = self.random.random_range(0.0..=1.0);
        for write in &self.pending {
            match write {
                // The length of a file is the file system's; it has a journal, which keeps the order.
                Write::Length(_) => Self::apply(&mut bytes, write),
                Write::Bytes(at, data) => {
                    for (i, sector) in data.chunks(SECTOR).enumerate() {
                        if self.random.random_bool(kept) {
                            let at = *at + (i * SECTOR) as u64;
                            Self::apply(&mut bytes, &Write::Bytes(at, sector.to_vec()));
                        }
                    }
                }
            }
        }
        self.failures.push((self.acknowledged, bytes));
    }

    fn write(&mut self, write: Write) {
        self.pending.push(write);
        self.perhaps_fail();
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().now().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.lock().unwrap().now();
        let at = offset as usize;
        let found = bytes.get(at..at + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.lock().unwrap().write(Write::Length(length));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap();
        inner.perhaps_fail();
        inner.synced = inner.now();
        inner.pending.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().write(Write::Bytes(offset, data.to_vec()));
        Ok(())
    }
}

/// What is read of these bytes.
pub(super) fn read(bytes: &[u8]) -> Result<(Kept, History), String> {
    file::inspect(bytes)?;
    let copy = InMemoryBackend::new();
    copy.set_len(bytes.len() as u64).unwrap();
    StorageBackend::write(&copy, 0, bytes).unwrap();
    let database = file::builder()
        .create_with_backend(copy)
        .map_err(|error| error.to_string())?;
    Ok(everything(&mut held(database)))
}

/// A store around a database that is nowhere.
fn held(database: Database) -> Store {
    Store {
        place: Place::Memory,
        bounds: BOUNDS,
        database: Some(database),
        _lock: None,
    }
}

#[test]
fn nothing_that_was_acknowledged_is_lost_when_the_power_fails_at_any_moment() {
    let disk = Disk(Arc::new(Mutex::new(Inner {
        synced: Vec::new(),
        pending: Vec::new(),
        failures: Vec::new(),
        acknowledged: 0,
        random: StdRng::seed_from_u64(SEED),
    })));
    let database = file::builder().create_with_backend(disk.clone()).unwrap();
    tables::begin(&database).unwrap();
    // A new file has its name only when it is whole.
    disk.0.lock().unwrap().failures.clear();
    let mut store = held(database);
    for version in 1..=40 {
        put(&mut store, version);
        disk.0.lock().unwrap().acknowledged = version;
    }
    drop(store);
    let failures = std::mem::take(&mut disk.0.lock().unwrap().failures);
    assert!(failures.len() > 50, "{}", failures.len());
    for (acknowledged, bytes) in &failures {
        let (kept, history) = read(bytes).unwrap();
        let version = kept.desired.resource_version;
        assert!(
            version == *acknowledged || version == acknowledged + 1,
            "{version} after {acknowledged}"
        );
        let expected: Vec<_> = (1..=version).rev().take(5).map(revision).collect();
        assert_eq!(history.revisions, expected);
    }
    println!("{} power failures", failures.len());
}
