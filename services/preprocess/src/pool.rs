//! A fixed number of threads that tokenize long texts, with a bounded queue before them.
//!
//! Refuses work when the queue is full, with the time in which it should have drained, and after [`Pool::close`]. Work whose
//! caller is gone is dropped before it is begun. Invariant: at most `queue` jobs wait, at most `threads` run.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use crate::{Error, metrics::Queue};

/// Before anything was measured: a text of 64 KiB takes a few milliseconds.
const FIRST_ESTIMATE: Duration = Duration::from_millis(5);
/// A retry sooner than this finds the same queue.
const MIN_RETRY: Duration = Duration::from_millis(1);
/// A new measurement's part in the estimate: one in eight follows changes within a few jobs.
const ESTIMATE_SHARE: u32 = 8;

type Job = Box<dyn FnOnce() -> Outcome + Send>;

/// What became of a job.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    Abandoned,
}

/// A cheap handle to the threads.
#[derive(Clone, Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    metrics: Queue,
}

struct Shared {
    state: Mutex<State>,
    /// Wakes a thread for a job, and all for the end.
    wake: Condvar,
    queue: usize,
    threads: usize,
}

struct State {
    waiting: VecDeque<(Instant, Job)>,
    idle: usize,
    /// Moving average of what a job takes.
    estimate: Duration,
    closed: bool,
    handles: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts `threads` threads; `queue` jobs may wait while all of them are busy.
    pub(crate) fn start(threads: usize, queue: usize, metrics: Queue) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                idle: 0,
                estimate: FIRST_ESTIMATE,
                closed: false,
                handles: Vec::new(),
            }),
            wake: Condvar::new(),
            queue,
            threads,
        });
        let pool = Self { shared, metrics };
        for number in 0..threads {
            let (shared, metrics) = (Arc::clone(&pool.shared), pool.metrics.clone());
            let thread = std::thread::Builder::new().name(format!("tokenizer-{number}"));
            // The ones started before end with the pool that is dropped on an error: `close` is called on the way out.
            match thread.spawn(move || shared.work(&metrics)) {
                Ok(handle) => pool.shared.lock().handles.push(handle),
                Err(source) => {
                    pool.close();
                    return Err(Error::Start {
                        what: "a tokenizer thread",
                        source,
                    });
                }
            }
        }
        Ok(pool)
    }

    /// Runs `work` on one of the threads and waits for what it gives. Dropping the future drops work that has not begun.
    ///
    /// # Errors
    ///
    /// [`Error::Overloaded`] when the queue is full, [`Error::Stopping`] after [`Pool::close`], [`Error::Panicked`].
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.push(Box::new(move || {
            if reply.is_closed() {
                return Outcome::Abandoned;
            }
            // What the work may leave half done belongs to the caches of a tokenizer, whose entries are whole.
            if let Ok(done) = catch_unwind(AssertUnwindSafe(work)) {
                let _ = reply.send(done);
            }
            Outcome::Done
        }))?;
        answer.await.map_err(|_| {
            if self.shared.lock().closed {
                Error::Stopping
            } else {
                Error::Panicked
            }
        })
    }

    fn push(&self, job: Job) -> Result<(), Error> {
        let mut state = self.shared.lock();
        if state.closed {
            return Err(Error::Stopping);
        }
        // Jobs for idle threads do not wait: they are only on their way.
        let depth = state.waiting.len().saturating_sub(state.idle);
        if state.waiting.len() >= self.shared.queue + state.idle {
            let jobs = u32::try_from(depth + self.shared.threads).unwrap_or(u32::MAX);
            let threads = u32::try_from(self.shared.threads.max(1)).unwrap_or(u32::MAX);
            let retry_after = (state.estimate.saturating_mul(jobs) / threads).max(MIN_RETRY);
            drop(state);
            self.metrics.refused();
            return Err(Error::Overloaded { depth, retry_after });
        }
        self.metrics.entered();
        state.waiting.push_back((Instant::now(), job));
        drop(state);
        self.shared.wake.notify_one();
        Ok(())
    }

    /// Refuses new work, drops what waits, and lets the threads end after what they do.
    pub fn close(&self) {
        let waiting = {
            let mut state = self.shared.lock();
            state.closed = true;
            std::mem::take(&mut state.waiting)
        };
        self.shared.wake.notify_all();
        let now = Instant::now();
        waiting
            .iter()
            .for_each(|(queued, _)| self.metrics.left(now - *queued, true));
    }

    /// Waits until the threads have ended; blocks, and only ends after [`Pool::close`].
    pub fn join(&self) {
        let handles = std::mem::take(&mut self.shared.lock().handles);
        for handle in handles {
            if handle.join().is_err() {
                tracing::error!("a tokenizer thread panicked");
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, metrics: &Queue) {
        while let Some((queued, job)) = self.next() {
            let begun = Instant::now();
            let outcome = job();
            metrics.left(begun - queued, outcome == Outcome::Abandoned);
            if outcome == Outcome::Done {
                let took = begun.elapsed();
                let mut state = self.lock();
                state.estimate = state.estimate - state.estimate / ESTIMATE_SHARE + took / ESTIMATE_SHARE;
            }
        }
    }

    /// Waits for a job; none once the pool is closed.
    fn next(&self) -> Option<(Instant, Job)> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(job) = state.waiting.pop_front() {
                return Some(job);
            }
            state.idle += 1;
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("threads", &self.threads)
            .field("queue", &self.queue)
            .field("waiting", &self.lock().waiting.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::metrics::Metrics;

    fn pool(threads: usize, queue: usize) -> Pool {
        Pool::start(threads, queue, Metrics::new().queue).unwrap()
    }

    /// A pool whose only thread waits for a word on the channel.
    async fn busy(queue: usize) -> (Pool, mpsc::Sender<()>, tokio::task::JoinHandle<Result<(), Error>>) {
        let pool = pool(1, queue);
        let (go, gate) = mpsc::channel::<()>();
        let (begun, seen) = oneshot::channel();
        let running = tokio::spawn({
            let pool = pool.clone();
            async move {
                pool.run(move || {
                    let _ = begun.send(());
                    let _ = gate.recv();
                })
                .await
            }
        });
        seen.await.unwrap();
        (pool, go, running)
    }

    #[tokio::test]
    async fn work_runs_on_a_tokenizer_thread() {
        let name = pool(2, 1)
            .run(|| std::thread::current().name().map(str::to_owned))
            .await
            .unwrap();
        assert!(name.unwrap().starts_with("tokenizer-"));
    }

    #[tokio::test]
    async fn a_full_queue_refuses_with_a_time_to_retry() {
        let (pool, go, running) = busy(1).await;
        let mut waiting = Box::pin(pool.run(|| 7));
        assert!(poll_once(&mut waiting).await.is_none());
        let refused = pool.run(|| ()).await;
        assert!(
            matches!(refused, Err(Error::Overloaded { depth: 1, retry_after }) if retry_after >= MIN_RETRY)
        );
        go.send(()).unwrap();
        running.await.unwrap().unwrap();
        assert_eq!(waiting.await.unwrap(), 7);
    }

    #[tokio::test]
    async fn work_whose_caller_is_gone_is_not_begun() {
        let (pool, go, running) = busy(4).await;
        let (ran, watched) = mpsc::channel::<()>();
        let mut left = Box::pin(pool.run(move || ran.send(())));
        assert!(poll_once(&mut left).await.is_none());
        drop(left);
        go.send(()).unwrap();
        running.await.unwrap().unwrap();
        // Jobs run in order, so the one behind the abandoned one is proof that it was passed.
        pool.run(|| ()).await.unwrap();
        assert!(watched.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_panic_is_an_error_of_its_request_alone() {
        let pool = pool(1, 1);
        let panicked = pool.run(|| panic!("on purpose")).await;
        assert!(matches!(panicked, Err(Error::Panicked)));
        assert_eq!(pool.run(|| 1).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_closed_pool_drops_what_waits_and_its_threads_end() {
        let (pool, go, running) = busy(4).await;
        let mut waiting = Box::pin(pool.run(|| ()));
        assert!(poll_once(&mut waiting).await.is_none());
        pool.close();
        assert!(matches!(waiting.await, Err(Error::Stopping)));
        assert!(matches!(pool.run(|| ()).await, Err(Error::Stopping)));
        go.send(()).unwrap();
        running.await.unwrap().unwrap();
        pool.join();
    }

    /// Polls once.
    async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        std::future::poll_fn(|context| {
            let polled = std::pin::Pin::new(&mut *future).poll(context);
            std::task::Poll::Ready(match polled {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }
}
