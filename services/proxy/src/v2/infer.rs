//! The way of a request through the generator and back, whichever door it came through.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::try_join_all;
use http::HeaderMap;
use mobula_kit::{Deadline, trace};
use mobula_proto::{
    common::v1::Pixels,
    image::v1::Image,
    preprocess::v1::{ImageKind, PrepareImageRequest, PrepareImageResponse},
};
use tonic::Response;
use tracing::{Instrument as _, debug_span, field::Empty};

use super::{
    ask::{Answer, Ask},
    catalog::Which,
    drawn,
    pipeline::{self, Drawing, Output, Reply},
    tensor::wrong,
};
use crate::{
    Config, Error, aside,
    caller::Caller,
    events::{Events, Reader},
    finished::Finished,
    generate::{Aside, Beside, Call, Generator},
    metrics::Door,
    problem::Problem,
    words,
};

/// What all requests of this protocol have.
#[derive(Debug, Clone)]
pub(crate) struct Oip {
    pub(crate) generator: Generator,
    /// Prompts that one request may have.
    pub(crate) max_prompts: u32,
    /// Requests of one stream that run at a time.
    pub(crate) max_stream_requests: usize,
    /// Bytes that a request may have, packed and unpacked.
    pub(crate) max_request_bytes: usize,
}

/// Who asks, and on which terms.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    /// Its name for the request in Mobula; empty takes a new one. The protocol's own id is only given back: callers use one for
    /// several requests.
    pub(crate) request_id: String,
    pub(crate) caller: Arc<Caller>,
    pub(crate) deadline: Option<Deadline>,
    /// Who goes first, where the request does not say; 0 is nobody.
    pub(crate) priority: i32,
    pub(crate) door: Door,
    /// Headers with the trace that it belongs to, over HTTP.
    pub(crate) headers: Option<Arc<HeaderMap>>,
    /// What its head has that could not be read.
    pub(crate) problems: Vec<Problem>,
}

/// Requests that draw and have begun: one per prompt.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) ids: Vec<Arc<str>>,
    pub(crate) events: Vec<Events>,
    pub(crate) reply: Reply,
    /// For what is made of their pictures.
    pub(crate) which: Which,
    pub(crate) caller: Arc<Caller>,
    pub(crate) deadline: Option<Deadline>,
    pub(crate) door: Door,
}

/// Bytes of an answer: pictures of 2048 x 2048 as pixels, as many as a request may have by default, with room.
const MAX_ANSWER_BYTES: usize = 256 << 20;

impl Oip {
    pub(crate) fn new(config: &Config, generator: Generator) -> Self {
        Self {
            generator,
            max_prompts: config.max_images,
            max_stream_requests: config.max_stream_requests as usize,
            max_request_bytes: config.max_request_bytes(),
        }
    }

    /// Bytes that an answer may have.
    pub(crate) fn max_answer_bytes(&self) -> usize {
        MAX_ANSWER_BYTES
    }

    /// Has a model answer at once.
    pub(crate) async fn infer(
        &self,
        which: Which,
        ask: Ask,
        terms: Terms,
    ) -> Result<(Arc<str>, Answer), Error> {
        if let Some(stage) = which.stage {
            return self.stage(stage, which, ask, terms).await;
        }
        let begun = self.begin(which, ask, terms)?;
        if let Some(field) = begun.reply.decoupled_by {
            let why = "needs ModelStreamInfer (gRPC), which has several answers to a request";
            return Err(Error::Invalid(vec![wrong(field, why)]));
        }
        let id = begun.ids.first().map_or_else(|| Arc::from(""), Arc::clone);
        Ok((id, self.collect(begun).await?))
    }

    /// Begins what a request asks for.
    pub(crate) fn begin(&self, which: Which, ask: Ask, terms: Terms) -> Result<Begun, Error> {
        let Drawing {
            requests,
            reply,
            common,
            problems,
        } = pipeline::read(ask, self.max_prompts);
        let problems = [terms.problems, problems].concat();
        if !problems.is_empty() {
            return Err(Error::Invalid(problems));
        }
        let deadline = sooner(terms.deadline, common.timeout);
        let several = requests.len() > 1;
        let reader = match reply.decoupled_by {
            Some(_) => Reader::Follows,
            None => Reader::Collects,
        };
        let mut begun = Begun {
            ids: Vec::with_capacity(requests.len()),
            events: Vec::with_capacity(requests.len()),
            reply,
            which,
            caller: terms.caller,
            deadline,
            door: terms.door,
        };
        for (nth, mut request) in requests.into_iter().enumerate() {
            request.model.clone_from(&begun.which.application.name);
            request.model_id.clone_from(&begun.which.model_id);
            request.request_id.clone_from(&terms.request_id);
            if request.priority == 0 {
                request.priority = terms.priority;
            }
            if several && !request.request_id.is_empty() {
                request.request_id.push_str(&format!("-{nth}"));
            }
            let span = match &terms.headers {
                Some(headers) => {
                    let span = debug_span!(
                        "generate",
                        otel.kind = "server",
                        request_id = Empty,
                        model = request.model
                    );
                    trace::set_parent_http(&span, headers);
                    span
                }
                None => debug_span!("generate", request_id = Empty, model = request.model),
            };
            let (id, events) = self.generator.start(Call {
                request,
                problems: Vec::new(),
                deadline,
                door: terms.door,
                reader,
                caller: Arc::clone(&begun.caller),
                span,
            })?;
            begun.ids.push(id);
            begun.events.push(events);
        }
        Ok(begun)
    }

