//! `ServeService`: what people and their tools say to the controller.
//!
//! Changes go to the ledger, which answers when they are on the disk; the state of things comes from the loop. Decides
//! nothing itself.

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use mobula_proto::control::v1::{self as pb, serve_service_server::ServeService};
use mobula_schema::Problem;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    Error,
    intent::{Ledger, MAX_BACKUP_BYTES},
    owner::Handle,
};

/// A piece of a backup: far below what gRPC takes by default, 4 MiB.
const PIECE_BYTES: usize = 256 << 10;

/// So long a backup waits for another to be over: most take less than a second.
const BACKUP_WAIT: Duration = Duration::from_secs(10);
/// Who sends a backup sends its next piece by then.
const PIECE_TIMEOUT: Duration = Duration::from_secs(30);

/// The service.
#[derive(Debug)]
pub(crate) struct Serve {
    handle: Handle,
    ledger: Ledger,
    /// Held by who makes or restores a backup: each has as much as all of history in memory.
    backups: Arc<Semaphore>,
}

impl Serve {
    pub(crate) fn new(handle: Handle, ledger: Ledger) -> Self {
        Self {
            handle,
            ledger,
            backups: Arc::new(Semaphore::new(1)),
        }
    }

    async fn only(&self) -> Result<OwnedSemaphorePermit, Error> {
        let permit = timeout(BACKUP_WAIT, self.backups.clone().acquire_owned()).await;
        let permit = permit.ok().and_then(Result::ok);
        permit.ok_or(Error::Busy("another backup is being made or restored"))
    }
}

// INTERNAL, of every method that changes something or reads history: the disk failed, and nothing was changed.
// UNAVAILABLE, of every method: stopping.
#[tonic::async_trait]
impl ServeService for Serve {
    type BackupStream = Pin<Box<dyn Stream<Item = Result<pb::BackupResponse, Status>> + Send>>;

    // UNAVAILABLE: stopping.
    async fn get_status(
        &self,
        _: Request<pb::GetStatusRequest>,
    ) -> Result<Response<pb::GetStatusResponse>, Status> {
        Ok(Response::new(self.handle.status().await?))
    }

    // INVALID_ARGUMENT: the config has problems. ABORTED: resource_version is not the current one.
    async fn deploy(
        &self,
        request: Request<pb::DeployRequest>,
    ) -> Result<Response<pb::DeployResponse>, Status> {
        let accepted = Some(self.ledger.deploy(request.into_inner()).await?);
        Ok(Response::new(pb::DeployResponse { accepted }))
    }

    // INVALID_ARGUMENT: the application has problems, alone or beside the others. ABORTED: resource_version is not the
    // application's current one.
    async fn put_application(
        &self,
        request: Request<pb::PutApplicationRequest>,
    ) -> Result<Response<pb::PutApplicationResponse>, Status> {
        let accepted = Some(self.ledger.put(request.into_inner()).await?);
        Ok(Response::new(pb::PutApplicationResponse { accepted }))
    }

    // NOT_FOUND: no application of the name. ABORTED: resource_version is not the current one.
    async fn delete_application(
        &self,
        request: Request<pb::DeleteApplicationRequest>,
    ) -> Result<Response<pb::DeleteApplicationResponse>, Status> {
        let accepted = Some(self.ledger.delete(request.into_inner()).await?);
        Ok(Response::new(pb::DeleteApplicationResponse { accepted }))
    }

    // NOT_FOUND: no application of the name.
    async fn get_config(
        &self,
        request: Request<pb::GetConfigRequest>,
    ) -> Result<Response<pb::GetConfigResponse>, Status> {
        Ok(Response::new(self.ledger.config(request.into_inner()).await?))
    }

    // NOT_FOUND: no such application or deployment. FAILED_PRECONDITION: it scales by itself. INVALID_ARGUMENT: too many.
    async fn scale(&self, request: Request<pb::ScaleRequest>) -> Result<Response<pb::ScaleResponse>, Status> {
        let accepted = Some(self.ledger.scale(request.into_inner()).await?);
        Ok(Response::new(pb::ScaleResponse { accepted }))
    }

