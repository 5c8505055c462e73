//! A request's work as a stream of its events, without a task of its own.
//!
//! The work is one future that sends events through an [`Emit`]; polling [`Events`] polls the work. So the door's own
//! task drives the request, nothing is queued beyond one event, and a caller who leaves drops the work at once, with the
//! call to the replica inside it. [`Running::cancel`] drops it from outside, whether the caller reads or not; that is how
//! one ends who stays and does not read, since nothing else would ever poll the work again.
//!
//! Invariant: events come in the order in which they were sent, then at most one error, then nothing.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use futures::{Stream, task::AtomicWaker};
use mobula_proto::image::v1::generate_response::Event;
use tokio::time::Instant;

use crate::{Error, registry::Entry};

type Work = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// How a door reads a request's events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Reader {
    /// Each as it comes.
    #[default]
    Follows,
    /// To their end, for the pictures and what is said of them: nothing else is sent, so that its work is not begun anew, from
    /// the top of its futures, for each step that nobody reads.
    Collects,
}

impl Reader {
    fn wants(self, event: &Event) -> bool {
        match event {
            Event::Image(_) | Event::Done(_) => true,
            Event::Accepted(_)
            | Event::Waiting(_)
            | Event::Started(_)
            | Event::Step(_)
            | Event::Preview(_)
            | Event::Restarted(_) => self == Self::Follows,
        }
    }
}

/// The sending side: room for one event.
#[derive(Debug, Clone, Default)]
pub(crate) struct Emit {
    slot: Arc<Mutex<Option<Event>>>,
    reader: Reader,
}

impl Emit {
    pub(crate) fn new(reader: Reader) -> Self {
        Self {
            slot: Arc::default(),
            reader,
        }
    }

    /// True when its reader hears of each event.
    pub(crate) fn is_followed(&self) -> bool {
        self.reader == Reader::Follows
    }

    /// Sends an event, after the one before it was taken; one that the reader does not want is forgotten.
    pub(crate) async fn send(&self, event: Event) {
        if !self.reader.wants(&event) {
            return;
        }
        let mut event = Some(event);
        // No waker is kept: whoever takes the event polls the work again, which polls this.
        poll_fn(|_| {
            let mut slot = lock(&self.slot);
            if slot.is_some() {
                return Poll::Pending;
            }
            *slot = event.take();
            Poll::Ready(())
        })
        .await;
    }

    /// Sends an event if its reader is ready for it, and else forgets it: one that is old news by then.
    pub(crate) fn offer(&self, event: Event) {
        if self.reader.wants(&event) {
            lock(&self.slot).get_or_insert(event);
        }
    }

    fn take(&self) -> Option<Event> {
        lock(&self.slot).take()
    }
}

/// A request that runs, as others see it.
pub(crate) struct Running {
    state: Mutex<State>,
    due: Arc<Due>,
}

/// The waker of the work. It knows since when the reader should have come: since it was woken, or was given an event and
/// may come for the next.
#[derive(Debug, Default)]
struct Due {
    since: Mutex<Option<Instant>>,
    reader: AtomicWaker,
}

impl Due {
    /// The reader has come.
    fn met(&self, reader: &Waker) {
        *lock(&self.since) = None;
        self.reader.register(reader);
    }

    /// The reader should come.
    fn note(&self) {
        lock(&self.since).get_or_insert_with(Instant::now);
    }

    fn is_over(&self, limit: Duration) -> bool {
        lock(&self.since).is_some_and(|since| since.elapsed() >= limit)
    }
}

impl Wake for Due {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.note();
        self.reader.wake();
    }
}

enum State {
    Active(Work),
    /// With what the caller has to be told.
    Ended(Option<Error>),
}

impl Running {
    /// Ends the work now; the caller is told that it was cancelled. False when it had ended already.
    pub(crate) fn cancel(&self) -> bool {
        self.end(Error::Cancelled)
    }

    /// Ends the work when its caller has not read for `limit`. False when it reads, or the work had ended already.
    pub(crate) fn give_up(&self, limit: Duration) -> bool {
        self.due.is_over(limit) && self.end(Error::NotRead { limit })
    }

    fn end(&self, why: Error) -> bool {
        let mut state = lock(&self.state);
        if !matches!(*state, State::Active(_)) {
            return false;
        }
        let before = std::mem::replace(&mut *state, State::Ended(Some(why)));
        // Dropping the work gives back what it holds, which takes other locks.
        drop(state);
        drop(before);
        self.due.reader.wake();
        true
    }

    /// Drives the work; ready when there is nothing left to drive.
    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = lock(&self.state);
        let State::Active(work) = &mut *state else {
            return Poll::Ready(());
        };
        match work.as_mut().poll(cx) {
            Poll::Ready(ended) => {
                let before = std::mem::replace(&mut *state, State::Ended(ended.err()));
                drop(state);
                drop(before);
                Poll::Ready(())
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Takes what the caller has to be told at the end.
    fn take_error(&self) -> Option<Error> {
        match &mut *lock(&self.state) {
            State::Ended(error) => error.take(),
            State::Active(_) => None,
        }
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").finish_non_exhaustive()
    }
}

/// The events of one request.
#[derive(Debug)]
pub(crate) struct Events {
    running: Arc<Running>,
    /// Of `running.due`.
    waker: Waker,
    emit: Emit,
    entry: Option<Entry>,
}

impl Events {
    /// Makes the stream of what `work` sends through `emit`. It runs when it is polled.
    pub(crate) fn new(emit: Emit, work: impl Future<Output = Result<(), Error>> + Send + 'static) -> Self {
        let due = Arc::<Due>::default();
        let waker = Waker::from(Arc::clone(&due));
        let state = Mutex::new(State::Active(Box::pin(work)));
        Self {
            running: Arc::new(Running { state, due }),
            waker,
            emit,
            entry: None,
        }
    }

    /// The request, to cancel it by.
    pub(crate) fn running(&self) -> Arc<Running> {
        Arc::clone(&self.running)
    }

    /// Keeps the request's id taken until the work has ended.
    pub(crate) fn hold(&mut self, entry: Entry) {
        self.entry = Some(entry);
    }
}

impl Stream for Events {
    type Item = Result<Event, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        this.running.due.met(cx.waker());
        let ended = this.running.poll(&mut Context::from_waker(&this.waker));
        if ended.is_ready() {
            // Before the last event is given out: its reader may use the id again at once.
            this.entry = None;
        }
        if let Some(event) = this.emit.take() {
            this.running.due.note();
            return Poll::Ready(Some(Ok(event)));
        }
        ended.map(|()| this.running.take_error().map(Err))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.running.cancel();
    }
}

/// A poisoned lock still guards a whole value: a panic in the work ends the request, and its state is not read again.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};
    use mobula_proto::image::v1::{Done, Image, Step, Waiting};

