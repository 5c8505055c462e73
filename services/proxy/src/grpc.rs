//! The gRPC door: `mobula.image.v1.ImageService`.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures::Stream;
use http::{HeaderName, HeaderValue};
use mobula_kit::{Deadline, grpc::Trailing, status};
use mobula_proto::{
    control::v1::ModelInfo,
    image::v1::{
        CancelRequest, CancelResponse, GenerateRequest, GenerateResponse, GetModelRequest, GetModelResponse,
        ListModelsRequest, ListModelsResponse, Model, image_service_server::ImageService,
    },
};
use prost::Message;
use tonic::{
    Request, Response, Status,
    metadata::{Ascii, MetadataMap, MetadataValue},
};
use tracing::{debug_span, field::Empty};

use crate::{
    Error,
    caller::Caller,
    events::{Events, Reader},
    failfast,
    generate::{Call, Generator},
    metrics::Door,
    problem::Problem,
    replica::Replica,
    table::{Application, NAME_SHOWN},
    validate,
};

/// Metadata that carry a caller's request id, by falling weight: the second is Ray Serve's.
const REQUEST_ID: [&str; 2] = ["x-request-id", "request_id"];
/// Bytes from which compressing an answer is worth its time: what is shorter fits one packet in any case.
const WORTH_COMPRESSING: usize = 1_024;
/// Metadata by which Ray Serve's callers choose an application.
const APPLICATION: &str = "application";
/// Metadata by which they choose one of its models.
const MODEL_ID: &str = "multiplexed_model_id";

/// The service.
#[derive(Debug)]
pub(crate) struct Images {
    pub(crate) generator: Generator,
}

/// A request's events as responses.
#[derive(Debug)]
pub(crate) struct Responses(Events);

impl Stream for Responses {
    type Item = Result<GenerateResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = ready!(Pin::new(&mut self.0).poll_next(cx));
        Poll::Ready(next.map(|event| match event {
            Ok(event) => Ok(GenerateResponse { event: Some(event) }),
            Err(error) => Err(error.into()),
        }))
    }
}

impl Images {
    /// Who asks.
    fn caller<T>(&self, request: &Request<T>) -> Result<Arc<Caller>, Error> {
        let caller = Caller::of(request.extensions());
        self.generator.keys().check(&caller)?;
        Ok(caller)
    }
}

#[tonic::async_trait]
impl ImageService for Images {
    type GenerateStream = Responses;

    async fn generate(
        &self,
        request: Request<GenerateRequest>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        // INVALID_ARGUMENT: a field is wrong, or no model is named and there are several. NOT_FOUND: no such model or model_id.
        // ALREADY_EXISTS: the request id is taken. UNAUTHENTICATED: no key, or one that is not known. PERMISSION_DENIED: the key
        // does not open the model, or not this priority. RESOURCE_EXHAUSTED: the key's rate or quota is used up. RESOURCE_EXHAUSTED: the queue is full. DEADLINE_EXCEEDED: the deadline
        // passed, cannot be met, or the events were not read for a minute. CANCELLED: somebody called Cancel. UNAVAILABLE: no replica came in time, or too many
        // were lost. FAILED_PRECONDITION: the picture's numbers stopped being finite. INTERNAL: the model failed.
        let deadline = Deadline::of(&request);
        let (metadata, extensions, mut asked) = request.into_parts();
        if asked.request_id.is_empty() {
            asked.request_id = REQUEST_ID
                .iter()
                .find_map(|key| text(&metadata, key))
                .unwrap_or_default()
                .to_owned();
        }
        if asked.model.is_empty() {
            asked.model = text(&metadata, APPLICATION).unwrap_or_default().to_owned();
        }
        if asked.model_id.is_empty() {
            asked.model_id = text(&metadata, MODEL_ID).unwrap_or_default().to_owned();
        }
        let mut problems = Vec::new();
        if asked.failfast.is_none()
            && let Some(given) = metadata.get(failfast::NAME)
        {
            match failfast::read(given.to_str().unwrap_or_default()) {
                Ok(is_fast) => asked.failfast = Some(is_fast),
                Err(rule) => problems.push(Problem::new(failfast::NAME, rule)),
            }
        }
        let given = asked.request_id.clone();
        let span = debug_span!("generate", request_id = Empty, model = asked.model);
        let call = Call {
            request: asked,
            problems,
            deadline,
            door: Door::Grpc,
            reader: Reader::Follows,
            caller: Caller::of(&extensions),
            span,
        };
        let (id, events) = self.generator.start(call).map_err(|error| {
            let mut status = Status::from(error);
            name(status.metadata_mut(), &given);
            status
        })?;
        let mut response = Response::new(Responses(events));
        name(response.metadata_mut(), &id);
        if let Ok(value) = HeaderValue::from_str(&id) {
            let trailing = Trailing(HeaderName::from_static(REQUEST_ID[1]), value);
            response.extensions_mut().insert(trailing);
        }
        Ok(response)
    }

