//! One stop signal, one deadline for everything that follows it, and all tasks known by name.
//!
//! Nothing here says how a part drains; it says when to begin ([`Stop::triggered`]), when it is over
//! ([`Stop::expired`]) and who is still at it ([`Stop::wait`]). There is a single deadline, set by the first trigger
//! and only ever moved closer, so that no stage can add its own timeout to the sum.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::{AbortHandle, JoinHandle},
    time::Instant,
};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

/// A cheap handle to the process's one stop signal.
#[derive(Clone, Debug)]
pub struct Stop(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    grace: Duration,
    token: CancellationToken,
    deadline: watch::Sender<Option<Instant>>,
    tracker: TaskTracker,
    running: Mutex<BTreeMap<&'static str, usize>>,
    aside: Mutex<Vec<AbortHandle>>,
}

/// How a drain ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every task ended by itself.
    Clean,
    /// The deadline passed while these were running.
    Cut(Vec<&'static str>),
}

/// Keeps a drain waiting while it lives, as a task does; made by [`Stop::hold`].
#[derive(Debug)]
pub struct Hold {
    name: &'static str,
    stop: Stop,
    _token: TaskTrackerToken,
}

impl Stop {
    /// Makes a signal whose drain may take `grace`.
    pub fn new(grace: Duration) -> Self {
        Self(Arc::new(Inner {
            grace,
            token: CancellationToken::new(),
            deadline: watch::Sender::new(None),
            tracker: TaskTracker::new(),
            running: Mutex::new(BTreeMap::new()),
            aside: Mutex::new(Vec::new()),
        }))
    }

    /// Begins the drain; the deadline is now plus the grace. Later calls change nothing.
    pub fn trigger(&self) {
        self.trigger_within(self.0.grace);
    }

    /// Begins the drain with at most `grace`, or moves the deadline of a drain under way closer; never further off.
    pub fn trigger_within(&self, grace: Duration) {
        let deadline = Instant::now() + grace.min(self.0.grace);
        self.0.deadline.send_if_modified(|current| {
            let closer = current.is_none_or(|current| deadline < current);
            if closer {
                *current = Some(deadline);
            }
            closer
        });
        self.0.token.cancel();
    }

    /// True once the drain has begun.
    pub fn is_triggered(&self) -> bool {
        self.0.token.is_cancelled()
    }

    /// Waits for the drain to begin.
    pub async fn triggered(&self) {
        self.0.token.cancelled().await;
    }

    /// Waits until the drain has begun and its time is over.
    pub async fn expired(&self) {
        let mut changes = self.0.deadline.subscribe();
        loop {
            let deadline = *changes.borrow_and_update();
            // The sender lives in `self`: `changed` cannot fail while we are here.
            match deadline {
                Some(deadline) => tokio::select! {
                    () = tokio::time::sleep_until(deadline) => return,
                    _ = changes.changed() => {}
                },
                None => {
                    let _ = changes.changed().await;
                }
            }
        }
    }

    /// When the drain must be over; none before it has begun.
    pub fn deadline(&self) -> Option<Instant> {
        *self.0.deadline.borrow()
    }

    /// The signal as a token, for code that speaks `CancellationToken`. Cancelling it sets no deadline: use
    /// [`Stop::trigger`].
    pub fn token(&self) -> &CancellationToken {
        &self.0.token
    }

    /// Starts a task that a drain waits for. Its name is what the log says when it does not end in time.
    pub fn spawn<F>(&self, name: &'static str, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let hold = self.hold(name);
        tokio::spawn(async move {
            let _hold = hold;
            task.await
        })
    }

    /// Starts a task that no drain waits for and that is ended when the drain is over: admin pages, upkeep. The task
    /// must not own a `Stop`, or it would keep itself alive.
    pub fn spawn_aside<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let handle = tokio::spawn(task).abort_handle();
        let mut aside = lock(&self.0.aside);
        aside.retain(|task| !task.is_finished());
        aside.push(handle);
    }

    /// Keeps the drain waiting until the hold is dropped.
    pub fn hold(&self, name: &'static str) -> Hold {
        *lock(&self.0.running).entry(name).or_default() += 1;
        Hold {
            name,
            stop: self.clone(),
            _token: self.0.tracker.token(),
        }
    }

    /// Waits until every task has ended, or until the deadline of the drain; then ends what runs aside.
    pub async fn wait(&self) -> Drained {
        self.0.tracker.close();
        let drained = tokio::select! {
            biased;
            () = self.0.tracker.wait() => Drained::Clean,
            () = self.expired() => Drained::Cut(lock(&self.0.running).keys().copied().collect()),
        };
        for task in lock(&self.0.aside).drain(..) {
            task.abort();
        }
        drained
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut running = lock(&self.stop.0.running);
        if let Some(count) = running.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                running.remove(self.name);
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for task in lock(&self.aside).drain(..) {
            task.abort();
        }
    }
}

/// No code under these locks can panic half-way, so a poisoned lock still guards a whole value.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn a_drain_is_clean_when_every_task_ends_in_time() {
        let stop = Stop::new(GRACE);
        let inside = stop.clone();
        stop.spawn("worker", async move {
            inside.triggered().await;
            tokio::time::sleep(Duration::from_secs(4)).await;
        });
        stop.trigger();
        assert_eq!(stop.wait().await, Drained::Clean);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_is_cut_at_the_deadline_and_names_who_was_late() {
        let stop = Stop::new(GRACE);
        stop.spawn("late", std::future::pending::<()>());
        stop.spawn("early", async {});
        let start = Instant::now();
        stop.trigger();
        assert_eq!(stop.wait().await, Drained::Cut(vec!["late"]));
        assert_eq!(start.elapsed(), GRACE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_trigger_does_not_move_the_deadline_away() {
        let stop = Stop::new(GRACE);
        stop.trigger();
        let deadline = stop.deadline();
        tokio::time::advance(Duration::from_secs(1)).await;
        stop.trigger();
        assert_eq!(stop.deadline(), deadline);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shorter_grace_moves_the_deadline_closer_for_those_who_wait_already() {
        let stop = Stop::new(GRACE);
        stop.trigger();
        let start = Instant::now();
        let waiting = {
            let stop = stop.clone();
            tokio::spawn(async move { stop.expired().await })
        };
        tokio::task::yield_now().await;
        stop.trigger_within(Duration::from_secs(1));
        waiting.await.unwrap();
        assert_eq!(start.elapsed(), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_runs_aside_is_not_waited_for_and_ends_with_the_drain() {
        let stop = Stop::new(GRACE);
        let (alive, mut ended) = tokio::sync::mpsc::channel::<()>(1);
        stop.spawn_aside(async move {
            let _alive = alive;
            std::future::pending().await
        });
        stop.trigger();
        assert_eq!(stop.wait().await, Drained::Clean);
        assert_eq!(ended.recv().await, None);
    }
}
