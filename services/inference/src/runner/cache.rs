//! What the text encoders made of windows, by token ids and layers left out; least recently used out first, bounded in bytes.
//!
//! Empty and popular negative prompts, and every prompt that is drawn again with another seed, cost no text encoder run.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::engine::Encoded;

#[derive(Debug)]
struct Entry {
    states: Arc<Encoded>,
    stamp: u64,
}

/// Ids of a window, and the layers that are left out.
pub(crate) type Text = (Arc<[u32]>, usize);

/// The cache.
#[derive(Debug)]
pub(crate) struct Cache {
    capacity: usize,
    bytes: usize,
    clock: u64,
    entries: HashMap<Text, Entry>,
    order: BTreeMap<u64, Text>,
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

    /// The states of a text, which count as used now.
    pub(crate) fn get(&mut self, text: &Text) -> Option<Arc<Encoded>> {
        let entry = self.entries.get_mut(text)?;
        self.clock += 1;
        let key = self.order.remove(&entry.stamp)?;
        entry.stamp = self.clock;
        self.order.insert(self.clock, key);
        Some(Arc::clone(&entry.states))
    }

    /// Keeps states, and lets go of the ones that were not used for longest.
    pub(crate) fn insert(&mut self, text: &Text, states: &Arc<Encoded>) {
        let size = size(&text.0, states);
        let key = text.clone();
        if size > self.capacity || self.entries.contains_key(&key) {
            return;
        }
        while self.bytes + size > self.capacity {
            let Some((_, oldest)) = self.order.pop_first() else {
                break;
            };
            if let Some(entry) = self.entries.remove(&oldest) {
                self.bytes -= self::size(&oldest.0, &entry.states);
            }
        }
        self.clock += 1;
        self.bytes += size;
        self.order.insert(self.clock, key.clone());
        self.entries.insert(
            key,
            Entry {
                states: Arc::clone(states),
                stamp: self.clock,
            },
        );
    }
}

fn size(ids: &[u32], states: &Encoded) -> usize {
    size_of_val(ids) + size_of_val(&states.states[..]) + size_of_val(&states.pooled[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(id: u32, skip: usize) -> Text {
        (vec![id; 5].into(), skip)
    }

    fn states(value: f32) -> Arc<Encoded> {
        Arc::new(Encoded {
            states: vec![value; 18],
            pooled: vec![value; 2],
        })
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut cache = Cache::new(300);
        for id in 0..3 {
            cache.insert(&text(id, 0), &states(id as f32));
        }
        assert!(cache.get(&text(0, 0)).is_some());
        cache.insert(&text(3, 0), &states(3.0));
        assert!(cache.get(&text(1, 0)).is_none());
        assert_eq!(cache.get(&text(0, 0)).unwrap().states[0], 0.0);
        assert_eq!((cache.bytes, cache.entries.len(), cache.order.len()), (300, 3, 3));
    }

    #[test]
    fn states_with_other_layers_left_out_are_others() {
        let mut cache = Cache::new(300);
        cache.insert(&text(0, 0), &states(0.0));
        assert!(cache.get(&text(0, 1)).is_none());
        cache.insert(&text(0, 1), &states(1.0));
        assert_eq!(cache.get(&text(0, 0)).unwrap().states[0], 0.0);
        assert_eq!(cache.get(&text(0, 1)).unwrap().states[0], 1.0);
    }

    #[test]
    fn what_is_larger_than_the_cache_is_not_kept() {
        let mut cache = Cache::new(99);
        cache.insert(&text(0, 0), &states(0.0));
        assert!(cache.get(&text(0, 0)).is_none());
        assert_eq!(cache.bytes, 0);
    }
}