    // None of its own.
    async fn get_history(
        &self,
        request: Request<pb::GetHistoryRequest>,
    ) -> Result<Response<pb::GetHistoryResponse>, Status> {
        Ok(Response::new(self.ledger.history(request.into_inner()).await?))
    }

    // NOT_FOUND: no such revision, or it has no such application. ABORTED: resource_version is not the current one.
    // INVALID_ARGUMENT: what was accepted then is refused now, beside the others.
    async fn rollback(
        &self,
        request: Request<pb::RollbackRequest>,
    ) -> Result<Response<pb::RollbackResponse>, Status> {
        let accepted = Some(self.ledger.rollback(request.into_inner()).await?);
        Ok(Response::new(pb::RollbackResponse { accepted }))
    }

    // None of its own: what is wrong with the config is the answer.
    async fn check(&self, request: Request<pb::CheckRequest>) -> Result<Response<pb::CheckResponse>, Status> {
        Ok(Response::new(self.ledger.check(request.into_inner()).await?))
    }

    // NOT_FOUND: nothing of that name or id is known. INVALID_ARGUMENT: no subject, or a name that several have.
    async fn explain(
        &self,
        request: Request<pb::ExplainRequest>,
    ) -> Result<Response<pb::ExplainResponse>, Status> {
        Ok(Response::new(self.handle.explain(request.into_inner()).await?))
    }

    // FAILED_PRECONDITION: it would be larger than what can be restored. RESOURCE_EXHAUSTED: another is being made or
    // restored.
    async fn backup(&self, _: Request<pb::BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        let permit = self.only().await?;
        let mut left = Bytes::from(self.ledger.backup().await?);
        let mut pieces = Vec::new();
        while !left.is_empty() {
            let data = left.split_to(left.len().min(PIECE_BYTES));
            pieces.push(Ok(pb::BackupResponse { data }));
        }
        let pieces = tokio_stream::iter(pieces).map(move |piece| {
            // Until the last piece is read, or its reader has gone.
            let _held = &permit;
            piece
        });
        Ok(Response::new(Box::pin(pieces)))
    }

    // INVALID_ARGUMENT: it is no backup, is damaged, too large, or of a newer controller. RESOURCE_EXHAUSTED: another is being
    // made or restored. DEADLINE_EXCEEDED: its next piece did not come.
    async fn restore(
        &self,
        request: Request<Streaming<pb::RestoreRequest>>,
    ) -> Result<Response<pb::RestoreResponse>, Status> {
        let _permit = self.only().await?;
        let mut pieces = request.into_inner();
        let mut bytes = Vec::new();
        loop {
            let next = timeout(PIECE_TIMEOUT, pieces.message()).await;
            let next =
                next.map_err(|_| Status::deadline_exceeded("the next piece of the backup did not come"))?;
            let Some(piece) = next? else { break };
            if bytes.len() + piece.data.len() > MAX_BACKUP_BYTES {
                return Err(Error::Invalid(vec![Problem {
                    path: "(backup)".into(),
                    line: None,
                    why: format!("has more than {MAX_BACKUP_BYTES} bytes"),
                }])
                .into());
            }
            bytes.extend_from_slice(&piece.data);
        }
        let accepted = Some(self.ledger.restore(bytes).await?);
        Ok(Response::new(pb::RestoreResponse { accepted }))
    }
}

#[cfg(test)]
mod tests {
    use mobula_kit::Stop;

    use super::*;
    use crate::{
        intent::Start,
        owner,
        store::{Bounds, Place},
    };

    #[tokio::test(start_paused = true)]
    async fn one_backup_is_made_or_restored_at_a_time() {
        let start = Start {
            place: Place::Memory,
            bounds: Bounds {
                revisions: 2,
                bytes: u64::MAX,
                decisions: 2,
            },
            restore: None,
            flags: None,
        };
        let stop = Stop::new(Duration::from_secs(5));
        let (handle, _, _) = owner::channel();
        let serve = Serve::new(handle, Ledger::open(start, &stop).await.unwrap());
        let unread = serve.backup(Request::new(pb::BackupRequest {})).await.unwrap();
        let refused = serve.only().await;
        assert!(matches!(refused, Err(Error::Busy(_))), "{refused:?}");
        drop(unread);
        assert!(serve.only().await.is_ok());
    }
}
