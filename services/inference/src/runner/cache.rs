//! Text states by token ids, least recently used out first, bounded in bytes.
//!
//! Empty and popular negative prompts, and every prompt that is drawn again with another seed, cost no text encoder run.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

#[derive(Debug)]
struct Entry {
    states: Arc<[f32]>,
    stamp: u64,
}

/// The cache.
#[derive(Debug)]
pub(crate) struct Cache {
    capacity: usize,
    bytes: usize,
    clock: u64,
    entries: HashMap<Arc<[u32]>, Entry>,
    order: BTreeMap<u64, Arc<[u32]>>,
}

impl Cache {
    /// Makes a cache that holds so many bytes of ids and states; with 0 it holds nothing.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            bytes: 0,
            clock: 0,
            entries: HashMap::new(),
            order: BTreeMap::new(),
        }
    }

    /// The states of these ids, which count as used now.
    pub(crate) fn get(&mut self, ids: &[u32]) -> Option<Arc<[f32]>> {
        let entry = self.entries.get_mut(ids)?;
        self.clock += 1;
        let key = self.order.remove(&entry.stamp)?;
        entry.stamp = self.clock;
        self.order.insert(self.clock, key);
        Some(Arc::clone(&entry.states))
    }

    /// Keeps states, and lets go of the ones that were not used for longest.
    pub(crate) fn insert(&mut self, ids: &Arc<[u32]>, states: &Arc<[f32]>) {
        let size = size(ids, states);
        if size > self.capacity || self.entries.contains_key(ids) {
            return;
        }
        while self.bytes + size > self.capacity {
            let Some((_, oldest)) = self.order.pop_first() else {
                break;
            };
            if let Some(entry) = self.entries.remove(&oldest) {
                self.bytes -= self::size(&oldest, &entry.states);
            }
        }
        self.clock += 1;
        self.bytes += size;
        self.order.insert(self.clock, Arc::clone(ids));
        self.entries.insert(
            Arc::clone(ids),
            Entry {
                states: Arc::clone(states),
                stamp: self.clock,
            },
        );
    }
}

fn size(ids: &[u32], states: &[f32]) -> usize {
    size_of_val(ids) + size_of_val(states)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(id: u32) -> Arc<[u32]> {
        vec![id; 5].into()
    }

    fn states(value: f32) -> Arc<[f32]> {
        vec![value; 20].into()
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut cache = Cache::new(300);
        for id in 0..3 {
            cache.insert(&ids(id), &states(id as f32));
        }
        assert!(cache.get(&ids(0)).is_some());
        cache.insert(&ids(3), &states(3.0));
        assert!(cache.get(&ids(1)).is_none());
        assert_eq!(cache.get(&ids(0)).unwrap()[0], 0.0);
        assert_eq!((cache.bytes, cache.entries.len(), cache.order.len()), (300, 3, 3));
    }

    #[test]
    fn what_is_larger_than_the_cache_is_not_kept() {
        let mut cache = Cache::new(99);
        cache.insert(&ids(0), &states(0.0));
        assert!(cache.get(&ids(0)).is_none());
        assert_eq!(cache.bytes, 0);
    }
}
