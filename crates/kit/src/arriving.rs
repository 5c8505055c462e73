//! Bodies of requests that stop half-way: who has begun to send something and does not go on is told so, and what was held
//! for it is free.
//!
//! A stream that may idle (a client's stream of messages) is never late between two of them: only a message that has begun
//! counts. Everything else counts until its end. A timer is made when a reader has to wait, so that what comes whole has none.

use std::{
    error::Error,
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::time::Instant;
use tonic::Status;

use crate::pace::{self, Pace, Timer};

/// So long nothing may come of what has begun: lines that pause longer have broken, and callers try again.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A flag and the length, before every message (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX: usize = 5;

type BoxError = Box<dyn Error + Send + Sync>;

/// The body of a request did not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Late;

impl fmt::Display for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the request's body did not arrive in time: nothing came for {} s, or less than {} bytes a second; send it again \
             without a pause",
            PATIENCE.as_secs(),
            pace::RATE
        )
    }
}

impl Error for Late {}

/// Where messages of gRPC begin and end. Pure.
#[derive(Clone, Copy, Debug, Default)]
struct Messages {
    prefix: [u8; PREFIX],
    /// Bytes of the prefix that are there.
    heard: usize,
    /// Bytes of the message that are not.
    left: usize,
}

impl Messages {
    /// Passes over bytes; true when a message ended within them.
    fn pass(&mut self, mut bytes: &[u8]) -> bool {
        let mut has_ended = false;
        while !bytes.is_empty() {
            if self.left == 0 {
                let more = bytes.len().min(PREFIX - self.heard);
                self.prefix[self.heard..self.heard + more].copy_from_slice(&bytes[..more]);
                self.heard += more;
                bytes = &bytes[more..];
                if self.heard < PREFIX {
                    break;
                }
                let [_, length @ ..] = self.prefix;
                self.left = u32::from_be_bytes(length) as usize;
            }
            let more = bytes.len().min(self.left);
            self.left -= more;
            bytes = &bytes[more..];
            if self.left == 0 {
                self.heard = 0;
                has_ended = true;
            }
        }
        has_ended
    }

    /// A message has begun and not ended.
    fn is_within(&self) -> bool {
        self.heard > 0
    }
}

/// What must go on.
#[derive(Debug)]
enum Counts {
    /// The body, to its end.
    All,
    /// Each message.
    Messages(Messages),
}

/// Who hears of it.
#[derive(Debug)]
enum Told {
    /// A handler of gRPC, as a status.
    Grpc,
    /// A handler of HTTP, and the connection, whose answer says it if the handler's does not.
    Http(Arc<AtomicBool>),
}

/// A request's body that is in time, or ends with what was wrong.
#[derive(Debug)]
pub(crate) struct Arriving<B> {
    /// None once it was late.
    inner: Option<B>,
    counts: Counts,
    told: Told,
    pace: Option<Pace>,
    timer: Timer,
}

impl<B> Arriving<B> {
    /// The body of a call: one message, or a stream of them.
    pub(crate) fn grpc(inner: B, is_stream: bool) -> Self {
        let counts = if is_stream {
            Counts::Messages(Messages::default())
        } else {
            Counts::All
        };
        Self::new(inner, counts, Told::Grpc)
    }

    /// The body of a request over HTTP; the flag is set when it is late.
    pub(crate) fn http(inner: B, late: Arc<AtomicBool>) -> Self {
        Self::new(inner, Counts::All, Told::Http(late))
    }

    fn new(inner: B, counts: Counts, told: Told) -> Self {
        Self {
            inner: Some(inner),
            counts,
            told,
            pace: None,
            timer: Timer::default(),
        }
    }

    /// Notes what came.
    fn came(&mut self, bytes: &Bytes) {
        if let Counts::Messages(messages) = &mut self.counts {
            let has_ended = messages.pass(bytes);
            if has_ended || !messages.is_within() {
                self.pace = None;
                return;
            }
        }
        if let Some(pace) = &mut self.pace {
            pace.moved(bytes.len(), Instant::now());
        }
    }

    /// Whether what is waited for does not come.
    fn is_late(&mut self, context: &mut Context<'_>) -> bool {
        if let Counts::Messages(messages) = &self.counts
            && !messages.is_within()
        {
            return false;
        }
        let pace = self
            .pace
            .get_or_insert_with(|| Pace::new(PATIENCE, Instant::now()));
        self.timer.is_late(pace, context)
    }

    fn tell(&mut self) -> BoxError {
        self.inner = None;
        match &self.told {
            Told::Grpc => {
                pace::count("message");
                Box::new(Status::deadline_exceeded(Late.to_string()))
            }
            Told::Http(late) => {
                pace::count("body");
                late.store(true, Ordering::Release);
                Box::new(Late)
            }
        }
    }
}

