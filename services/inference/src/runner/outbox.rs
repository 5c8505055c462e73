//! The events of one request on their way from the engine to the response stream.
//!
//! The engine never waits for a reader: pictures and the end are always kept (there are as many as the request asked for), steps
//! and previews only up to a bound; past it the oldest of them is dropped, since the next one says more. A reader that goes away
//! is seen by the engine before its next tick.
//!
//! Invariant: a stream ends exactly once, with `Done`, an answer or an error; an outbox that is dropped without an end is an error.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use futures::task::AtomicWaker;
use mobula_proto::inference::v1::generate_response::Event;
use tokio::time::Instant;

use super::running::Running;
use super::work::Answer;
use crate::error::Error;

/// Steps and previews that wait for a slow reader; more than a usual request has steps.
const MAX_DROPPABLE: usize = 64;

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Event>,
    droppable: usize,
    error: Option<Error>,
    answer: Option<Answer>,
    ended: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    waker: AtomicWaker,
    reader_gone: AtomicBool,
}

impl Shared {
    /// A panic cannot leave the state half changed, so a poisoned lock is as good as any.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The engine's end.
#[derive(Debug)]
pub(crate) struct Outbox(Arc<Shared>);

/// The reader's end, a stream.
#[derive(Debug)]
pub(crate) struct Inbox {
    shared: Arc<Shared>,
    running: Arc<Running>,
}

/// Whether a reader is still there.
#[derive(Debug, Clone)]
pub(super) struct Left(Arc<Shared>);

impl Left {
    pub(super) fn is_gone(&self) -> bool {
        self.0.reader_gone.load(Ordering::Relaxed)
    }
}

/// Readers who have something to read, and are told together: each waking costs as much as a small picture does. Tells them
/// when it is dropped.
#[derive(Debug, Default)]
pub(super) struct Unread {
    readers: Vec<Arc<Shared>>,
    since: Option<Instant>,
}

impl Unread {
    /// So long the first of them may wait for the others.
    const PATIENCE: Duration = Duration::from_micros(500);

    /// What was left for the reader of this outbox is told with the rest.
    pub(super) fn add(&mut self, outbox: &Outbox, now: Instant) {
        self.readers.push(Arc::clone(&outbox.0));
        if now - *self.since.get_or_insert(now) >= Self::PATIENCE {
            self.tell();
        }
    }

    fn tell(&mut self) {
        self.since = None;
        for reader in self.readers.drain(..) {
            reader.waker.wake();
        }
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.tell();
    }
}

/// Makes the two ends; `running` hears of a reader that leaves.
pub(crate) fn channel(running: &Arc<Running>) -> (Outbox, Inbox) {
    let shared = Arc::new(Shared::default());
    let inbox = Inbox {
        shared: Arc::clone(&shared),
        running: Arc::clone(running),
    };
    (Outbox(shared), inbox)
}

impl Outbox {
    /// Sends an event; `Done` is the end, and after the end nothing is sent.
    pub(crate) fn send(&self, event: Event) {
        self.leave(event);
        self.0.waker.wake();
    }

    /// Leaves an event for the reader, who is told with the next one that is sent, or with the end: for what another follows
    /// at once. Each waking costs more than the event.
    pub(crate) fn leave(&self, event: Event) {
        let mut state = self.0.lock();
        if state.ended {
            return;
        }
        state.ended = matches!(event, Event::Done(_));
        if is_droppable(&event) {
            if state.droppable == MAX_DROPPABLE {
                let oldest = state.queue.iter().position(is_droppable);
                oldest.map(|oldest| state.queue.remove(oldest));
            } else {
                state.droppable += 1;
            }
        }
        state.queue.push_back(event);
    }

    /// Ends a task that has one answer with it.
    pub(super) fn answer(&self, answer: Answer) {
        {
            let mut state = self.0.lock();
            if state.ended {
                return;
            }
            state.ended = true;
            state.answer = Some(answer);
        }
        self.0.waker.wake();
    }

    /// Ends the stream with an error, after what was sent.
    pub(crate) fn fail(&self, error: Error) {
        {
            let mut state = self.0.lock();
            if state.ended {
                return;
            }
            state.ended = true;
            state.error = Some(error);
        }
        self.0.waker.wake();
    }

    /// Whether nobody reads any more.
    pub(crate) fn reader_gone(&self) -> bool {
        self.0.reader_gone.load(Ordering::Relaxed)
    }

    /// What tells whether the reader is still there.
    pub(super) fn reader(&self) -> Left {
        Left(Arc::clone(&self.0))
    }

