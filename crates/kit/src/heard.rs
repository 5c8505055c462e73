//! Whether a peer has said as much as the beginning of HTTP/2 takes: hyper waits for the rest of it for ever.
//!
//! Whoever begins otherwise has begun HTTP/1.1, whose heads hyper limits itself. Nothing is kept and nothing is changed.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio_util::sync::CancellationToken;

/// Bytes of the client's preface (RFC 9113, 3.4).
const PREFACE: usize = 24;

/// A connection that tells when so much was heard.
#[derive(Debug)]
pub(crate) struct Heard<S> {
    inner: S,
    left: usize,
    token: CancellationToken,
}

impl<S> Heard<S> {
    /// Cancels the token once it has.
    pub(crate) fn new(inner: S, token: CancellationToken) -> Self {
        let left = PREFACE;
        Self { inner, left, token }
    }
}

impl<S: Read + Unpin> Read for Heard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Pin::new(&mut self.inner).poll_read(context, into);
        }
        // A cursor does not tell what was put in: the first bytes go through a buffer of their own.
        let mut first = [0; PREFACE];
        let room = self.left.min(into.remaining());
        let mut read = hyper::rt::ReadBuf::new(&mut first[..room]);
        let polled = Pin::new(&mut self.inner).poll_read(context, read.unfilled());
        let filled = read.filled();
        into.put_slice(filled);
        self.left -= filled.len();
        if self.left == 0 {
            self.token.cancel();
        }
        polled
    }
}

impl<S: Write + Unpin> Write for Heard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
