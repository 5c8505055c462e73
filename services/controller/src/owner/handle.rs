//! The handle to the loop.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use mobula_proto::control::v1 as pb;
use tokio::sync::{mpsc, oneshot};

use super::{Attached, Message, Routes};
use crate::{
    Error,
    state::{End, Event},
};

/// A cheap handle to the loop.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    pub(super) messages: mpsc::Sender<Message>,
    pub(super) routes: Routes,
    pub(super) numbers: Arc<AtomicU64>,
}

impl Handle {
    /// Attaches a worker.
    pub(crate) async fn attach(&self, hello: pb::Hello) -> Result<Attached, Error> {
        let session = self.number();
        let (reply, answer) = oneshot::channel();
        self.send(Message::Attach {
            session,
            hello,
            reply,
        })
        .await?;
        answer.await.map_err(|_| Error::Stopping)?
    }

    /// Passes on what a worker says.
    pub(crate) async fn heartbeat(&self, session: u64, heartbeat: pb::Heartbeat) -> Result<(), Error> {
        self.send(Message::Event(Event::Heartbeat { session, heartbeat }))
            .await
    }

    /// Tells that a worker's stream ended.
    pub(crate) async fn lost(&self, session: u64) -> Result<(), Error> {
        self.send(Message::Event(Event::Lost {
            session,
            end: End::Closed,
        }))
        .await
    }

    /// Tells that a worker's process ended.
    pub(crate) async fn exited(&self, worker_id: String, why: String) -> Result<(), Error> {
        self.send(Message::Event(Event::Exited { worker_id, why })).await
    }

    /// Tells that a worker is none of the provider's processes.
    pub(crate) async fn foreign(&self, worker_id: String) -> Result<(), Error> {
        self.send(Message::Event(Event::Foreign { worker_id })).await
    }

    /// Counts a proxy in; gives the watch's number and the table.
    pub(crate) async fn watch(&self, proxy: pb::ProxyStatus) -> Result<(u64, Routes), Error> {
        let watch = self.number();
        self.send(Message::Event(Event::Watched { watch, proxy })).await?;
        Ok((watch, self.routes.clone()))
    }

    /// Counts a proxy out.
    pub(crate) async fn unwatch(&self, watch: u64) -> Result<(), Error> {
        self.send(Message::Event(Event::Unwatched { watch })).await
    }

    /// Passes on what a proxy's callers ask for.
    pub(crate) async fn demand(&self, proxy: String, request: pb::ReportDemandRequest) -> Result<(), Error> {
        self.send(Message::Event(Event::Demand { proxy, request })).await
    }

    /// Tells that a proxy reports no more.
    pub(crate) async fn proxy_gone(&self, proxy: String) -> Result<(), Error> {
        self.send(Message::Event(Event::ProxyGone { proxy })).await
    }

    /// The state of everything.
    pub(crate) async fn status(&self) -> Result<pb::GetStatusResponse, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Status(reply)).await?;
        answer.await.map_err(|_| Error::Stopping)
    }

    /// Why something is as it is.
    pub(crate) async fn explain(&self, request: pb::ExplainRequest) -> Result<pb::ExplainResponse, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Explain { request, reply }).await?;
        answer.await.map_err(|_| Error::Stopping)?
    }

    async fn send(&self, message: Message) -> Result<(), Error> {
        self.messages.send(message).await.map_err(|_| Error::Stopping)
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }
}
