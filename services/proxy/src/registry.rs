//! The requests that run in this proxy, by id: one at a time per id, and the way to cancel one.
//!
//! Invariant: an id is taken from the request's first moment until its work has ended or was dropped.

use std::{
    collections::{HashMap, hash_map},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{Error, events::Running};

/// A request is there once its work exists, a moment after its id was taken.
type Map = HashMap<Arc<str>, Option<Arc<Running>>>;

/// A cheap handle to the requests that run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registry(Arc<Mutex<Map>>);

/// An id that is taken; free again when dropped.
#[derive(Debug)]
pub(crate) struct Entry {
    registry: Registry,
    id: Arc<str>,
}

impl Registry {
    /// Takes `id` for a request.
    pub(crate) fn take(&self, id: Arc<str>) -> Result<Entry, Error> {
        match self.lock().entry(Arc::clone(&id)) {
            hash_map::Entry::Occupied(_) => Err(Error::Duplicate { id: id.to_string() }),
            hash_map::Entry::Vacant(free) => {
                free.insert(None);
                Ok(Entry {
                    registry: self.clone(),
                    id,
                })
            }
        }
    }

    /// Cancels the request with this id.
    pub(crate) fn cancel(&self, id: &str) -> Result<(), Error> {
        let running = self.lock().get(id).cloned().flatten();
        match running {
            Some(running) if running.cancel() => Ok(()),
            Some(_) | None => Err(Error::NotRunning { id: id.to_owned() }),
        }
    }

    /// Ends the requests whose callers have not read for `limit`; gives their ids.
    pub(crate) fn give_up(&self, limit: Duration) -> Vec<Arc<str>> {
        let running: Vec<_> = self
            .lock()
            .iter()
            .filter_map(|(id, running)| Some((Arc::clone(id), running.clone()?)))
            .collect();
        // Not under the lock: ending a request gives its id back.
        let ended = running.into_iter().filter(|(_, running)| running.give_up(limit));
        ended.map(|(id, _)| id).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Map> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// Makes the request known, so that it can be cancelled.
    pub(crate) fn attach(&self, running: Arc<Running>) {
        self.registry.lock().insert(Arc::clone(&self.id), Some(running));
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let removed = self.registry.lock().remove(&self.id);
        drop(removed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{Emit, Events};

    fn running() -> Events {
        Events::new(Emit::default(), std::future::pending())
    }

    #[test]
    fn an_id_is_taken_until_its_entry_is_dropped() {
        let registry = Registry::default();
        let entry = registry.take("a".into()).unwrap();
        assert!(matches!(registry.take("a".into()), Err(Error::Duplicate { .. })));
        drop(entry);
        assert!(registry.take("a".into()).is_ok());
    }

    #[tokio::test]
    async fn only_what_runs_can_be_cancelled() {
        let registry = Registry::default();
        let events = running();
        let entry = registry.take("a".into()).unwrap();
        assert!(registry.cancel("a").is_err());
        entry.attach(events.running());
        assert!(registry.cancel("b").is_err());
        assert!(registry.cancel("a").is_ok());
        assert!(registry.cancel("a").is_err());
    }
}
