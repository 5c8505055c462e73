//! The gRPC door of the protocol: `inference.GRPCInferenceService`.

mod message;
mod stream;

use std::{collections::HashMap, sync::Arc};

pub(crate) use self::message::refused;
use mobula_kit::{Deadline, Stop};
use mobula_proto::oip::{self, grpc_inference_service_server::GrpcInferenceService};
use tonic::{
    Request, Response, Status, Streaming,
    metadata::{Ascii, MetadataMap, MetadataValue},
};

use super::{
    ask::{Ask, To},
    catalog::{self, Which},
    infer::{Oip, Terms},
};
use crate::{Error, caller::Caller, metrics::Door, table::Table};

/// Metadata with a terms's name for its request, in and out.
const REQUEST_ID: &str = "x-request-id";
/// Metadata by which Ray Serve's callers choose one of an application's models.
const MODEL_ID: &str = "multiplexed_model_id";
/// Who this is.
pub(crate) const SERVER: &str = "mobula";
/// Extensions of the protocol that are spoken here, by Triton's names.
pub(crate) const EXTENSIONS: [&str; 6] = [
    "model_repository",
    "schedule_policy",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "statistics",
];
/// For who wants to unload a model.
pub(crate) const NO_UNLOAD: &str = "nothing is unloaded over this protocol: `mobula delete` ends an application, and models on \
    demand leave when others need their room";
/// For who wants to share memory.
pub(crate) const NO_SHARED_MEMORY: &str =
    "memory is not shared here: send tensors in the request (raw_input_contents, or binary data over HTTP)";
/// For who wants to set up traces.
pub(crate) const NO_TRACES: &str =
    "traces are not set up over this protocol: they go where OTEL_EXPORTER_OTLP_ENDPOINT says";
/// For who wants to set up the log.
pub(crate) const NO_LOG: &str = "the log is not set up over this protocol: it is as MOBULA_LOG says";

/// The service.
#[derive(Debug)]
pub(crate) struct Inference {
    pub(crate) oip: Oip,
    pub(crate) stop: Stop,
}

type Answered<T> = Result<Response<T>, Status>;

impl Inference {
    fn table(&self) -> Arc<Table> {
        self.oip.generator.table()
    }

    /// The model that a name means, once any is known.
    async fn which(&self, caller: &Caller, name: &str, version: &str) -> Result<Which, Error> {
        let table = self.oip.generator.heard_table().await;
        Which::find((&table, caller), name, version)
    }
}

/// Which of the models on demand, where the name does not say.
fn model_id(metadata: &MetadataMap) -> String {
    let given = metadata.get(MODEL_ID).and_then(|id| id.to_str().ok());
    given.unwrap_or_default().to_owned()
}

/// Who asks, as the metadata say.
fn terms<T>(request: &Request<T>) -> Terms {
    let given = request.metadata().get(REQUEST_ID).and_then(|id| id.to_str().ok());
    Terms {
        request_id: given.unwrap_or_default().to_owned(),
        caller: Caller::of(request.extensions()),
        deadline: Deadline::of(request),
        priority: 0,
        door: Door::Grpc,
        headers: None,
        problems: Vec::new(),
    }
}

/// A request with the names that its answers have.
fn read(request: oip::ModelInferRequest) -> (To, String, Result<Ask, Error>) {
    let to = To {
        model: request.model_name.clone(),
        id: request.id.clone(),
    };
    let version = request.model_version.clone();
    (to, version, message::read(request).map_err(Error::Invalid))
}

#[tonic::async_trait]
impl GrpcInferenceService for Inference {
    type ModelStreamInferStream = stream::Answers;

