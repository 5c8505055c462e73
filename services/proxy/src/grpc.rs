//! The gRPC door: `mobula.image.v1.ImageService`.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::Stream;
use mobula_kit::{Deadline, status};
use mobula_proto::image::v1::{
    CancelRequest, CancelResponse, GenerateRequest, GenerateResponse, GetModelRequest, GetModelResponse,
    ListModelsRequest, ListModelsResponse, Model, image_service_server::ImageService,
};
use tonic::{
    Request, Response, Status,
    metadata::{Ascii, MetadataMap, MetadataValue},
};
use tracing::{debug_span, field::Empty};

use crate::{
    Error,
    events::Events,
    generate::{Call, Generator},
    metrics::Door,
    table::Application,
    validate,
};

/// Metadata that carry a caller's request id, by falling weight: the second is Ray Serve's.
const REQUEST_ID: [&str; 2] = ["x-request-id", "request_id"];
/// Metadata by which Ray Serve's callers choose an application.
const APPLICATION: &str = "application";

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

#[tonic::async_trait]
impl ImageService for Images {
    type GenerateStream = Responses;

    async fn generate(
        &self,
        request: Request<GenerateRequest>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        // INVALID_ARGUMENT: a field is wrong, or no model is named and there are several. NOT_FOUND: no such model.
        // ALREADY_EXISTS: the request id is taken. RESOURCE_EXHAUSTED: the queue is full. DEADLINE_EXCEEDED: the deadline
        // passed, cannot be met, or the events were not read for a minute. CANCELLED: somebody called Cancel. UNAVAILABLE: no replica came in time, or too many
        // were lost. INTERNAL: the model failed.
        let deadline = Deadline::of(&request);
        let (metadata, _, mut asked) = request.into_parts();
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
        let span = debug_span!("generate", request_id = Empty, model = asked.model);
        let call = Call {
            request: asked,
            problems: Vec::new(),
            deadline,
            door: Door::Grpc,
            span,
        };
        let (id, events) = self.generator.start(call)?;
        let mut response = Response::new(Responses(events));
        if let Ok(value) = MetadataValue::<Ascii>::try_from(&*id) {
            response.metadata_mut().insert(REQUEST_ID[1], value.clone());
            response.metadata_mut().insert(REQUEST_ID[0], value);
        }
        Ok(response)
    }

    async fn cancel(&self, request: Request<CancelRequest>) -> Result<Response<CancelResponse>, Status> {
        // INVALID_ARGUMENT: the id is empty, or cannot be one. NOT_FOUND: no request with this id is running here.
        let id = request.into_inner().request_id;
        if id.is_empty() {
            return Err(status::invalid("request_id", "must not be empty"));
        }
        validate::request_id(&id).map_err(|problem| Error::Invalid(vec![problem]))?;
        self.generator.cancel(&id)?;
        Ok(Response::new(CancelResponse {}))
    }

    async fn list_models(
        &self,
        _: Request<ListModelsRequest>,
    ) -> Result<Response<ListModelsResponse>, Status> {
        // UNAVAILABLE: the controller was never heard.
        let table = self.generator.table();
        if !table.is_populated {
            return Err(Error::NoRoutes.into());
        }
        let models = table
            .applications()
            .iter()
            .filter_map(|application| model(application))
            .collect();
        Ok(Response::new(ListModelsResponse { models }))
    }

    async fn get_model(
        &self,
        request: Request<GetModelRequest>,
    ) -> Result<Response<GetModelResponse>, Status> {
        // NOT_FOUND: no such model. INVALID_ARGUMENT: none is named and there are several. UNAVAILABLE: the controller was
        // never heard, or the model's first replica is still starting.
        let name = request.into_inner().model;
        let table = self.generator.table();
        let application = table.by_name(&name)?;
        match model(application) {
            Some(model) => Ok(Response::new(GetModelResponse { model: Some(model) })),
            None => Err(Error::NoReplica {
                deployment: application.name.clone(),
                waited: std::time::Duration::ZERO,
            }
            .into()),
        }
    }
}

/// Describes an application's model; `None` while no replica of it ever ran.
fn model(application: &Application) -> Option<Model> {
    let info = application.model.as_deref()?.clone();
    let ready = application
        .pipeline
        .as_ref()
        .map_or(0, |pool| pool.replicas().len());
    Some(Model {
        name: application.name.clone(),
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
        ready_replicas: u32::try_from(ready).unwrap_or(u32::MAX),
        tasks: info.tasks,
        sigma_schedules: info.sigma_schedules,
        max_clip_skip: info.max_clip_skip,
    })
}

fn text<'a>(metadata: &'a MetadataMap, key: &str) -> Option<&'a str> {
    metadata.get(key)?.to_str().ok()
}
