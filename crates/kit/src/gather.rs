//! Writes of one connection, gathered until the other tasks that are ready have had their turn.
//!
//! HTTP/2 puts the frames of many calls on one connection, and h2 writes whenever its task runs: with sixteen calls answered
//! at once that is sixteen writes of a hundred bytes, each of which wakes the peer. Here a flush lets the scheduler go round
//! once, so that what the other calls have to say goes along. It delays nothing by a clock: on an idle runtime the next round
//! comes at once. Large pieces are not copied.
//!
//! Invariant: bytes leave in the order in which they were written, and a flush that says it is done has written all of them.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use hyper::rt::{Read, ReadBufCursor, Write};

/// So many bytes are gathered; larger pieces go out by themselves. The largest frame of HTTP/2 without negotiation.
const MOST: usize = 16 << 10;

/// A connection whose writes are gathered.
#[derive(Debug)]
pub(crate) struct Gather<S> {
    inner: S,
    held: BytesMut,
    /// The flush under way has let the others go first.
    has_yielded: bool,
}

impl<S> Gather<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self {
            inner,
            held: BytesMut::new(),
            has_yielded: false,
        }
    }
}

impl<S: Write + Unpin> Gather<S> {
    fn write_held(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(context, &self.held))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.advance(written);
        }
        // What a burst needed is given back.
        if self.held.capacity() > MOST {
            self.held = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Write + Unpin> Write for Gather<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len = pieces.iter().map(|piece| piece.len()).sum::<usize>();
        if self.held.len() + len > MOST {
            ready!(self.write_held(context))?;
            if len > MOST {
                return Pin::new(&mut self.inner).poll_write_vectored(context, pieces);
            }
        }
        for piece in pieces {
            self.held.extend_from_slice(piece);
        }
        Poll::Ready(Ok(len))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.held.is_empty() && !std::mem::replace(&mut self.has_yielded, true) {
            // A task that wakes itself while it runs goes to the end of its worker's queue.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(self.write_held(context))?;
        self.has_yielded = false;
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.write_held(context))?;
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

impl<S: Read + Unpin> Read for Gather<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, into)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        sync::{Arc, Mutex},
    };

    use proptest::prelude::*;

    use super::*;

    type Writes = Arc<Mutex<Vec<Vec<u8>>>>;

    /// Notes each write; takes at most so many bytes at a time.
    #[derive(Debug)]
    struct Wire {
        writes: Writes,
        takes: usize,
    }

    impl Write for Wire {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let taken = bytes.len().min(self.takes);
            self.writes.lock().unwrap().push(bytes[..taken].to_vec());
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn wire(takes: usize) -> (Gather<Wire>, Writes) {
        let writes = Writes::default();
        let wire = Wire {
            writes: Arc::clone(&writes),
            takes,
        };
        (Gather::new(wire), writes)
    }

    async fn write(gather: &mut Gather<Wire>, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let written = poll_fn(|context| Pin::new(&mut *gather).poll_write(context, bytes)).await;
            bytes = &bytes[written.unwrap()..];
        }
    }

    #[tokio::test]
    async fn what_is_written_while_a_flush_waits_for_its_turn_goes_along() {
        let (mut gather, writes) = wire(usize::MAX);
        write(&mut gather, b"one ").await;
        let mut flushes = 0;
        poll_fn(|context| {
            flushes += 1;
            let flushed = Pin::new(&mut gather).poll_flush(context);
            if flushes == 1 {
                // As h2 does when its task runs again.
                assert!(flushed.is_pending() && writes.lock().unwrap().is_empty());
                let more = Pin::new(&mut gather).poll_write(context, b"two");
                assert!(matches!(more, Poll::Ready(Ok(3))));
            }
            flushed
        })
        .await
        .unwrap();
        assert_eq!(flushes, 2);
        assert_eq!(*writes.lock().unwrap(), [b"one two"]);
    }

    #[tokio::test]
    async fn a_flush_with_nothing_to_write_waits_for_nobody() {
        let (mut gather, _) = wire(usize::MAX);
        let flushed = poll_fn(|context| Poll::Ready(Pin::new(&mut gather).poll_flush(context))).await;
        assert!(matches!(flushed, Poll::Ready(Ok(()))));
    }

    #[tokio::test]
    async fn what_is_held_is_written_before_the_end() {
        let (mut gather, writes) = wire(2);
        write(&mut gather, b"rest").await;
        poll_fn(|context| Pin::new(&mut gather).poll_shutdown(context))
            .await
            .unwrap();
        assert_eq!(writes.lock().unwrap().concat(), b"rest");
    }

    proptest! {
        #[test]
        fn bytes_leave_whole_and_in_order(
            pieces in proptest::collection::vec((0_usize..40_000, any::<bool>()), 0..12),
            takes in 1_usize..50_000,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (mut gather, writes) = wire(takes.max(64));
            let mut sent = Vec::new();
            runtime.block_on(async {
                for (number, (len, is_flushed)) in pieces.into_iter().enumerate() {
                    let piece = (0..len).map(|i| (i + number) as u8).collect::<Vec<_>>();
                    write(&mut gather, &piece).await;
                    sent.extend(piece);
                    if is_flushed {
                        poll_fn(|context| Pin::new(&mut gather).poll_flush(context)).await.unwrap();
                        prop_assert_eq!(writes.lock().unwrap().concat().len(), sent.len());
                    }
                }
                poll_fn(|context| Pin::new(&mut gather).poll_flush(context)).await.unwrap();
                prop_assert_eq!(writes.lock().unwrap().concat(), sent);
                Ok(())
            })?;
        }
    }
}
