//! The requests that run in this proxy, by tenant and id: one at a time per id of a tenant, and the way to cancel one.
//!
//! Invariants: an id is taken from the request's first moment until its work has ended or was dropped; nobody learns of
//! another tenant's ids, nor ends what is another's.

use std::{
    collections::{HashMap, hash_map},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{Error, caller::Caller, events::Running};

/// A request is there once its work exists, a moment after its id was taken.
type Map = HashMap<Key, Option<Arc<Running>>>;

/// Whose request it is, and its id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    tenant: Arc<str>,
    id: Arc<str>,
}

/// A cheap handle to the requests that run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registry(Arc<Mutex<Map>>);

/// An id that is taken; free again when dropped.
#[derive(Debug)]
pub(crate) struct Entry {
    registry: Registry,
    key: Key,
}

impl Registry {
    /// Takes `id` for a request of `caller`'s.
    pub(crate) fn take(&self, caller: &Caller, id: Arc<str>) -> Result<Entry, Error> {
        let tenant = Arc::clone(&caller.tenant);
        let key = Key { tenant, id };
        match self.lock().entry(key.clone()) {
            hash_map::Entry::Occupied(_) => Err(Error::Duplicate {
                id: key.id.to_string(),
            }),
            hash_map::Entry::Vacant(free) => {
                free.insert(None);
                Ok(Entry {
                    registry: self.clone(),
                    key,
                })
            }
        }
    }

    /// Cancels the request of `caller`'s with this id.
    pub(crate) fn cancel(&self, caller: &Caller, id: &str) -> Result<(), Error> {
        let key = Key {
            tenant: Arc::clone(&caller.tenant),
            id: id.into(),
        };
        let running = self.lock().get(&key).cloned().flatten();
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
            .filter_map(|(key, running)| Some((Arc::clone(&key.id), running.clone()?)))
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
        self.registry.lock().insert(self.key.clone(), Some(running));
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let removed = self.registry.lock().remove(&self.key);
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

    fn of(tenant: &str) -> Caller {
        crate::caller::tests::caller(tenant, None)
    }

    #[test]
    fn an_id_is_taken_until_its_entry_is_dropped() {
        let registry = Registry::default();
        let caller = of("");
        let entry = registry.take(&caller, "a".into()).unwrap();
        let again = registry.take(&caller, "a".into());
        assert!(matches!(again, Err(Error::Duplicate { .. })));
        drop(entry);
        assert!(registry.take(&caller, "a".into()).is_ok());
    }

    #[tokio::test]
    async fn only_what_runs_can_be_cancelled() {
        let registry = Registry::default();
        let events = running();
        let caller = of("");
        let entry = registry.take(&caller, "a".into()).unwrap();
        assert!(registry.cancel(&caller, "a").is_err());
        entry.attach(events.running());
        assert!(registry.cancel(&caller, "b").is_err());
        assert!(registry.cancel(&caller, "a").is_ok());
        assert!(registry.cancel(&caller, "a").is_err());
    }

    #[tokio::test]
    async fn a_tenant_has_ids_of_its_own_and_ends_only_its_own_requests() {
        let registry = Registry::default();
        let (acme, other, events) = (of("acme"), of("other"), running());
        let entry = registry.take(&acme, "a".into()).unwrap();
        entry.attach(events.running());
        assert!(registry.cancel(&other, "a").is_err());
        let theirs = registry.take(&other, "a".into()).unwrap();
        drop(theirs);
        assert!(registry.cancel(&acme, "a").is_ok());
    }
}
