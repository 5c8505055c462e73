//! The way of one request of OpenAI's through the generator and back.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderMap, Method, Request, StatusCode, request::Parts};
use mobula_kit::{tls, trace};
use mobula_proto::image::v1::ImageFormat;
use serde_json::json;
use tracing::{debug_span, field::Empty};

use super::{
    super::{answer as answers, caller},
    answer as pictures,
    body::{self, Limits},
    error::{self, Failure},
    fields::Fields,
    kept::Kept,
    limits, link, models,
    path::{Ask, Endpoint, FILES},
    sse,
    story::Story,
    translate::{Asked, translate},
};
use crate::{
    Config, Error,
    caller::Caller,
    clock::Clock,
    events::{Events, Reader},
    finished::Finished,
    generate::{Call, Generator, new_id},
    metrics::{self, Metrics, Seen},
};

/// Bytes of JSON that a byte of a prompt takes at most (`\u0000`).
const ESCAPED: usize = 6;
/// Bytes of JSON beside the prompts, with room.
const JSON_REST: usize = 64 << 10;

/// What this door has beside the generator.
#[derive(Debug, Clone)]
pub(crate) struct Door(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    kept: Kept,
    /// Where this proxy is reached, when it cannot be told from requests.
    public_url: Option<String>,
    limits: Limits,
    /// When the proxy started, for models, of which no age is known.
    started: u64,
}

impl Door {
    pub(crate) fn new(config: &Config, metrics: &Metrics, clock: Clock) -> Self {
        let prompts = config.max_prompt_bytes.saturating_mul(2 * ESCAPED);
        Self(Arc::new(Shared {
            kept: Kept::new(config.max_kept_image_bytes, metrics, clock),
            public_url: config.public_url.clone(),
            limits: Limits {
                json: prompts.saturating_add(JSON_REST),
                form: config.max_request_bytes(),
            },
            started: now(),
        }))
    }

    /// Lets go, for ever, of pictures whose links are no good any more.
    pub(crate) async fn sweep(&self) -> Infallible {
        self.0.kept.sweep().await
    }
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Answers a request to one of OpenAI's paths that may not come in.
pub(in crate::http) fn refuse(error: Error) -> Response {
    error::response(&error.into())
}

/// Answers a request whose path is OpenAI's.
pub(in crate::http) async fn answer(
    (door, generator): (&Door, &Generator),
    ask: Ask,
    request: Request<Body>,
    seen: &mut Seen,
) -> Response {
    let method = ask.endpoint.method();
    let is_head = method == Method::GET && request.method() == Method::HEAD;
    if *request.method() != method && !is_head {
        return error::response(&Failure::Method(method));
    }
    let (parts, body) = request.into_parts();
    let table = &ask.table;
    let caller = Caller::of(&parts.extensions);
    let answered = match &ask.endpoint {
        Endpoint::Generations | Endpoint::Edits | Endpoint::Variations => {
            return Drawing {
                door: &door.0,
                generator,
                ask: &ask,
                parts: &parts,
                caller,
            }
            .answer(body, seen)
            .await;
        }
        Endpoint::Models if !table.is_populated => Err(Error::NoRoutes.into()),
        Endpoint::Models => {
            let names = models::names(table, &ask.scope, &caller);
            let list = names.iter().map(|name| models::describe(name, door.0.started));
            let list = json!({ "object": "list", "data": list.collect::<Vec<_>>() });
            Ok(answers::json(StatusCode::OK, &list))
        }
        Endpoint::Model(_) if !table.is_populated => Err(Error::NoRoutes.into()),
        Endpoint::Model(name) => {
            if models::names(table, &ask.scope, &caller).contains(name) {
                let model = models::describe(name, door.0.started);
                Ok(answers::json(StatusCode::OK, &model))
            } else {
                Err(models::refused(table, &ask.scope, (name, &caller)).into())
            }
        }
        Endpoint::File(name) => {
            let found = door.0.kept.get(name).ok_or(Failure::NoFile);
            found.map(|((data, format), left)| pictures::file(data, format, left))
        }
    };
    answered.unwrap_or_else(|failure| error::response(&failure))
}

/// A request that draws.
struct Drawing<'a> {
    door: &'a Shared,
    generator: &'a Generator,
    ask: &'a Ask,
    parts: &'a Parts,
    caller: Arc<Caller>,
}

