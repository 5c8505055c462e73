//! Which models a replica holds of those that it serves on demand: the least recently used makes room.
//!
//! Pure: it knows ids and counts, and loads nothing. Ray's `@serve.multiplexed` has the same order (LRU) and the same bound
//! (`max_num_models_per_replica`); here loads run beside each other, and a model in use is never taken away.
//!
//! Invariants: never more than `max` models; a model with users stays.

use std::collections::BTreeMap;

/// The models of a replica.
#[derive(Clone, Debug)]
pub struct Shelf {
    max: usize,
    slots: BTreeMap<String, Slot>,
    /// Counts takings; the larger, the later.
    clock: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    users: usize,
    used: u64,
}

/// What taking a model means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is held, or on its way.
    Held,
    /// It has a place now and is to be loaded; what is named leaves for it.
    New {
        /// The least recently used model that nobody uses.
        leaves: Option<String>,
    },
}

/// Every model that is held is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("all {held} models that the replica may hold are in use")]
pub struct Full {
    /// How many there are.
    pub held: usize,
}

impl Shelf {
    /// An empty shelf for so many models, at least one.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            max: max.max(1),
            slots: BTreeMap::new(),
            clock: 0,
        }
    }

    /// Takes a model for one more user, making room for it if need be.
    ///
    /// # Errors
    /// [`Full`] when there is no place and nobody to leave.
    pub fn take(&mut self, id: &str) -> Result<Taken, Full> {
        self.clock += 1;
        let used = self.clock;
        if let Some(slot) = self.slots.get_mut(id) {
            slot.users += 1;
            slot.used = used;
            return Ok(Taken::Held);
        }
        let mut leaves = None;
        if self.slots.len() >= self.max {
            let held = self.slots.len();
            leaves = Some(self.evict().ok_or(Full { held })?);
        }
        self.slots.insert(id.to_owned(), Slot { users: 1, used });
        Ok(Taken::New { leaves })
    }

    /// A user has done with it.
    pub fn leave(&mut self, id: &str) {
        if let Some(slot) = self.slots.get_mut(id) {
            slot.users = slot.users.saturating_sub(1);
        }
    }

    /// Takes away the least recently used model that nobody uses, and says which.
    pub fn evict(&mut self) -> Option<String> {
        let idle = self.slots.iter().filter(|(_, slot)| slot.users == 0);
        let id = idle.min_by_key(|(_, slot)| slot.used)?.0.clone();
        self.slots.remove(&id);
        Some(id)
    }

    /// Forgets a model that could not be loaded, once nobody waits for it; true if it did.
    pub fn forget(&mut self, id: &str) -> bool {
        let idle = self.slots.get(id).is_some_and(|slot| slot.users == 0);
        if idle {
            self.slots.remove(id);
        }
        idle
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn new(leaves: Option<&str>) -> Result<Taken, Full> {
        Ok(Taken::New {
            leaves: leaves.map(ToOwned::to_owned),
        })
    }

    #[test]
    fn the_least_recently_used_idle_model_makes_room() {
        let mut shelf = Shelf::new(2);
        assert_eq!(shelf.take("a"), new(None));
        assert_eq!(shelf.take("b"), new(None));
        shelf.leave("a");
        shelf.leave("b");
        assert_eq!(shelf.take("a"), Ok(Taken::Held));
        shelf.leave("a");
        assert_eq!(shelf.take("c"), new(Some("b")));
    }

    #[test]
    fn a_model_in_use_stays() {
        let mut shelf = Shelf::new(1);
        assert_eq!(shelf.take("a"), new(None));
        assert_eq!(shelf.take("b"), Err(Full { held: 1 }));
        assert_eq!(shelf.take("a"), Ok(Taken::Held));
        shelf.leave("a");
        assert_eq!(shelf.take("b"), Err(Full { held: 1 }));
        shelf.leave("a");
        assert_eq!(shelf.take("b"), new(Some("a")));
    }

    #[test]
    fn what_could_not_be_loaded_is_forgotten_when_nobody_waits_for_it() {
        let mut shelf = Shelf::new(1);
        assert_eq!(shelf.take("a"), new(None));
        assert!(!shelf.forget("a"));
        shelf.leave("a");
        assert!(shelf.forget("a"));
        assert_eq!(shelf.take("b"), new(None));
    }

    proptest! {
        /// Whatever is asked for: never more than the bound, and nobody's model is taken away.
        #[test]
        fn models_in_use_stay_and_the_bound_holds(max in 1..4_usize, steps in prop::collection::vec((0..6_u8, any::<bool>()), 0..80)) {
            let mut shelf = Shelf::new(max);
            let mut users: Vec<String> = Vec::new();
            for (id, leaves) in steps {
                let id = id.to_string();
                if leaves {
                    if let Some(at) = users.iter().position(|user| *user == id) {
                        users.remove(at);
                        shelf.leave(&id);
                    }
                } else {
                    match shelf.take(&id) {
                        Ok(Taken::New { leaves: Some(gone) }) => {
                            prop_assert!(!users.contains(&gone));
                            users.push(id);
                        }
                        Ok(_) => users.push(id),
                        Err(Full { held }) => prop_assert_eq!(held, max),
                    }
                }
                prop_assert!(shelf.slots.len() <= max);
                for user in &users {
                    prop_assert!(shelf.slots.contains_key(user));
                }
            }
        }
    }
}
