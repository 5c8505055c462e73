//! The device that several models of a worker share: their loops take turns, a call at a time, by what calls cost.
//!
//! Without it two loops would run calls against each other, each on all cores. Who comes next is decided in
//! `mobula_serving::turns`; here threads wait for it.
//!
//! Invariant: at most one call runs on the device, and a loop that ends, panics included, gives its turn back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mobula_serving::turns::{Next, Turns};
use tokio::time::Instant;

/// A device.
#[derive(Debug, Clone)]
pub(crate) struct Device(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    epoch: Instant,
    ids: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    turns: Turns,
    /// Who was given the device and has not taken it yet.
    granted: Option<u64>,
}

/// A loop's place at a device; dropping it leaves.
#[derive(Debug)]
pub(crate) struct Place {
    device: Device,
    id: u64,
}

/// A turn; dropping it ends it.
struct Turn<'a> {
    place: &'a Place,
    begun: Instant,
    returns: bool,
}

impl Device {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            epoch: Instant::now(),
            ids: AtomicU64::new(0),
        }))
    }

    pub(crate) fn join(&self) -> Place {
        let id = self.0.ids.fetch_add(1, Ordering::Relaxed);
        self.lock().turns.join(id, 1);
        Place {
            device: self.clone(),
            id,
        }
    }

    fn now(&self) -> Duration {
        self.0.epoch.elapsed()
    }

    /// Gives the device to whose turn it is, and wakes them all to see; when to look again, if it is to be waited.
    fn advance(&self, state: &mut State) -> Option<Duration> {
        match state.turns.next(self.now()) {
            Next::Run(id) => {
                state.granted = Some(id);
                self.0.changed.notify_all();
                None
            }
            Next::Wait(until) => Some(until),
            Next::Busy | Next::Idle => None,
        }
    }

    /// Nothing under the lock can panic half-way, so a poisoned one is as good as any.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Runs a call when it is its turn; `returns` says that another one follows at once.
    pub(crate) fn run<T>(&self, returns: bool, call: impl FnOnce() -> T) -> T {
        let turn = self.enter(returns);
        let result = call();
        drop(turn);
        result
    }

    fn enter(&self, returns: bool) -> Turn<'_> {
        let device = &self.device;
        let mut state = device.lock();
        // It joined when it was made and leaves when it is dropped.
        let _ = state.turns.ask(self.id);
        loop {
            if state.granted == Some(self.id) {
                state.granted = None;
                break;
            }
            let wait = device.advance(&mut state);
            if state.granted == Some(self.id) {
                continue;
            }
            let changed = &device.0.changed;
            state = match wait {
                Some(until) => {
                    let time = until.saturating_sub(device.now());
                    let woken = changed.wait_timeout(state, time);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        drop(state);
        Turn {
            place: self,
            begun: Instant::now(),
            returns,
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let device = &self.place.device;
        let mut state = device.lock();
        let now = device.now();
        state
            .turns
            .done(self.place.id, self.begun.elapsed(), now, self.returns);
        device.advance(&mut state);
        // Those who wait must look again, whether somebody was given the device or is waited for.
        device.0.changed.notify_all();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.device.lock();
        if state.granted == Some(self.id) {
            state.granted = None;
        }
        state.turns.leave(self.id);
        self.device.advance(&mut state);
        self.device.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn one_call_runs_at_a_time_and_everybody_comes_to_an_end() {
        let device = Device::new();
        let inside = Arc::new(AtomicU64::new(0));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (place, inside) = (device.join(), Arc::clone(&inside));
                std::thread::spawn(move || {
                    for n in 0..200 {
                        place.run(n < 199, || {
                            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                            std::thread::yield_now();
                            inside.fetch_sub(1, Ordering::SeqCst);
                        });
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    }

    #[test]
    fn a_call_that_panics_gives_its_turn_back() {
        let device = Device::new();
        let (broken, sound) = (device.join(), device.join());
        let (told, heard) = channel();
        let panics = std::thread::spawn(move || broken.run(true, || panic!("as the test wants it")));
        assert!(panics.join().is_err());
        std::thread::spawn(move || told.send(sound.run(false, || 5)));
        assert_eq!(heard.recv_timeout(Duration::from_secs(60)), Ok(5));
    }
}