impl Drawing<'_> {
    async fn answer(&self, body: Body, seen: &mut Seen) -> Response {
        let mut id = Arc::from("");
        let answered = self.draw(body, seen, &mut id).await;
        let mut response = answered.unwrap_or_else(|failure| error::response(&failure));
        caller::name(response.headers_mut(), &id);
        if let Some(left) = self.generator.left(&self.caller) {
            limits::tell(response.headers_mut(), left);
        }
        response
    }

    async fn draw(&self, body: Body, seen: &mut Seen, id: &mut Arc<str>) -> Result<Response, Failure> {
        // Before the body: a time limit counts from the head.
        let (mut request, mut problems) = Default::default();
        let deadline = caller::read(&self.parts.headers, &mut request, &mut problems);
        if request.request_id.is_empty() {
            // OpenAI's answers have one whatever they tell.
            request.request_id = new_id();
        }
        *id = request.request_id.as_str().into();
        let mut asked = translate(&self.ask.endpoint, self.fields(&self.parts.headers, body).await?);
        let named = std::mem::take(&mut asked.request.model);
        let (application, model_id) = models::find(&self.ask.table, &self.ask.scope, (&named, &self.caller))?;
        seen.application(&application.ingress);
        if asked.reply.links && self.door.kept.is_off() {
            return Err(Failure::NoLinks);
        }
        let model_id = model_id.unwrap_or(request.model_id);
        let own = application.model.as_deref().filter(|_| model_id.is_empty());
        asked.fit(own);
        let Asked {
            request: mut wanted,
            problems: found,
            reply,
        } = asked;
        problems.extend(found);
        wanted.model.clone_from(&application.name);
        wanted.model_id = model_id;
        wanted.request_id = request.request_id;
        wanted.priority = request.priority;
        wanted.failfast = request.failfast;
        let size = wanted.width.zip(wanted.height);
        let story = Story::new(&self.ask.endpoint, (wanted.image_count, reply.partial), size);
        let span = debug_span!(
            "generate",
            otel.kind = "server",
            request_id = Empty,
            model = wanted.model
        );
        trace::set_parent_http(&span, &self.parts.headers);
        let call = Call {
            request: wanted,
            problems,
            deadline,
            door: metrics::Door::Http,
            reader: match reply.stream {
                true => Reader::Follows,
                false => Reader::Collects,
            },
            caller: Arc::clone(&self.caller),
            span,
        };
        let (given, events) = self.generator.start(call)?;
        *id = given;
        if reply.stream {
            return Ok(begin(events, story).await?);
        }
        Ok(self.collect(events, reply.links).await?)
    }

    async fn fields(&self, headers: &HeaderMap, body: Body) -> Result<Fields, Failure> {
        let limits = self.door.limits;
        if self.ask.endpoint == Endpoint::Generations {
            let body = body::json(self.generator, headers, body, limits).await?;
            return Fields::json(&body).map_err(Failure::Malformed);
        }
        let parts = body::form(self.generator, headers, body, limits).await?;
        Ok(Fields::form(parts))
    }

    /// Reads the events to the end and answers with the pictures.
    async fn collect(&self, events: Events, links: bool) -> Result<Response, Error> {
        let finished = Finished::read(events).await?;
        let base = link::base(
            self.door.public_url.as_deref(),
            &self.parts.headers,
            &self.parts.uri,
            self.parts.extensions.get::<tls::Connection>().is_some(),
        );
        let link = |data: Bytes, format: ImageFormat| {
            let name = self.door.kept.put((data, format))?;
            Some(format!("{base}{FILES}{name}"))
        };
        pictures::answer(finished, now(), links.then_some(link))
    }
}

/// Answers with events once the request is admitted: what is refused before has its own status.
async fn begin(mut events: Events, mut story: Story) -> Result<Response, Error> {
    match events.next().await {
        Some(first) => {
            story.tell(first?, now());
            Ok(sse::response(events, story))
        }
        None => Err(Error::Answer("a request ended without an event")),
    }
}