    /// Reads all events to their end, at a time, and makes one answer of them. Who is dropped cancels all.
    pub(crate) async fn collect(&self, mut begun: Begun) -> Result<Answer, Error> {
        let all = try_join_all(begun.events.drain(..).map(Finished::read)).await;
        let all = all.map_err(named)?;
        let mut pixels = Vec::new();
        if begun.reply.has(Output::Pixels) {
            let images = all.iter().flat_map(|one| &one.images);
            pixels = try_join_all(images.map(|image| self.pixels(&begun, image))).await?;
        }
        drawn::answer(all, pixels, &begun.reply.outputs)
    }

    /// A picture's file as pixels, by any preprocess replica.
    pub(crate) async fn pixels(&self, begun: &Begun, image: &Image) -> Result<Pixels, Error> {
        let id = begun.ids.first().map_or_else(|| Arc::from(""), Arc::clone);
        let asked = Beside {
            application: begun.which.application.name.clone(),
            model_id: begun.which.model_id.clone(),
            request_id: id.to_string(),
            stage: "",
            caller: Arc::clone(&begun.caller),
            deadline: begun.deadline,
            priority: 0,
            door: begun.door,
        };
        let call = self.generator.within(asked)?;
        let (data, size) = (image.data.clone(), (image.width, image.height));
        let ran = call.run(move |call| Box::pin(prepared(call, data, size)));
        let (_, prepared) = ran.await?;
        let pixels = prepared.into_inner().pixels.unwrap_or_default();
        let bytes = u64::from(image.width) * u64::from(image.height) * 3;
        if (pixels.width, pixels.height) != (image.width, image.height) || pixels.data.len() as u64 != bytes {
            return Err(Error::Answer("a picture's pixels are of another size"));
        }
        Ok(pixels)
    }

    /// Has a model loaded, and waits until it is.
    pub(crate) async fn load(&self, which: &Which, terms: Terms) -> Result<(), Error> {
        let asked = Beside {
            application: which.application.name.clone(),
            model_id: which.model_id.clone(),
            request_id: terms.request_id,
            stage: "load",
            caller: terms.caller,
            deadline: terms.deadline,
            priority: terms.priority,
            door: terms.door,
        };
        let call = self.generator.beside(asked)?;
        call.run(|call| Box::pin(call.load())).await.map(drop)
    }
}

/// A picture's file as pixels of this size, by any preprocess replica.
async fn prepared(
    call: &Aside,
    data: Bytes,
    size: (u32, u32),
) -> Result<Response<PrepareImageResponse>, Error> {
    let mut moves = 0;
    loop {
        let prepared = prepared_here(call, &data, size).await;
        if !call.job().follows(&prepared, &mut moves) {
            return prepared;
        }
    }
}

async fn prepared_here(
    call: &Aside,
    data: &Bytes,
    (width, height): (u32, u32),
) -> Result<Response<PrepareImageResponse>, Error> {
    // It is a part of a request that was let in.
    let served = call.served(true).await?;
    let make = |replica_id| PrepareImageRequest {
        replica_id,
        data: data.clone(),
        width,
        height,
        kind: ImageKind::Picture.into(),
        model_id: served.id().to_owned(),
    };
    let pool = (&served.preprocess, served.model_id.as_ref());
    let send = async |channel, request| aside::client(channel).prepare_image(request).await;
    let span = debug_span!("decode", otel.kind = "client");
    aside::call(call.job(), pool, make, send).instrument(span).await
}

/// A request's fields by the names that they have here.
pub(crate) fn named(error: Error) -> Error {
    let Error::Invalid(problems) = error else {
        return error;
    };
    let renamed = problems.into_iter().map(|problem| {
        let name = words::flat(&problem.field).to_owned();
        Problem::new(name, problem.rule)
    });
    Error::Invalid(renamed.collect())
}

/// A caller's deadline, or how long it says that it waits, whichever is over first.
pub(crate) fn sooner(given: Option<Deadline>, timeout: Option<Duration>) -> Option<Deadline> {
    let limit = timeout.map(Deadline::after);
    [given, limit].into_iter().flatten().min()
}
