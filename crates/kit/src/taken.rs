//! Connections whose peer takes nothing of what is written to it: its receive window and our send buffer are full, and stay
//! so. The connection is ended with an error, and all that was held for it is free.
//!
//! Bytes count as taken when the system takes them, which does so in large steps where it has given a connection a large
//! buffer. A timer is made when a write has to wait, and not before.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::time::Instant;

use crate::{
    leaving::PATIENCE,
    pace::{self, Pace, Timer},
};

/// A connection that is let go of when it is not read.
#[derive(Debug)]
pub(crate) struct Taken<S> {
    inner: S,
    /// There from a write that had to wait to the flush that had not.
    pace: Option<Pace>,
    timer: Timer,
}

impl<S> Taken<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self {
            inner,
            pace: None,
            timer: Timer::default(),
        }
    }

    fn written(
        &mut self,
        polled: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        match &polled {
            Poll::Pending => {
                if let Err(error) = self.wait(context) {
                    return Poll::Ready(Err(error));
                }
            }
            Poll::Ready(Ok(bytes)) => {
                if let Some(pace) = &mut self.pace {
                    pace.moved(*bytes, Instant::now());
                }
            }
            Poll::Ready(Err(_)) => {}
        }
        polled
    }

    fn flushed(&mut self, polled: Poll<io::Result<()>>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if polled.is_ready() {
            self.pace = None;
        } else if let Err(error) = self.wait(context) {
            return Poll::Ready(Err(error));
        }
        polled
    }

    fn wait(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let pace = self
            .pace
            .get_or_insert_with(|| Pace::new(PATIENCE, Instant::now()));
        if !self.timer.is_late(pace, context) {
            return Ok(());
        }
        pace::count("connection");
        let why = "the peer takes nothing of what is written to it";
        Err(io::Error::new(io::ErrorKind::TimedOut, why))
    }
}

impl<S: Write + Unpin> Write for Taken<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.written(polled, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(context, pieces);
        self.written(polled, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(context);
        self.flushed(polled, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_shutdown(context);
        self.flushed(polled, context)
    }
}

impl<S: Read + Unpin> Read for Taken<S> {
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
    use std::{future::poll_fn, time::Duration};

    use hyper_util::rt::TokioIo;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    async fn write(to: &mut Taken<TokioIo<tokio::io::DuplexStream>>, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = poll_fn(|context| Pin::new(&mut *to).poll_write(context, bytes)).await?;
            bytes = &bytes[written..];
        }
        poll_fn(|context| Pin::new(&mut *to).poll_flush(context)).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_not_read_ends_and_one_that_is_idle_does_not() {
        let (peer, ours) = tokio::io::duplex(1 << 10);
        let mut ours = Taken::new(TokioIo::new(ours));
        write(&mut ours, &[0; 1 << 10]).await.unwrap();
        tokio::time::sleep(10 * PATIENCE).await;
        let start = Instant::now();
        let error = write(&mut ours, &[0]).await.unwrap_err();
        assert_eq!(
            (error.kind(), start.elapsed()),
            (io::ErrorKind::TimedOut, PATIENCE)
        );
        drop(peer);
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_slowly_gets_all_and_who_drips_does_not() {
        for (step, gets_all) in [(64 << 10, true), (1, false)] {
            let (mut peer, ours) = tokio::io::duplex(64 << 10);
            let mut ours = Taken::new(TokioIo::new(ours));
            let reading = tokio::spawn(async move {
                let mut piece = vec![0; step];
                while let Ok(1..) = peer.read(&mut piece).await {
                    tokio::time::sleep(Duration::from_secs(50)).await;
                }
            });
            let written = write(&mut ours, &vec![0; 640 << 10]).await;
            assert_eq!(written.is_ok(), gets_all, "{step}: {written:?}");
            reading.abort();
        }
    }
}
