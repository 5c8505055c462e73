//! Things that are loaded once however many ask for them: replicas of one model in a process share its weights.
//!
//! It does not know what is loaded. Invariant: what was loaded is retired exactly once, by the last of those who had it.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::OnceCell;

/// What is loaded, by what it was loaded from.
#[derive(Debug)]
pub(crate) struct Shared<T>(Arc<Mutex<HashMap<String, Weak<Slot<T>>>>>);

#[derive(Debug)]
struct Slot<T> {
    cell: OnceCell<T>,
    users: Mutex<usize>,
}

/// One of those who have a thing.
#[derive(Debug)]
pub(crate) struct Share<T>(Arc<Slot<T>>);

impl<T> Shared<T> {
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    /// Loads a thing, or waits for who loads it, or takes what was loaded if it is sound.
    pub(crate) async fn get<E>(
        &self,
        key: String,
        is_sound: impl Fn(&T) -> bool,
        load: impl Future<Output = Result<T, E>>,
    ) -> Result<Share<T>, E> {
        let slot = {
            let mut known = lock(&self.0);
            known.retain(|_, slot| slot.strong_count() > 0);
            // What its last user has retired is not used again, even while somebody still holds it.
            let usable = known.get(&key).and_then(Weak::upgrade).filter(|slot| {
                let mut users = lock(&slot.users);
                let usable = *users > 0 && slot.cell.get().is_none_or(&is_sound);
                *users += usize::from(usable);
                usable
            });
            usable.unwrap_or_else(|| {
                let slot = Arc::new(Slot {
                    cell: OnceCell::new(),
                    users: Mutex::new(1),
                });
                known.insert(key, Arc::downgrade(&slot));
                slot
            })
        };
        // Counted already; given back when the load fails, or when whoever asks is dropped while it waits.
        let counted = Counted(Some(slot));
        if let Some(slot) = &counted.0 {
            slot.cell.get_or_try_init(|| load).await?;
        }
        Ok(counted.keep())
    }
}

/// A user who may still go away before there is something to use.
struct Counted<T>(Option<Arc<Slot<T>>>);

impl<T> Counted<T> {
    fn keep(mut self) -> Share<T> {
        // Only this takes it, and it takes `self`.
        Share(self.0.take().expect("it is kept once"))
    }
}

impl<T> Drop for Counted<T> {
    fn drop(&mut self) {
        if let Some(slot) = &self.0 {
            *lock(&slot.users) -= 1;
        }
    }
}

impl<T> Share<T> {
    /// Gives it up; the last one retires it.
    pub(crate) fn give_up(&self, retire: impl FnOnce(&T)) {
        let last = {
            let mut users = lock(&self.0.users);
            *users = users.saturating_sub(1);
            *users == 0
        };
        if last {
            retire(self);
        }
    }
}

impl<T> std::ops::Deref for Share<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // A share is made only of what was loaded.
        self.0.cell.get().expect("a share has a loaded thing")
    }
}

/// Nothing under these locks can panic half-way, so a poisoned one is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn key() -> String {
        "model".to_owned()
    }

    #[tokio::test]
    async fn those_who_ask_at_the_same_time_get_one_and_the_last_one_retires_it() {
        let shared = Shared::new();
        let loads = Cell::new(0);
        let load = || async {
            tokio::task::yield_now().await;
            loads.set(loads.get() + 1);
            Ok::<_, ()>(loads.get())
        };
        let (a, b) = tokio::join!(
            shared.get(key(), |_| true, load()),
            shared.get(key(), |_| true, load())
        );
        let (a, b) = (a.unwrap(), b.unwrap());
        assert_eq!((*a, *b, loads.get()), (1, 1, 1));
        let retired = Cell::new(0);
        a.give_up(|_| retired.set(retired.get() + 1));
        assert_eq!(retired.get(), 0);
        b.give_up(|_| retired.set(retired.get() + 1));
        assert_eq!(retired.get(), 1);
        // It is loaded anew, though the old shares are still held.
        assert_eq!(*shared.get(key(), |_| true, load()).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_load_that_fails_is_tried_again_by_the_next() {
        let shared = Shared::new();
        assert_eq!(
            shared
                .get(key(), |_| true, async { Err::<i32, _>("no") })
                .await
                .err(),
            Some("no")
        );
        assert_eq!(
            *shared
                .get(key(), |_| true, async { Ok::<_, ()>(5) })
                .await
                .unwrap(),
            5
        );
        let other = shared.get("other".to_owned(), |_| true, async { Ok::<_, ()>(6) });
        assert_eq!(*other.await.unwrap(), 6);
    }

    #[tokio::test]
    async fn what_is_broken_is_not_shared_and_who_gives_up_waiting_counts_no_more() {
        let shared = Shared::new();
        let first = shared
            .get(key(), |_| true, async { Ok::<_, ()>(1) })
            .await
            .unwrap();
        let second = shared
            .get(key(), |value| *value > 1, async { Ok::<_, ()>(2) })
            .await
            .unwrap();
        assert_eq!((*first, *second), (1, 2));
        let never = std::future::pending::<Result<i32, ()>>();
        let waits = shared.get("slow".to_owned(), |_| true, never);
        assert!(
            tokio::time::timeout(std::time::Duration::ZERO, waits)
                .await
                .is_err()
        );
        let slow = shared
            .get("slow".to_owned(), |_| true, async { Ok::<_, ()>(3) })
            .await
            .unwrap();
        let retired = Cell::new(false);
        slow.give_up(|_| retired.set(true));
        assert!(retired.get());
    }
}
