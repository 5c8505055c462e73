//! Paths, and the way of one request through the generator and back.

use std::{convert::Infallible, panic::AssertUnwindSafe, pin::Pin, sync::Arc, time::Duration};

use axum::{body::Body, response::Response};
use futures::FutureExt as _;
use http::{Method, Request, StatusCode, header::HOST};
use http_body_util::{BodyExt as _, Limited};
use mobula_kit::{Stop, http::App, trace};
use serde_json::{Map, Value};
use tracing::{debug_span, field::Empty};

use super::{answer, caller, gate, openai, query::Query, v2};
use crate::{
    Error,
    caller::Caller,
    error::JUST_DEPLOYED,
    events::{Events, Reader},
    finished::{Finished, NO_PICTURE},
    generate::{Call, Generator},
    metrics::{Door, Method as Label, Metrics, Seen},
    ray,
    table::{Application, Table},
    v2::Oip,
};

/// The path that draws, below an application's prefix.
const IMAGINE: &str = "/imagine";
/// A body on a GET is read, because some clients send one, and thrown away up to this many bytes.
const BODY_MAX: usize = 1 << 20;
/// A body that is not complete by then holds a connection for nothing.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Shared {
    generator: Generator,
    metrics: Arc<Metrics>,
    openai: openai::Door,
    oip: Oip,
    stop: Stop,
}

/// The pages and the door of a generator.
pub(super) fn app((metrics, openai, oip): (Arc<Metrics>, openai::Door, Oip), stop: Stop) -> impl App {
    let shared = Arc::new(Shared {
        generator: oip.generator.clone(),
        metrics,
        openai,
        oip,
        stop,
    });
    tower::service_fn(move |request: Request<Body>| {
        let shared = Arc::clone(&shared);
        async move {
            // In a box: connections would carry its room for as long as they live.
            let answered = Box::pin(answer_request(&shared, request));
            Ok::<_, Infallible>(caught(answered).await)
        }
    })
}

/// A panic is this request's 500, not this connection's end; its cause is in the log, by the panic hook.
async fn caught(answered: Pin<Box<impl Future<Output = Response>>>) -> Response {
    let answered = AssertUnwindSafe(answered).catch_unwind().await;
    answered.unwrap_or_else(|_| {
        let why = "the request made its handler panic; the log of the proxy says where";
        answer::text(StatusCode::INTERNAL_SERVER_ERROR, why)
    })
}

async fn answer_request(shared: &Shared, request: Request<Body>) -> Response {
    let mut seen = Seen::new(&shared.metrics, Label::http(request.method()));
    let mut response = match gate::enter(shared.generator.keys(), request).await {
        Ok(request) => route(shared, request, &mut seen).await,
        Err(refused) => *refused,
    };
    match response.extensions_mut().remove::<openai::Told>() {
        // It is under way until its last event.
        Some(told) => told.keep(seen, response.status()),
        None => seen.answered(response.status()),
    }
    response
}

async fn route(shared: &Shared, request: Request<Body>, seen: &mut Seen) -> Response {
    let path = request.uri().path();
    // Probes are answered at once; a request waits for the first table.
    let table = match path {
        "/-/healthz" | gate::ROUTES => shared.generator.table(),
        _ if v2::Ask::is_probe(path) => shared.generator.table(),
        _ => shared.generator.heard_table().await,
    };
    if let Some(ask) = openai::Ask::of(&table, path) {
        return openai::answer((&shared.openai, &shared.generator), ask, request, seen).await;
    }
    if let Some(ask) = v2::Ask::of(&table, path) {
        return v2::answer((&shared.oip, &table, &shared.stop), ask, request, seen).await;
    }
    match path {
        "/-/healthz" => seen.page(&shared.metrics.healthz),
        gate::ROUTES => seen.page(&shared.metrics.routes),
        _ => {}
    }
    match path {
        "/-/healthz" => match not_serving(shared, &table) {
            Some(response) => response,
            None => answer::text(StatusCode::OK, "success"),
        },
        gate::ROUTES => match not_serving(shared, &table) {
            Some(response) => response,
            None => {
                let (keys, caller) = (shared.generator.keys(), Caller::of(request.extensions()));
                let routes = routes(&table, |application| keys.names(&caller, application));
                answer::json(StatusCode::OK, &routes)
            }
        },
        _ => match table.by_path(path) {
            Some((application, rest)) => {
                let application = Arc::clone(application);
                seen.application(&application.ingress);
                match rest {
                    IMAGINE if request.method() == Method::GET => {
                        imagine(shared, &application, request).await
                    }
                    IMAGINE => answer::method_not_allowed(),
                    "/imagine/" => answer::redirect(&without_slash(&request)),
                    _ => answer::not_found(),
                }
            }
            None if !table.is_populated => no_routes(),
            None => answer::text(
                StatusCode::NOT_FOUND,
                format!(
                    "Path '{path}' not found. Ping http://{}/-/routes for available routes. An application: {JUST_DEPLOYED}.",
                    host(&request)
                ),
            ),
        },
    }
}