    use super::*;

    fn step(index: u32) -> Event {
        Event::Step(Step { index, of: 9 })
    }

    fn index(event: Option<Result<Event, Error>>) -> u32 {
        match event {
            Some(Ok(Event::Step(step))) => step.index,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn events_come_in_order_then_the_error_then_nothing() {
        let emit = Emit::default();
        let work = {
            let emit = emit.clone();
            async move {
                for i in 0..5 {
                    emit.send(step(i)).await;
                }
                Err(Error::DeadlinePassed)
            }
        };
        let mut events = Events::new(emit, work);
        for i in 0..5 {
            assert_eq!(index(events.next().await), i);
        }
        assert!(matches!(events.next().await, Some(Err(Error::DeadlinePassed))));
        assert!(events.next().await.is_none());
        assert!(events.next().await.is_none());
    }

    #[tokio::test]
    async fn one_who_collects_reads_pictures_and_the_end_alone() {
        let picture = |index| {
            Event::Image(Image {
                index,
                ..Image::default()
            })
        };
        let emit = Emit::new(Reader::Collects);
        let work = {
            let emit = emit.clone();
            async move {
                for i in 0..5 {
                    emit.send(step(i)).await;
                    emit.offer(Event::Waiting(Waiting::default()));
                    emit.send(picture(i)).await;
                }
                emit.send(Event::Done(Done::default())).await;
                Ok(())
            }
        };
        let read: Vec<_> = Events::new(emit, work).map(Result::unwrap).collect().await;
        let mut expected: Vec<_> = (0..5).map(picture).collect();
        expected.push(Event::Done(Done::default()));
        assert_eq!(read, expected);
    }

    #[tokio::test]
    async fn cancelling_drops_the_work_even_when_nobody_reads() {
        let emit = Emit::default();
        let (held, mut released) = tokio::sync::oneshot::channel::<()>();
        let work = {
            let emit = emit.clone();
            async move {
                let _held = held;
                emit.send(step(1)).await;
                std::future::pending().await
            }
        };
        let mut events = Events::new(emit, work);
        assert_eq!(index(events.next().await), 1);
        assert!(released.try_recv().is_err());
        assert!(events.running().cancel());
        assert!(released.await.is_err(), "the work was dropped");
        assert!(matches!(events.next().await, Some(Err(Error::Cancelled))));
        assert!(events.next().await.is_none());
        assert!(!events.running().cancel());
    }

    #[tokio::test]
    async fn a_reader_that_waits_is_woken_by_a_cancel() {
        let emit = Emit::default();
        let mut events = Events::new(emit, std::future::pending());
        let running = events.running();
        let reader = tokio::spawn(async move { events.next().await });
        tokio::task::yield_now().await;
        running.cancel();
        assert!(matches!(reader.await.unwrap(), Some(Err(Error::Cancelled))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stays_and_does_not_read_is_given_up() {
        const LIMIT: Duration = Duration::from_secs(60);
        let emit = Emit::default();
        let (held, released) = tokio::sync::oneshot::channel::<()>();
        let work = {
            let emit = emit.clone();
            async move {
                let _held = held;
                for i in 0.. {
                    emit.send(step(i)).await;
                    tokio::time::sleep(LIMIT * 3).await;
                }
                Ok(())
            }
        };
        let mut events = Events::new(emit, work);
        let running = events.running();
        assert_eq!(index(events.next().await), 0);
        assert!(events.next().now_or_never().is_none(), "it reads on");
        tokio::time::advance(LIMIT * 2).await;
        assert!(!running.give_up(LIMIT), "there was nothing to read");
        assert_eq!(index(events.next().await), 1);
        tokio::time::advance(LIMIT / 2).await;
        assert!(!running.give_up(LIMIT), "it has time to come for the next");
        assert!(events.next().now_or_never().is_none());
        // The work is woken after three limits, and nobody comes for another one.
        tokio::time::sleep(LIMIT * 3).await;
        assert!(!running.give_up(LIMIT));
        tokio::time::advance(LIMIT).await;
        assert!(running.give_up(LIMIT));
        assert!(released.await.is_err(), "the work was dropped");
        assert!(matches!(
            events.next().await,
            Some(Err(Error::NotRead { limit: LIMIT }))
        ));
        assert!(events.next().await.is_none());
    }

    #[tokio::test]
    async fn a_reader_that_leaves_drops_the_work() {
        let (held, released) = tokio::sync::oneshot::channel::<()>();
        let events = Events::new(Emit::default(), async move {
            let _held = held;
            std::future::pending().await
        });
        drop(events);
        assert!(released.await.is_err());
    }
}