    async fn server_live(&self, _: Request<oip::ServerLiveRequest>) -> Answered<oip::ServerLiveResponse> {
        // Never fails.
        Ok(Response::new(oip::ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<oip::ServerReadyRequest>) -> Answered<oip::ServerReadyResponse> {
        // Never fails.
        let ready = self.table().is_populated && !self.stop.is_triggered();
        Ok(Response::new(oip::ServerReadyResponse { ready }))
    }

    async fn model_ready(
        &self,
        request: Request<oip::ModelReadyRequest>,
    ) -> Answered<oip::ModelReadyResponse> {
        // Never fails: who knows no model is not ready for it.
        let caller = Caller::of(request.extensions());
        let oip::ModelReadyRequest { name, version } = request.into_inner();
        let which = Which::find((&self.table(), &caller), &name, &version);
        let ready = which.is_ok_and(|which| which.reason().is_none()) && !self.stop.is_triggered();
        Ok(Response::new(oip::ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _: Request<oip::ServerMetadataRequest>,
    ) -> Answered<oip::ServerMetadataResponse> {
        // Never fails.
        Ok(Response::new(oip::ServerMetadataResponse {
            name: SERVER.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: EXTENSIONS.map(str::to_owned).into(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<oip::ModelMetadataRequest>,
    ) -> Answered<oip::ModelMetadataResponse> {
        // NOT_FOUND: no such model or version. INVALID_ARGUMENT: none is named. UNAVAILABLE: the controller was never heard.
        // PERMISSION_DENIED: the key does not open the model.
        let caller = Caller::of(request.extensions());
        let oip::ModelMetadataRequest { name, version } = request.into_inner();
        let which = self.which(&caller, &name, &version).await?;
        Ok(Response::new(which.metadata()))
    }

    async fn model_infer(
        &self,
        request: Request<oip::ModelInferRequest>,
    ) -> Answered<oip::ModelInferResponse> {
        // INVALID_ARGUMENT: a tensor or a parameter is wrong. NOT_FOUND: no such model or version. The rest: as for Generate of
        // mobula.image.v1.ImageService.
        let terms = terms(&request);
        let model_id = model_id(request.metadata());
        let (to, version, ask) = read(request.into_inner());
        let table = self.oip.generator.heard_table().await;
        let which = Which::find_or((&table, &terms.caller), (&to.model, &model_id), &version)?;
        let (id, answer) = self.oip.infer(which, ask?, terms).await?;
        let mut response = Response::new(message::write(&to, answer));
        if let Ok(value) = MetadataValue::<Ascii>::try_from(&*id) {
            response.metadata_mut().insert(REQUEST_ID, value);
        }
        Ok(response)
    }

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<oip::ModelInferRequest>>,
    ) -> Answered<Self::ModelStreamInferStream> {
        // Whatever is wrong with a request is told in an answer. INVALID_ARGUMENT: what came is no request at all. UNAVAILABLE:
        // the proxy drains, and took no more requests from this stream.
        let terms = Terms {
            // One name cannot be that of several requests.
            request_id: String::new(),
            ..terms(&request)
        };
        let model_id = model_id(request.metadata());
        let (oip, stop) = (self.oip.clone(), self.stop.clone());
        let answers = stream::answers((oip, stop), (terms, model_id), request.into_inner());
        Ok(Response::new(answers))
    }

    async fn model_config(
        &self,
        request: Request<oip::ModelConfigRequest>,
    ) -> Answered<oip::ModelConfigResponse> {
        // NOT_FOUND: no such model or version. INVALID_ARGUMENT: none is named. UNAVAILABLE: the controller was never heard.
        // PERMISSION_DENIED: the key does not open the model.
        let caller = Caller::of(request.extensions());
        let oip::ModelConfigRequest { name, version } = request.into_inner();
        let config = Some(self.which(&caller, &name, &version).await?.config());
        Ok(Response::new(oip::ModelConfigResponse { config }))
    }

    async fn model_statistics(
        &self,
        request: Request<oip::ModelStatisticsRequest>,
    ) -> Answered<oip::ModelStatisticsResponse> {
        // NOT_FOUND: no such model or version. UNAVAILABLE: the controller was never heard. PERMISSION_DENIED: the key does not
        // open the model. Without a name it tells of what the key opens.
        let caller = Caller::of(request.extensions());
        let oip::ModelStatisticsRequest { name, version } = request.into_inner();
        let model_stats = if name.is_empty() {
            let table = self.table();
            if !table.is_populated {
                return Err(Error::NoRoutes.into());
            }
            catalog::all(&table, &caller)
                .iter()
                .map(Which::statistics)
                .collect()
        } else {
            vec![self.which(&caller, &name, &version).await?.statistics()]
        };
        Ok(Response::new(oip::ModelStatisticsResponse { model_stats }))
    }

    async fn repository_index(
        &self,
        request: Request<oip::RepositoryIndexRequest>,
    ) -> Answered<oip::RepositoryIndexResponse> {
        // UNAVAILABLE: the controller was never heard. It lists what the key opens.
        let table = self.table();
        if !table.is_populated {
            return Err(Error::NoRoutes.into());
        }
        let caller = Caller::of(request.extensions());
        let is_ready_only = request.into_inner().ready;
        let all = catalog::all(&table, &caller);
        let models = all.iter().map(Which::index);
        let models = models.filter(|model| !is_ready_only || model.reason.is_empty());
        Ok(Response::new(oip::RepositoryIndexResponse {
            models: models.collect(),
        }))
    }

    async fn repository_model_load(
        &self,
        request: Request<oip::RepositoryModelLoadRequest>,
    ) -> Answered<oip::RepositoryModelLoadResponse> {
        // NOT_FOUND: no such model. INVALID_ARGUMENT: a parameter is given. UNAVAILABLE: no replica came in time, or the
        // controller was never heard. INTERNAL: the model cannot be loaded.
        let terms = terms(&request);
        let asked = request.into_inner();
        let names: Vec<_> = asked.parameters.keys().cloned().collect();
        catalog::load_as_it_is(&names)?;
        let which = self.which(&terms.caller, &asked.model_name, "").await?;
        self.oip.load(&which, terms).await?;
        Ok(Response::new(oip::RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        _: Request<oip::RepositoryModelUnloadRequest>,
    ) -> Answered<oip::RepositoryModelUnloadResponse> {
        // UNIMPLEMENTED: always.
        Err(Error::Unsupported(NO_UNLOAD).into())
    }

    async fn system_shared_memory_status(
        &self,
        _: Request<oip::SystemSharedMemoryStatusRequest>,
    ) -> Answered<oip::SystemSharedMemoryStatusResponse> {
        // Never fails.
        let regions = HashMap::new();
        Ok(Response::new(oip::SystemSharedMemoryStatusResponse { regions }))
    }

    async fn system_shared_memory_register(
        &self,
        _: Request<oip::SystemSharedMemoryRegisterRequest>,
    ) -> Answered<oip::SystemSharedMemoryRegisterResponse> {
        // UNIMPLEMENTED: always.
        Err(Error::Unsupported(NO_SHARED_MEMORY).into())
    }

    async fn system_shared_memory_unregister(
        &self,
        _: Request<oip::SystemSharedMemoryUnregisterRequest>,
    ) -> Answered<oip::SystemSharedMemoryUnregisterResponse> {
        // Never fails: clients tidy up before they begin.
        Ok(Response::new(oip::SystemSharedMemoryUnregisterResponse {}))
    }

    async fn cuda_shared_memory_status(
        &self,
        _: Request<oip::CudaSharedMemoryStatusRequest>,
    ) -> Answered<oip::CudaSharedMemoryStatusResponse> {
        // Never fails.
        let regions = HashMap::new();
        Ok(Response::new(oip::CudaSharedMemoryStatusResponse { regions }))
    }

    async fn cuda_shared_memory_register(
        &self,
        _: Request<oip::CudaSharedMemoryRegisterRequest>,
    ) -> Answered<oip::CudaSharedMemoryRegisterResponse> {
        // UNIMPLEMENTED: always.
        Err(Error::Unsupported(NO_SHARED_MEMORY).into())
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _: Request<oip::CudaSharedMemoryUnregisterRequest>,
    ) -> Answered<oip::CudaSharedMemoryUnregisterResponse> {
        // Never fails: clients tidy up before they begin.
        Ok(Response::new(oip::CudaSharedMemoryUnregisterResponse {}))
    }

    async fn trace_setting(
        &self,
        _: Request<oip::TraceSettingRequest>,
    ) -> Answered<oip::TraceSettingResponse> {
        // UNIMPLEMENTED: always.
        Err(Error::Unsupported(NO_TRACES).into())
    }

    async fn log_settings(&self, _: Request<oip::LogSettingsRequest>) -> Answered<oip::LogSettingsResponse> {
        // UNIMPLEMENTED: always.
        Err(Error::Unsupported(NO_LOG).into())
    }
}