    async fn cancel(&self, request: Request<CancelRequest>) -> Result<Response<CancelResponse>, Status> {
        // INVALID_ARGUMENT: the id is empty, or cannot be one. NOT_FOUND: no request of this caller's with this id is running
        // here. UNAUTHENTICATED: no key, or one that is not known.
        let caller = self.caller(&request)?;
        let id = request.into_inner().request_id;
        if id.is_empty() {
            return Err(status::invalid("request_id", "must not be empty"));
        }
        validate::request_id(&id).map_err(|problem| Error::Invalid(vec![problem]))?;
        self.generator.cancel(&caller, &id)?;
        Ok(Response::new(CancelResponse {}))
    }

    async fn list_models(
        &self,
        request: Request<ListModelsRequest>,
    ) -> Result<Response<ListModelsResponse>, Status> {
        // UNAVAILABLE: the controller was never heard. UNAUTHENTICATED: no key, or one that is not known.
        let caller = self.caller(&request)?;
        let table = self.generator.table();
        if !table.is_populated {
            return Err(Error::NoRoutes.into());
        }
        let models = table
            .applications()
            .iter()
            .flat_map(|application| models(application))
            .filter(|model| caller.may_use(&model.name, &model.model_id))
            .collect();
        Ok(worth(ListModelsResponse { models }))
    }

    async fn get_model(
        &self,
        request: Request<GetModelRequest>,
    ) -> Result<Response<GetModelResponse>, Status> {
        // NOT_FOUND: no such model or model_id. INVALID_ARGUMENT: none is named and there are several. UNAVAILABLE: the controller was
        // never heard, or the model's first replica is still starting. UNAUTHENTICATED: no key, or one that is not known.
        // PERMISSION_DENIED: the key does not open the model.
        let caller = self.caller(&request)?;
        let (metadata, _, GetModelRequest { mut model, model_id }) = request.into_parts();
        if model.is_empty() {
            model = text(&metadata, APPLICATION).unwrap_or_default().to_owned();
        }
        let table = self.generator.table();
        let application = table.of_caller(&model, &caller)?;
        caller.check(&application.name, &model_id)?;
        let known = models(application);
        let ids = || known.iter().map(|model| model.model_id.clone());
        match known.iter().find(|model| model.model_id == model_id) {
            Some(model) => Ok(worth(GetModelResponse {
                model: Some(model.clone()),
            })),
            None if model_id.is_empty() => Err(Error::NoReplica {
                deployment: application.name.clone(),
                waited: std::time::Duration::ZERO,
                why: String::new(),
            }
            .into()),
            None => Err(caller
                .narrow(Error::UnknownModelId {
                    application: application.name.clone(),
                    model_id: model_id.chars().take(NAME_SHOWN).collect(),
                    known: ids().filter(|id| !id.is_empty()).collect(),
                })
                .into()),
        }
    }
}

/// Describes an application's own model, once a replica of it ran, and those that it serves on demand.
fn models(application: &Application) -> Vec<Model> {
    let Some(pool) = &application.pipeline else {
        return Vec::new();
    };
    let replicas = pool.replicas();
    let own = application.model.as_deref();
    let own = own.map(|info| (String::new(), Some(info.clone()), replicas.len()));
    let on_demand = pool.models().into_iter().map(|(id, info)| {
        let holds = |replica: &&Arc<Replica>| replica.model(Some(&id)).is_some();
        let ready = replicas.iter().filter(holds).count();
        (id, info.as_deref().cloned(), ready)
    });
    own.into_iter()
        .chain(on_demand)
        .map(|(model_id, info, ready)| Model {
            model_id,
            ready_replicas: u32::try_from(ready).unwrap_or(u32::MAX),
            ..model(&application.name, info.unwrap_or_default())
        })
        .collect()
}

/// Describes a model.
fn model(application: &str, info: ModelInfo) -> Model {
    Model {
        name: application.to_owned(),
        digest: info.digest,
        pipeline_class: info.pipeline_class,
        default_width: info.default_width,
        default_height: info.default_height,
        default_steps: info.default_steps,
        default_guidance_scale: info.default_guidance_scale,
        default_scheduler: info.default_scheduler,
        schedulers: info.schedulers,
        size_multiple: info.size_multiple,
        max_size: info.max_size,
        tasks: info.tasks,
        sigma_schedules: info.sigma_schedules,
        max_clip_skip: info.max_clip_skip,
        ..Model::default()
    }
}

/// An answer that is compressed for who asks for it, unless it is too short to gain by it.
fn worth<M: Message>(message: M) -> Response<M> {
    let is_short = message.encoded_len() < WORTH_COMPRESSING;
    let mut response = Response::new(message);
    if is_short {
        response.disable_compression();
    }
    response
}

/// Gives a request's id back to its caller; one that is empty, or cannot be sent, is none.
fn name(metadata: &mut MetadataMap, id: &str) {
    if !id.is_empty()
        && let Ok(value) = MetadataValue::<Ascii>::try_from(id)
    {
        metadata.insert(REQUEST_ID[1], value.clone());
        metadata.insert(REQUEST_ID[0], value);
    }
}

fn text<'a>(metadata: &'a MetadataMap, key: &str) -> Option<&'a str> {
    metadata.get(key)?.to_str().ok()
}
