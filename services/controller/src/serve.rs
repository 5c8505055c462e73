//! `ServeService`: what people and their tools say to the controller.
//!
//! Changes go to the ledger, which answers when they are on the disk; the state of things comes from the loop. Decides
//! nothing itself.

use bytes::Bytes;
use mobula_proto::control::v1::{self as pb, serve_service_server::ServeService};
use mobula_schema::Problem;
use tokio_stream::Iter;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    Error,
    intent::{Ledger, MAX_BACKUP_BYTES},
    owner::Handle,
};

/// A piece of a backup: far below what gRPC takes by default, 4 MiB.
const PIECE_BYTES: usize = 256 << 10;

/// The service.
#[derive(Debug)]
pub(crate) struct Serve {
    pub(crate) handle: Handle,
    pub(crate) ledger: Ledger,
}

// INTERNAL, of every method that changes something or reads history: the disk failed, and nothing was changed.
// UNAVAILABLE, of every method: stopping.
#[tonic::async_trait]
impl ServeService for Serve {
    type BackupStream = Iter<std::vec::IntoIter<Result<pb::BackupResponse, Status>>>;

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

    // FAILED_PRECONDITION: it would be larger than what can be restored.
    async fn backup(&self, _: Request<pb::BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        let mut left = Bytes::from(self.ledger.backup().await?);
        let mut pieces = Vec::new();
        while !left.is_empty() {
            let data = left.split_to(left.len().min(PIECE_BYTES));
            pieces.push(Ok(pb::BackupResponse { data }));
        }
        Ok(Response::new(tokio_stream::iter(pieces)))
    }

    // INVALID_ARGUMENT: it is no backup, is damaged, too large, or of a newer controller.
    async fn restore(
        &self,
        request: Request<Streaming<pb::RestoreRequest>>,
    ) -> Result<Response<pb::RestoreResponse>, Status> {
        let mut pieces = request.into_inner();
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.message().await? {
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
