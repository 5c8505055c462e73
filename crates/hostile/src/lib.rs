//! Clients that mean harm, or are broken, written by hand: what the tests of every port send. For tests alone, whence it
//! panics where something does not come about; it knows nothing of ours, and judges ports by what they answer.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

pub mod frames;
pub mod heads;
pub mod json;

mod http;
mod wire;

use std::time::Duration;

pub use self::{
    http::{Answered, call, get},
    wire::{flood, pour, send, send_again, until_ended},
};

/// Longer than anything in a test takes, shorter than the test runner's patience.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for what must come about soon.
///
/// # Panics
/// When it does not.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what} did not happen"))
}

/// Stops the clock. It goes on in small steps, each with a moment of real time in which the system carries bytes: in one great
/// step a ping is sent and is late before anybody could answer it.
///
/// # Panics
/// When the clock stands already.
pub fn pause() {
    const STEP: Duration = Duration::from_millis(500);
    const MOMENT: Duration = Duration::from_micros(100);
    tokio::time::pause();
    tokio::spawn(async {
        loop {
            tokio::time::sleep(STEP).await;
            std::thread::sleep(MOMENT);
        }
    });
}

/// Bytes of memory that this process has, the tests' own included.
#[must_use]
pub fn resident() -> usize {
    const PAGE: usize = 4 << 10;
    let told = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = told.split(' ').nth(1).unwrap().parse().unwrap();
    pages * PAGE
}
