//! Pictures that answers hold links to: kept in this proxy's memory, for an hour, within a number of bytes. Other proxies
//! do not have them.
//!
//! Names are 128 random bits, so that a link is known only to whom it was given. Invariant: what is kept never exceeds the
//! limit; the oldest go first where newer ones need the room.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use mobula_proto::image::v1::ImageFormat;

use super::format;
use crate::{clock::Clock, metrics::Metrics};

/// How long links are good: OpenAI's own hour.
const GOOD: Duration = Duration::from_secs(3600);
/// How often what is too old is let go: memory is given back within a fiftieth of that time.
const SWEEP: Duration = Duration::from_secs(72);

/// A picture and how it is encoded.
type File = (Bytes, ImageFormat);

/// What is kept, without a clock of its own.
#[derive(Debug)]
struct Shelf {
    limit: u64,
    held: u64,
    /// By age, the oldest first; until when each is kept.
    order: VecDeque<(Duration, u128)>,
    files: HashMap<u128, (Duration, File)>,
}

impl Shelf {
    fn new(limit: u64) -> Self {
        Self {
            limit,
            held: 0,
            order: VecDeque::new(),
            files: HashMap::new(),
        }
    }

    /// Keeps a picture by a name; gives how many others had to go before their time, or nothing when it is too large.
    fn put(&mut self, now: Duration, name: u128, file: File) -> Option<u64> {
        self.sweep(now);
        let bytes = file.0.len() as u64;
        if bytes > self.limit {
            return None;
        }
        let mut gone = 0;
        while self.held + bytes > self.limit {
            self.drop_oldest();
            gone += 1;
        }
        self.held += bytes;
        self.order.push_back((now + GOOD, name));
        self.files.insert(name, (now + GOOD, file));
        Some(gone)
    }

    /// A picture, and how long it stays.
    fn get(&self, now: Duration, name: u128) -> Option<(File, Duration)> {
        let (until, file) = self.files.get(&name)?;
        let left = until.checked_sub(now).filter(|left| !left.is_zero())?;
        Some((file.clone(), left))
    }

    /// Lets go of what is too old.
    fn sweep(&mut self, now: Duration) {
        while self.order.front().is_some_and(|(until, _)| *until <= now) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let oldest = self.order.pop_front();
        if let Some((_, (data, _))) = oldest.and_then(|(_, name)| self.files.remove(&name)) {
            self.held -= data.len() as u64;
        }
    }
}

/// What is kept.
#[derive(Debug)]
pub(super) struct Kept {
    shelf: Mutex<Shelf>,
    clock: Clock,
    bytes: metrics::Gauge,
    dropped: metrics::Counter,
}

impl Kept {
    /// Keeps at most `limit` bytes.
    pub(super) fn new(limit: u64, metrics: &Metrics, clock: Clock) -> Self {
        Self {
            shelf: Mutex::new(Shelf::new(limit)),
            clock,
            bytes: metrics.kept.clone(),
            dropped: metrics.dropped.clone(),
        }
    }

    /// True when nothing is ever kept.
    pub(super) fn is_off(&self) -> bool {
        self.lock().limit == 0
    }

    /// Keeps a picture and gives its name; nothing when it is larger than all that may be kept.
    pub(super) fn put(&self, file: File) -> Option<String> {
        let end = format::word(file.1);
        let name = rand::random::<u128>();
        let mut shelf = self.lock();
        let gone = shelf.put(self.clock.now(), name, file)?;
        self.bytes.set(shelf.held as f64);
        self.dropped.increment(gone);
        Some(format!("{name:032x}.{end}"))
    }

    /// A picture by its name, and how long it stays.
    pub(super) fn get(&self, name: &str) -> Option<(File, Duration)> {
        let (digits, end) = name.split_once('.')?;
        let name = u128::from_str_radix(digits, 16).ok()?;
        let (file, left) = self.lock().get(self.clock.now(), name)?;
        // Nothing but the name that was given.
        (digits.len() == 32 && end == format::word(file.1)).then_some((file, left))
    }

    /// Lets go, for ever, of what is too old.
    pub(super) async fn sweep(&self) -> Infallible {
        loop {
            tokio::time::sleep(SWEEP).await;
            let mut shelf = self.lock();
            shelf.sweep(self.clock.now());
            self.bytes.set(shelf.held as f64);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        // Nothing under this lock can panic half-way.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(bytes: usize) -> File {
        (vec![7; bytes].into(), ImageFormat::Png)
    }

    #[test]
    fn a_picture_is_there_for_an_hour() {
        let mut shelf = Shelf::new(10);
        let at = Duration::from_secs;
        assert_eq!(shelf.put(at(5), 1, file(4)), Some(0));
        assert_eq!(shelf.get(at(6), 1), Some((file(4), at(3599))));
        assert_eq!(shelf.get(at(6), 2), None);
        assert_eq!(shelf.get(at(3605), 1), None);
        shelf.sweep(at(3605));
        assert_eq!((shelf.held, shelf.files.len()), (0, 0));
    }

    #[test]
    fn the_oldest_make_room() {
        let mut shelf = Shelf::new(10);
        let now = Duration::ZERO;
        assert_eq!(shelf.put(now, 1, file(4)), Some(0));
        assert_eq!(shelf.put(now, 2, file(4)), Some(0));
        assert_eq!(shelf.put(now, 3, file(5)), Some(1));
        assert_eq!(shelf.get(now, 1), None);
        assert!(shelf.get(now, 2).is_some() && shelf.get(now, 3).is_some());
        assert_eq!(
            shelf.put(now, 4, file(11)),
            None,
            "nothing goes for what cannot stay"
        );
        assert_eq!(shelf.put(now, 5, file(10)), Some(2));
    }

    proptest! {
        #[test]
        fn the_limit_holds_whatever_comes(
            steps in prop::collection::vec((0u64..4000, 0usize..60), 0..60), limit in 0u64..100,
        ) {
            let mut shelf = Shelf::new(limit);
            let mut now = Duration::ZERO;
            for (name, (wait, bytes)) in steps.into_iter().enumerate() {
                now += Duration::from_secs(wait);
                let put = shelf.put(now, name as u128, file(bytes));
                prop_assert_eq!(put.is_some(), bytes as u64 <= limit);
                let sum: usize = shelf.files.values().map(|(_, (data, _))| data.len()).sum();
                prop_assert!(shelf.held <= limit && shelf.held == sum as u64);
                prop_assert_eq!(shelf.order.len(), shelf.files.len());
            }
        }
    }
}