/// Ray's words for a proxy that should not be sent anything.
fn not_serving(shared: &Shared, table: &Table) -> Option<Response> {
    if shared.stop.is_triggered() {
        return Some(answer::text(StatusCode::SERVICE_UNAVAILABLE, ray::DRAINING));
    }
    (!table.is_populated).then(no_routes)
}

fn no_routes() -> Response {
    answer::text(StatusCode::SERVICE_UNAVAILABLE, ray::NO_ROUTES)
}

fn routes(table: &Table, is_named: impl Fn(&str) -> bool) -> Value {
    let routed = table
        .applications()
        .iter()
        .filter(|application| !application.route_prefix.is_empty() && is_named(&application.name));
    Value::Object(
        routed
            .map(|a| (a.route_prefix.clone(), Value::from(a.name.clone())))
            .collect::<Map<_, _>>(),
    )
}

fn host(request: &Request<Body>) -> &str {
    let header = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    header
        .or_else(|| request.uri().authority().map(|authority| authority.as_str()))
        .unwrap_or("...")
}

/// The same address without the slash at the end of its path; relative to it, since something before the door may have
/// taken a prefix off (Ray: `root_path`).
fn without_slash(request: &Request<Body>) -> String {
    match request.uri().query() {
        Some(query) => format!("..{IMAGINE}?{query}"),
        None => format!("..{IMAGINE}"),
    }
}

/// Draws one picture.
async fn imagine(shared: &Shared, application: &Application, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    // Read to its end: only then does the server see a caller who hangs up.
    let body = Limited::new(body, BODY_MAX).collect();
    let too_large = (
        StatusCode::PAYLOAD_TOO_LARGE,
        "the body of a GET is not used, and this one is too large",
    );
    let late = (StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time");
    let refused = match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(_)) => None,
        Ok(Err(error)) if mobula_kit::http::is_late(&*error) => Some(late),
        Ok(Err(_)) => Some(too_large),
        Err(_) => Some(late),
    };
    if let Some((status, why)) = refused {
        return answer::text(status, why);
    }
    let mut query = Query::parse(parts.uri.query().unwrap_or_default());
    let mut asked = std::mem::take(&mut query.request);
    let mut problems = std::mem::take(&mut query.problems);
    asked.model.clone_from(&application.name);
    let deadline = caller::read(&parts.headers, &mut asked, &mut problems);
    let given: Arc<str> = asked.request_id.as_str().into();
    let span = debug_span!(
        "generate",
        otel.kind = "server",
        request_id = Empty,
        model = asked.model
    );
    trace::set_parent_http(&span, &parts.headers);
    let call = Call {
        request: asked,
        problems,
        deadline,
        door: Door::Http,
        reader: Reader::Collects,
        caller: Caller::of(&parts.extensions),
        span,
    };
    let (id, ended) = match shared.generator.start(call) {
        Ok((id, events)) => (id, collect(events).await),
        Err(error) => (given, Err(error)),
    };
    let mut response = ended.unwrap_or_else(|error| answer::error(&error, &query));
    caller::name(response.headers_mut(), &id);
    response
}

/// Reads the events to the end and answers with the picture.
async fn collect(events: Events) -> Result<Response, Error> {
    let mut finished = Finished::read(events).await?;
    let image = finished.images.pop().ok_or(NO_PICTURE)?;
    Ok(answer::picture(image, finished.made, finished.timings))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_answer() {
        let fine = caught(Box::pin(async { answer::text(StatusCode::OK, "fine") })).await;
        assert_eq!(fine.status(), StatusCode::OK);
        let panicked = caught(Box::pin(async { panic!("on purpose") })).await;
        assert_eq!(panicked.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let why = panicked.into_body().collect().await.unwrap().to_bytes();
        assert!(why.starts_with(b"the request made its handler panic"), "{why:?}");
    }
}