impl<B> Body for Arriving<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let Some(inner) = &mut this.inner else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(inner).poll_frame(context);
        if polled.is_pending() && this.is_late(context) {
            return Poll::Ready(Some(Err(this.tell())));
        }
        let frame = ready!(polled);
        if let Some(Ok(frame)) = &frame
            && let Some(bytes) = frame.data_ref()
        {
            this.came(bytes);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use http_body_util::BodyExt as _;
    use proptest::prelude::*;
    use tonic::Code;

    use super::*;

    /// Gives each piece after so many seconds, and then nothing any more.
    struct Slow(VecDeque<(u64, Bytes)>, Pin<Box<tokio::time::Sleep>>);

    impl Slow {
        fn new(pieces: impl IntoIterator<Item = (u64, Vec<u8>)>) -> Self {
            let pieces: VecDeque<_> = pieces
                .into_iter()
                .map(|(wait, piece)| (wait, piece.into()))
                .collect();
            let first = pieces.front().map_or(0, |(wait, _)| *wait);
            Self(pieces, Box::pin(tokio::time::sleep(Duration::from_secs(first))))
        }
    }

    impl Body for Slow {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            if self.0.is_empty() {
                return Poll::Pending;
            }
            ready!(self.1.as_mut().poll(context));
            let piece = self.0.pop_front().map(|(_, piece)| Ok(Frame::data(piece)));
            if let Some((wait, _)) = self.0.front() {
                self.1 = Box::pin(tokio::time::sleep(Duration::from_secs(*wait)));
            }
            Poll::Ready(piece)
        }
    }

    /// A message of so many bytes as it is sent.
    fn message(length: u32) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(length.to_be_bytes());
        bytes.extend(vec![7; length as usize]);
        bytes
    }

    /// Reads to the end; gives the bytes that came, and how it ended.
    async fn read(mut body: Arriving<Slow>) -> (usize, BoxError) {
        let mut length = 0;
        loop {
            match body.frame().await.unwrap() {
                Ok(frame) => length += frame.data_ref().unwrap().len(),
                Err(error) => {
                    assert!(body.frame().await.is_none() && body.is_end_stream());
                    return (length, error);
                }
            }
        }
    }

    fn code(error: BoxError) -> Code {
        Status::from_error(error).code()
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_stops_half_way_is_late_and_one_that_was_whole_before_it_is_not_lost() {
        let start = Instant::now();
        let mut cut = message(100);
        cut.truncate(8);
        let body = Slow::new([(0, message(10)), (3_600, message(0)), (3_600, cut)]);
        let (length, error) = read(Arriving::grpc(body, true)).await;
        assert_eq!((length, code(error)), (15 + 5 + 8, Code::DeadlineExceeded));
        assert_eq!(start.elapsed(), Duration::from_secs(7_200) + PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_may_be_silent_between_messages_and_one_call_may_not() {
        let idle = Slow::new([(1, message(3))]);
        let waiting = tokio::time::timeout(Duration::from_secs(86_400), read(Arriving::grpc(idle, true)));
        assert!(waiting.await.is_err(), "a day of silence is no fault");
        for pieces in [vec![], vec![(1, message(3))]] {
            let (_, error) = read(Arriving::grpc(Slow::new(pieces), false)).await;
            assert_eq!(code(error), Code::DeadlineExceeded);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_a_byte_now_and_then_is_late_and_who_is_slow_but_steady_is_not() {
        let start = Instant::now();
        let drips = Slow::new((0..1_000).map(|_| (15, vec![0])));
        let late = Arc::<AtomicBool>::default();
        let (length, error) = read(Arriving::http(drips, Arc::clone(&late))).await;
        assert!(length <= 2 && start.elapsed() < 2 * PATIENCE, "{length}");
        assert!(error.is::<Late>() && late.load(Ordering::Acquire));
        let steady = Slow::new((0..100).map(|_| (10, vec![0; 11 << 10])));
        let (length, _) = read(Arriving::http(steady, Arc::default())).await;
        assert_eq!(length, 1_100 << 10);
    }

    proptest! {
        #[test]
        fn the_ends_of_messages_are_found_however_their_bytes_are_divided(
            lengths in prop::collection::vec(0u32..40, 1..8), cuts in prop::collection::vec(1usize..9, 1..40),
        ) {
            let whole: Vec<u8> = lengths.iter().flat_map(|length| message(*length)).collect();
            let mut ends = vec![0];
            ends.extend(lengths.iter().scan(0, |at, length| {
                *at += PREFIX + *length as usize;
                Some(*at)
            }));
            let (mut messages, mut at) = (Messages::default(), 0);
            for cut in cuts.into_iter().cycle() {
                let to = (at + cut).min(whole.len());
                let has_ended = messages.pass(&whole[at..to]);
                prop_assert_eq!(has_ended, ends.iter().any(|end| (at + 1..=to).contains(end)));
                prop_assert_eq!(messages.is_within(), !ends.contains(&to));
                at = to;
                if at == whole.len() {
                    break;
                }
            }
        }
    }
}
