//! Answers that are not taken, over HTTP/2: a stream whose reader opens no window, while its connection lives and answers
//! pings, is reset, and what was held for it is free.
//!
//! hyper gives a body's piece to a stream when there is room for a byte of it, and sees nothing of what is left of it
//! afterwards. So bodies are handed out in pieces, the last byte of each by itself: while there is something to send, hyper
//! has a piece in its hand and waits for room. [`Watched`] sees that from outside, since all that it needs to know is what
//! the body said last when hyper came to a halt. A timer is made when a reader falls behind, and not before.

use std::{
    cell::Cell,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use http::Version;
use hyper::{
    body::{Body, Bytes, Frame, SizeHint},
    rt::Executor,
};
use tokio::time::Instant;

use crate::pace::{self, Pace, Timer};

/// So long a reader may take nothing of what is there for it: what servers in front of others give theirs (nginx's
/// `send_timeout`).
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// A reader who takes less in its patience is as good as none.
const PIECE: usize = 64 << 10;
/// Smaller pieces go out whole: a frame more costs more than such an answer is worth to who does not take it.
const SMALL: usize = 1 << 10;

thread_local! {
    /// What the body said last that was polled on this thread.
    static SAID: Cell<Option<Said>> = const { Cell::new(None) };
}

/// What a body says when it is asked for its next piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// Here it is, of so many bytes.
    Here(usize),
    /// There is none yet: its handler is waited for, or it is over.
    Nothing,
}

/// A response's body, over HTTP/2 in pieces; HTTP/1.1 has a connection for each, which is watched as such.
#[derive(Debug)]
pub(crate) struct Leaving<B> {
    inner: B,
    in_pieces: bool,
    /// What is left of the piece that came last.
    left: Bytes,
}

impl<B> Leaving<B> {
    /// The answer to a request of this version.
    pub(crate) fn new(inner: B, version: Version) -> Self {
        Self {
            inner,
            in_pieces: version == Version::HTTP_2,
            left: Bytes::new(),
        }
    }

    fn piece(&mut self) -> Bytes {
        let length = self.left.len();
        self.left.split_to(match length {
            0..=SMALL => length,
            _ => (length - 1).min(PIECE),
        })
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Leaving<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        if !this.in_pieces {
            return Pin::new(&mut this.inner).poll_frame(context);
        }
        if this.left.is_empty() {
            let polled = Pin::new(&mut this.inner).poll_frame(context);
            let Poll::Ready(Some(Ok(frame))) = polled else {
                SAID.set(Some(Said::Nothing));
                return polled;
            };
            match frame.into_data() {
                Ok(data) => this.left = data,
                Err(other) => {
                    SAID.set(Some(Said::Nothing));
                    return Poll::Ready(Some(Ok(other)));
                }
            }
        }
        let piece = this.piece();
        SAID.set(Some(Said::Here(piece.len())));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, left) = (self.inner.size_hint(), self.left.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + left);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + left);
        }
        hint
    }
}

/// Runs the streams of HTTP/2 connections, each until it ends or its reader takes nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watched {
    /// So long a reader may take nothing.
    pub(crate) patience: Duration,
}

impl<F> Executor<F> for Watched
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, stream: F) {
        let mut watch = Watch::new(self.patience);
        // As hyper's own executor does it: a stream ends with its connection.
        tokio::spawn(async move {
            let mut stream = pin!(stream);
            std::future::poll_fn(|context| watch.poll(stream.as_mut(), context)).await;
        });
    }
}

#[derive(Debug)]
struct Watch {
    patience: Duration,
    /// There while a piece waits for room.
    pace: Option<Pace>,
    timer: Timer,
}

impl Watch {
    fn new(patience: Duration) -> Self {
        Self {
            patience,
            pace: None,
            timer: Timer::default(),
        }
    }

