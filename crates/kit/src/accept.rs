//! The accept loop of every door, and its drain. It knows no protocol: what a connection carries is the caller's future.
//!
//! Drain, once the stop is triggered: connections are taken for the notice time, in which balancers hear of it; then no
//! new ones, and those there are told through `closing`. Invariant: when `connections` returns, none is left.

use std::{io, pin::pin, sync::Arc, time::Duration};

use tokio::net::TcpStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Stop,
    guests::Guests,
    listen::Listener,
    tls::{self, Protocol, Stream},
};

/// How long a draining server goes on taking calls: a route update needs a few milliseconds to reach every proxy, a
/// Kubernetes endpoint some more.
pub const NOTICE: Duration = Duration::from_millis(250);
/// Pause after accepting failed, which means that descriptors ran out: an immediate retry would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A connection that was accepted and on which hands were not shaken yet: that is for its own task, so that a slow caller
/// holds up nobody.
#[derive(Debug)]
pub struct Incoming {
    tcp: TcpStream,
    tls: Option<tls::Server>,
}

impl Incoming {
    /// Makes a stream of it, with what TLS proved; a plain one at once. None when no handshake came about, or closing came
    /// before it did.
    pub async fn open(
        self,
        protocol: Protocol,
        closing: &CancellationToken,
    ) -> Option<(Stream, Option<tls::Connection>)> {
        let Some(tls) = self.tls else {
            return Some((Stream::Plain(self.tcp), None));
        };
        let accepted = Box::pin(tls.accept(self.tcp, protocol));
        let (stream, connection) = tokio::select! {
            biased;
            accepted = accepted => accepted?,
            () = closing.cancelled() => return None,
        };
        Some((stream, Some(connection)))
    }
}

/// Serves connections, with TCP_NODELAY, until the stop is triggered and all of them have ended. Each has to end by itself:
/// soon after `closing` is cancelled, at the latest when the stop expires.
pub(crate) async fn connections<F, C>(
    (listener, guests): (Listener, Arc<Guests>),
    notice: Duration,
    closing: &CancellationToken,
    stop: &Stop,
    mut connection: F,
) where
    F: FnMut(Incoming) -> C,
    C: Future<Output = ()> + Send + 'static,
{
    let tasks = TaskTracker::new();
    let mut end_of_notice = pin!(async {
        stop.triggered().await;
        tokio::select! {
            () = tokio::time::sleep(notice) => {}
            () = stop.expired() => {}
        }
    });
    let Listener { tcp: listener, tls } = listener;
    loop {
        tokio::select! {
            biased;
            () = &mut end_of_notice => break,
            accepted = listener.accept() => match accepted {
                Ok((tcp, peer)) => match (guests.enter(peer.ip()), tcp.set_nodelay(true)) {
                    (Some(guest), Ok(())) => {
                        let serving = connection(Incoming { tcp, tls: tls.clone() });
                        tasks.spawn(async move {
                            let _guest = guest;
                            serving.await;
                        });
                    }
                    (None, _) => tracing::debug!(%peer, "a connection was one too many"),
                    (_, Err(error)) => gone(&error),
                },
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    // Closed before the connections drain: a caller that dials now is refused at once and goes elsewhere.
    drop(listener);
    closing.cancel();
    tasks.close();
    tasks.wait().await;
}

fn gone(error: &io::Error) {
    tracing::debug!(%error, "a connection was gone before it was served");
}
