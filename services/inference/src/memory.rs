//! The worker's memory, and who holds how much of it: a model is admitted only if it fits beside those that are there.
//!
//! What a model takes is known from its manifest, or measured when it was loaded. It frees nothing by itself. Invariant: what is
//! held never exceeds the budget, but for a model whose true size came out only when it was there, which must then go.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Error;

/// The worker's memory.
#[derive(Debug, Clone)]
pub(crate) struct Ledger(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    budget: u64,
    held: Mutex<u64>,
}

/// Memory that a model holds until this is dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Ledger {
    /// A budget in bytes; 0 is no limit.
    pub(crate) fn new(budget: u64) -> Self {
        let shared = Shared {
            budget,
            held: Mutex::new(0),
        };
        Self(Arc::new(shared))
    }

    /// Takes so much for a model.
    ///
    /// # Errors
    /// [`Error::Memory`] when less is left.
    pub(crate) fn hold(&self, bytes: u64) -> Result<Hold, Error> {
        let mut hold = Hold {
            shared: Arc::clone(&self.0),
            bytes: 0,
        };
        hold.grow(bytes)?;
        Ok(hold)
    }

    /// What nobody holds, bytes.
    pub(crate) fn left(&self) -> u64 {
        match self.0.budget {
            0 => u64::MAX,
            budget => budget.saturating_sub(*self.0.lock()),
        }
    }
}

impl Hold {
    /// Holds at least so much from now on: what was measured is more than what was known.
    ///
    /// # Errors
    /// [`Error::Memory`] when less is left; it then holds what it held.
    pub(crate) fn grow(&mut self, bytes: u64) -> Result<(), Error> {
        let more = bytes.saturating_sub(self.bytes);
        let mut held = self.shared.lock();
        let left = self.shared.budget.saturating_sub(*held);
        if self.shared.budget > 0 && more > left {
            return Err(Error::Memory {
                needs: bytes,
                left: left + self.bytes,
                budget: self.shared.budget,
            });
        }
        *held = held.saturating_add(more);
        self.bytes = self.bytes.saturating_add(more);
        Ok(())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = self.shared.lock();
        *held = held.saturating_sub(self.bytes);
    }
}

impl Shared {
    /// One number is always whole, so a poisoned lock is as good as any.
    fn lock(&self) -> MutexGuard<'_, u64> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// This process's resident memory now, bytes; 0 where the system does not say.
pub(crate) fn resident() -> u64 {
    status("VmRSS:")
}

/// This process's resident memory at most so far, bytes; 0 where the system does not say.
pub(crate) fn peak() -> u64 {
    status("VmHWM:")
}

fn status(key: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    1024 * kib(&text, key).unwrap_or(0)
}

/// Below this part of the machine's memory it is short.
const SHORT: u64 = 4;

/// Whether less than a quarter of the machine's memory is available, so that nothing is kept that can be made again. Where the
/// system does not say, it is not.
pub(crate) fn is_short() -> bool {
    std::fs::read_to_string("/proc/meminfo").is_ok_and(|text| short(&text))
}

fn short(text: &str) -> bool {
    kib(text, "MemAvailable:")
        .zip(kib(text, "MemTotal:"))
        .is_some_and(|(available, total)| available < total / SHORT)
}

/// One amount of a file of /proc.
fn kib(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_does_not_fit_is_refused_with_what_is_left_and_fits_when_another_goes() {
        let ledger = Ledger::new(100);
        let first = ledger.hold(60).unwrap();
        assert_eq!((ledger.left(), Ledger::new(0).left()), (40, u64::MAX));
        let why = ledger.hold(50).unwrap_err();
        assert!(
            matches!(
                why,
                Error::Memory {
                    needs: 50,
                    left: 40,
                    budget: 100
                }
            ),
            "{why}"
        );
        let mut second = ledger.hold(10).unwrap();
        assert!(second.grow(41).is_err());
        second.grow(40).unwrap();
        assert!(ledger.hold(1).is_err());
        drop(first);
        assert!(ledger.hold(60).is_ok());
        drop(second);
        assert!(ledger.hold(100).is_ok());
    }

    #[test]
    fn without_a_budget_everything_fits() {
        assert!(Ledger::new(0).hold(u64::MAX).is_ok());
    }

    #[test]
    fn memory_is_short_below_a_quarter() {
        let text =
            |available: u64| format!("MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:  {available} kB\n");
        assert!(short(&text(249)) && !short(&text(250)) && !short("nothing"));
    }

    #[test]
    fn the_system_says_what_this_process_takes() {
        assert!(resident() > 0 && peak() >= resident() / 2);
    }
}