    /// Whether the end was sent.
    pub(crate) fn has_ended(&self) -> bool {
        self.0.lock().ended
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.fail(Error::Failed("the engine stopped".to_owned()));
    }
}

impl Inbox {
    /// Waits for the answer of a task that has one; dropping it cancels the task.
    ///
    /// # Errors
    /// What the task ended with.
    pub(crate) async fn answer(self) -> Result<Answer, Error> {
        poll_fn(|context| {
            self.shared.waker.register(context.waker());
            let mut state = self.shared.lock();
            match (state.answer.take(), state.error.take()) {
                (Some(answer), _) => Poll::Ready(Ok(answer)),
                (None, Some(error)) => Poll::Ready(Err(error)),
                (None, None) => Poll::Pending,
            }
        })
        .await
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.shared.reader_gone.store(true, Ordering::Relaxed);
        self.running.left();
    }
}

impl Stream for Inbox {
    type Item = Result<Event, Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.shared.waker.register(context.waker());
        let mut state = self.shared.lock();
        if let Some(event) = state.queue.pop_front() {
            state.droppable -= usize::from(is_droppable(&event));
            return Poll::Ready(Some(Ok(event)));
        }
        match (state.error.take(), state.ended) {
            (Some(error), _) => Poll::Ready(Some(Err(error))),
            (None, true) => Poll::Ready(None),
            (None, false) => Poll::Pending,
        }
    }
}

fn is_droppable(event: &Event) -> bool {
    match event {
        Event::Step(_) | Event::Preview(_) => true,
        Event::Accepted(_) | Event::Started(_) | Event::Image(_) | Event::Latents(_) | Event::Done(_) => {
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;
    use mobula_proto::inference::v1::{Done, Image, Step};

    fn step(index: u32) -> Event {
        Event::Step(Step { index, of: 500 })
    }

    async fn read(inbox: Inbox) -> Vec<Result<Event, String>> {
        inbox
            .map(|item| item.map_err(|error| error.to_string()))
            .collect()
            .await
    }

    #[tokio::test]
    async fn a_reader_that_keeps_up_gets_everything_in_order() {
        let (outbox, mut inbox) = channel(&Arc::default());
        for index in 0..200 {
            outbox.send(step(index));
            assert!(
                matches!(inbox.next().await, Some(Ok(Event::Step(Step { index: got, .. }))) if got == index)
            );
        }
        outbox.send(Event::Done(Done::default()));
        assert_eq!(read(inbox).await, [Ok(Event::Done(Done::default()))]);
    }

    #[tokio::test]
    async fn a_slow_reader_misses_old_steps_and_no_picture() {
        let (outbox, inbox) = channel(&Arc::default());
        for index in 0..500 {
            outbox.send(step(index));
            if index % 5 == 0 {
                outbox.send(Event::Image(Image {
                    index,
                    ..Image::default()
                }));
            }
        }
        outbox.send(Event::Done(Done::default()));
        let events = read(inbox).await;
        let steps: Vec<_> = events
            .iter()
            .filter(|event| matches!(event, Ok(Event::Step(_))))
            .collect();
        assert_eq!(steps.len(), MAX_DROPPABLE);
        assert_eq!(steps[0], &Ok(step(500 - MAX_DROPPABLE as u32)));
        assert_eq!(
            events
                .iter()
                .filter(|event| matches!(event, Ok(Event::Image(_))))
                .count(),
            100
        );
        assert_eq!(events.last(), Some(&Ok(Event::Done(Done::default()))));
    }

    #[tokio::test]
    async fn there_is_one_end_and_an_outbox_that_vanishes_is_an_error() {
        let (outbox, inbox) = channel(&Arc::default());
        outbox.fail(Error::Stopping);
        outbox.fail(Error::DeadlinePassed { started: true });
        outbox.send(step(1));
        drop(outbox);
        assert_eq!(read(inbox).await, [Err(Error::Stopping.to_string())]);
        let (outbox, inbox) = channel(&Arc::default());
        drop(outbox);
        assert!(
            read(inbox).await[0]
                .as_ref()
                .unwrap_err()
                .contains("the engine stopped")
        );
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn what_is_left_wakes_nobody_and_comes_in_order_with_what_is_sent() {
        let (outbox, mut inbox) = channel(&Arc::default());
        let woken = Arc::<Woken>::default();
        let waker = Arc::clone(&woken).into();
        let polled = Pin::new(&mut inbox).poll_next(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        outbox.leave(step(1));
        assert!(!woken.0.load(Ordering::Relaxed));
        outbox.send(step(2));
        assert!(woken.0.load(Ordering::Relaxed));
        woken.0.store(false, Ordering::Relaxed);
        inbox.shared.waker.register(&waker);
        outbox.leave(step(3));
        let mut unread = Unread::default();
        unread.add(&outbox, Instant::now());
        assert!(!woken.0.load(Ordering::Relaxed));
        drop(unread);
        assert!(woken.0.load(Ordering::Relaxed));
        outbox.send(Event::Done(Done::default()));
        let expected = [step(1), step(2), step(3), Event::Done(Done::default())].map(Ok);
        assert_eq!(read(inbox).await, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_long_for_the_others() {
        let (outbox, inbox) = channel(&Arc::default());
        let woken = Arc::<Woken>::default();
        inbox.shared.waker.register(&Arc::clone(&woken).into());
        let mut unread = Unread::default();
        unread.add(&outbox, Instant::now());
        tokio::time::advance(Unread::PATIENCE).await;
        assert!(!woken.0.load(Ordering::Relaxed));
        unread.add(&outbox, Instant::now());
        assert!(woken.0.load(Ordering::Relaxed));
    }

    #[test]
    fn a_reader_that_leaves_is_seen() {
        let (outbox, inbox) = channel(&Arc::default());
        assert!(!outbox.reader_gone());
        drop(inbox);
        assert!(outbox.reader_gone());
    }
}
