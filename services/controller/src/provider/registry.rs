//! What the process provider remembers over a restart of the controller: a small file of its worker processes.
//!
//! Invariant: the file is replaced as a whole, never written in place. What it says is believed only of processes that
//! live and started when it says.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use mobula_serving::place::Kind;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::pid;
use crate::{Error, state::Survivor};

/// One worker process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(super) pid: u32,
    pub(super) start_ticks: u64,
    /// The name of its binary, by which its kind is known.
    pub(super) binary: String,
    /// The worker group that it was started for; empty if that is not known.
    #[serde(default)]
    pub(super) group: String,
}

/// The worker processes by worker id, and the file.
#[derive(Debug)]
pub(crate) struct Registry {
    file: PathBuf,
    records: Mutex<BTreeMap<String, Record>>,
}

impl Registry {
    /// Opens the file of a directory, made if need be, and keeps of it what still lives.
    ///
    /// # Errors
    ///
    /// [`Error::StateDir`] if the directory cannot be made or written.
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        let failed = |source| Error::StateDir {
            path: dir.to_path_buf(),
            source,
        };
        fs::create_dir_all(dir).map_err(failed)?;
        let file = dir.join("workers.json");
        let mut records: BTreeMap<String, Record> = match fs::read(&file) {
            // A file that cannot be read names nobody; workers that live all the same attach and are known by label.
            Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|error| {
                warn!(file = %file.display(), %error, "cannot read the list of workers; it is begun anew");
                BTreeMap::new()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(failed(error)),
        };
        records.retain(|_, record| pid::start_ticks(record.pid) == Some(record.start_ticks));
        let registry = Self {
            file,
            records: Mutex::new(records),
        };
        registry.write(&registry.lock()).map_err(failed)?;
        Ok(registry)
    }

    /// Workers that were started before this life of the controller and are alive.
    pub(crate) fn survivors(&self) -> Vec<Survivor> {
        let kind = |record: &Record| {
            [Kind::Preprocess, Kind::Inference]
                .into_iter()
                .find(|kind| super::binary(*kind) == record.binary)
        };
        self.lock()
            .iter()
            .filter_map(|(id, record)| {
                let kind = kind(record)?;
                let named = Some(record.group.clone()).filter(|group| !group.is_empty());
                Some(Survivor {
                    worker_id: id.clone(),
                    kind,
                    group: named.unwrap_or_else(|| kind.to_string()),
                })
            })
            .collect()
    }

    pub(super) fn records(&self) -> Vec<(String, Record)> {
        self.lock()
            .iter()
            .map(|(id, record)| (id.clone(), record.clone()))
            .collect()
    }

    pub(super) fn put(&self, worker_id: &str, record: Record) {
        self.change(|records| drop(records.insert(worker_id.to_owned(), record)));
    }

    pub(super) fn remove(&self, worker_id: &str) {
        self.change(|records| drop(records.remove(worker_id)));
    }

    /// A file that cannot be written costs the next life its memory, not this one its workers.
    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Record>)) {
        let mut records = self.lock();
        change(&mut records);
        if let Err(error) = self.write(&records) {
            warn!(file = %self.file.display(), %error, "cannot write the list of workers");
        }
    }

    fn write(&self, records: &BTreeMap<String, Record>) -> io::Result<()> {
        let new = self.file.with_extension("new");
        fs::write(&new, serde_json::to_vec_pretty(records)?)?;
        fs::rename(&new, &self.file)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Record>> {
        // The map is whole at every point where a panic could be.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(pid: u32, start_ticks: u64) -> Record {
        Record {
            pid,
            start_ticks,
            binary: "mobula-inference".into(),
            group: "gpu".into(),
        }
    }

    #[test]
    fn the_living_are_remembered_and_a_reused_process_id_is_not_taken_for_them() {
        let dir = tempfile::tempdir().unwrap();
        let own = std::process::id();
        let ticks = pid::start_ticks(own).unwrap();
        let registry = Registry::open(dir.path()).unwrap();
        registry.put("alive", record(own, ticks));
        registry.put("reused", record(own, ticks + 1));
        registry.put("dead", record(u32::MAX, 1));
        let again = Registry::open(dir.path()).unwrap();
        let alive = Survivor {
            worker_id: "alive".into(),
            kind: Kind::Inference,
            group: "gpu".into(),
        };
        assert_eq!(again.survivors(), [alive]);
        again.remove("alive");
        assert!(Registry::open(dir.path()).unwrap().survivors().is_empty());
    }

    #[test]
    fn a_broken_file_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("workers.json"), "{").unwrap();
        assert!(Registry::open(dir.path()).unwrap().survivors().is_empty());
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Registry::open(&file.join("below")).unwrap_err();
        assert!(error.to_string().contains("--state-dir"), "{error}");
    }
}