    fn poll<F: Future>(&mut self, stream: Pin<&mut F>, context: &mut Context<'_>) -> Poll<()> {
        SAID.set(None);
        if stream.poll(context).is_ready() {
            return Poll::Ready(());
        }
        match SAID.take() {
            Some(Said::Here(bytes)) => match &mut self.pace {
                Some(pace) => pace.moved(bytes, Instant::now()),
                None => self.pace = Some(Pace::new(self.patience, Instant::now())),
            },
            Some(Said::Nothing) => self.pace = None,
            // The body was not asked: what was waited for is waited for still.
            None => {}
        }
        match &self.pace {
            Some(pace) if self.timer.is_late(pace, context) => {
                pace::count("answer");
                Poll::Ready(())
            }
            _ => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        sync::{Arc, Mutex},
        task::Waker,
    };

    use http_body_util::{BodyExt as _, Full};
    use proptest::prelude::*;

    use super::*;

    /// As hyper sends a body: each piece when there is room for a byte.
    struct Pipe {
        body: Leaving<Full<Bytes>>,
        piece: Option<Bytes>,
        room: Arc<Room>,
    }

    #[derive(Default)]
    struct Room(Mutex<(usize, Option<Waker>)>);

    impl Room {
        fn open(&self, bytes: usize) {
            let mut room = self.0.lock().unwrap();
            room.0 += bytes;
            if let Some(waker) = room.1.take() {
                waker.wake();
            }
        }
    }

    impl Future for Pipe {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
            loop {
                if let Some(piece) = self.piece.take() {
                    let room = Arc::clone(&self.room);
                    let mut room = room.0.lock().unwrap();
                    if room.0 < piece.len() {
                        self.piece = Some(piece);
                        room.1 = Some(context.waker().clone());
                        return Poll::Pending;
                    }
                    room.0 -= piece.len();
                }
                match Pin::new(&mut self.body).poll_frame(context) {
                    Poll::Ready(Some(Ok(frame))) => self.piece = frame.into_data().ok(),
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        }
    }

    /// Sends so many bytes; tells when it is over, one way or the other.
    fn send(bytes: usize) -> (Arc<Room>, tokio::sync::oneshot::Receiver<()>) {
        let room = Arc::<Room>::default();
        let pipe = Pipe {
            body: Leaving::new(Full::new(vec![7; bytes].into()), Version::HTTP_2),
            piece: None,
            room: Arc::clone(&room),
        };
        let (over, told) = tokio::sync::oneshot::channel();
        let watched = Watched { patience: PATIENCE };
        watched.execute(async move {
            let _over = over;
            pipe.await;
        });
        (room, told)
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_takes_is_let_go_of_and_what_it_held_with_it() {
        let start = Instant::now();
        for bytes in [10, 1 << 20] {
            let (_room, over) = send(bytes);
            assert!(over.await.is_err());
        }
        assert_eq!(start.elapsed(), 2 * PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_gets_all_and_one_who_stops_half_way_is_let_go_of() {
        let start = Instant::now();
        let (room, mut over) = send(10 * PIECE);
        for _ in 0..9 {
            tokio::time::sleep(Duration::from_secs(50)).await;
            room.open(PIECE);
            assert!(
                over.try_recv()
                    .is_err_and(|e| e != tokio::sync::oneshot::error::TryRecvError::Closed)
            );
        }
        let _ = over.await;
        assert_eq!(start.elapsed(), 9 * Duration::from_secs(50) + PATIENCE);
    }

    proptest! {
        #[test]
        fn bytes_come_whole_and_in_order_in_pieces_that_are_small_and_the_last_is_tiny(
            sizes in prop::collection::vec(prop_oneof![0usize..3_000, 60_000usize..300_000], 1..5),
        ) {
            let pieces: VecDeque<Bytes> = sizes.iter().map(|size| (0..*size).map(|at| at as u8).collect::<Vec<_>>().into()).collect();
            let frames = pieces.iter().cloned().map(|piece| Ok::<_, std::convert::Infallible>(Frame::data(piece)));
            let frames: Vec<_> = frames.collect();
            let body = http_body_util::StreamBody::new(futures::stream::iter(frames));
            let mut body = Leaving::new(body, Version::HTTP_2);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut came = Vec::new();
            let mut last = 0;
            while let Some(frame) = runtime.block_on(body.frame()) {
                let data = frame.unwrap().into_data().unwrap();
                prop_assert!(data.len() <= PIECE);
                last = data.len();
                came.extend_from_slice(&data);
            }
            prop_assert_eq!(came, pieces.iter().flatten().copied().collect::<Vec<_>>());
            prop_assert!(last <= SMALL, "no more is left to h2 alone");
        }
    }
}
