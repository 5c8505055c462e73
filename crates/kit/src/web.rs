//! What browsers need of a door: gRPC-Web, and word of whose pages may call (CORS).
//!
//! gRPC-Web is translated around the stack and not in it, so that deadlines, counts and trailers are those of any other
//! call. A request of plain gRPC over HTTP/2 passes by with one look at its content type. What is neither is told so.
//!
//! It refuses nothing by origin itself: a browser asks first, because no gRPC-Web request is a simple one, and keeps to
//! the answer; nobody else has an origin.

use std::{convert::Infallible, fmt, str::FromStr, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use http::{
    HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{ACCEPT, ACCESS_CONTROL_REQUEST_METHOD, CONTENT_TYPE, RETRY_AFTER},
};
use metrics::{Counter, counter};
use tonic::body::Body;
use tonic_web::GrpcWebLayer;
use tower::{ServiceBuilder, ServiceExt as _, util::BoxCloneSyncService};
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer};

use crate::{body::Reply, metrics::GRPC_WEB_REQUESTS, stack::Stack};

/// How every content type of gRPC-Web begins.
const GRPC_WEB: &str = "application/grpc-web";
/// For who comes with something else.
const WRONG_PORT: &str = "this port speaks gRPC (HTTP/2) and gRPC-Web; pages and JSON are at the HTTP port\n";
/// Browsers do not keep an answer for longer than two hours (Chrome).
const PREFLIGHT_AGE: Duration = Duration::from_secs(7_200);
/// What a page may read of an answer's headers, beside those that every page may. A failed call has its status there.
const EXPOSED: [HeaderName; 7] = [
    HeaderName::from_static("grpc-status"),
    HeaderName::from_static("grpc-message"),
    HeaderName::from_static("grpc-status-details-bin"),
    HeaderName::from_static("grpc-retry-pushback-ms"),
    HeaderName::from_static("request_id"),
    HeaderName::from_static("x-request-id"),
    RETRY_AFTER,
];

/// Whose pages may call from a browser, by their origin (`https://pictures.example`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origins {
    /// Nobody's but the door's own.
    #[default]
    None,
    /// Everybody's.
    Any,
    /// Those of these origins.
    Only(Vec<HeaderValue>),
}

impl Origins {
    /// The layer that tells browsers so; None where there is nothing to tell. Nothing that a browser adds by itself (a
    /// cookie, a client certificate) is asked for.
    pub fn cors(&self) -> Option<CorsLayer> {
        let origins = match self {
            Self::None => return None,
            Self::Any => AllowOrigin::any(),
            Self::Only(origins) => AllowOrigin::list(origins.iter().cloned()),
        };
        let layer = CorsLayer::new()
            .allow_origin(origins)
            .allow_methods(AllowMethods::list([Method::GET, Method::POST]))
            // Metadata have any names.
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers(EXPOSED)
            .max_age(PREFLIGHT_AGE);
        Some(layer)
    }
}

impl FromStr for Origins {
    type Err = String;

    /// Reads `*`, or origins with commas between them; nothing is nobody.
    fn from_str(text: &str) -> Result<Self, String> {
        let names = || text.split(',').map(str::trim).filter(|name| !name.is_empty());
        if names().any(|name| name == "*") {
            return match names().count() {
                1 => Ok(Self::Any),
                _ => Err("* is everybody, there is nobody beside them".to_owned()),
            };
        }
        let origins = names().map(origin).collect::<Result<Vec<_>, _>>()?;
        Ok(if origins.is_empty() {
            Self::None
        } else {
            Self::Only(origins)
        })
    }
}

impl fmt::Display for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Any => f.write_str("*"),
            Self::Only(origins) => {
                let names: Vec<_> = origins.iter().filter_map(|name| name.to_str().ok()).collect();
                f.write_str(&names.join(","))
            }
        }
    }
}

/// One origin, spelt as browsers do: scheme and host in small letters, a port where it is not the scheme's, no path.
fn origin(text: &str) -> Result<HeaderValue, String> {
    let wrong = || format!("{text:?} is no origin; one is https://pictures.example, without a path");
    let uri: http::Uri = text.parse().map_err(|_| wrong())?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(wrong());
    };
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() || authority.as_str().contains('@') {
        return Err(wrong());
    }
    let own = match scheme {
        "https" => Some(443),
        "http" => Some(80),
        _ => None,
    };
    let host = authority.host().to_ascii_lowercase();
    let spelt = match authority.port_u16().filter(|port| Some(*port) != own) {
        Some(port) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{host}"),
    };
    HeaderValue::from_str(&spelt).map_err(|_| wrong())
}

/// A door for browsers in front of a stack.
#[derive(Clone, Debug)]
pub(crate) struct Web {
    translated: BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>,
    calls: Counter,
    preflights: Counter,
    others: Counter,
}

impl Web {
    pub(crate) fn new(stack: Arc<Stack>, origins: &Origins) -> Self {
        let answers = Answers(stack);
        let translated = ServiceBuilder::new()
            .map_request(normal)
            .layer(GrpcWebLayer::new())
            .service(answers);
        let counter = |kind| counter!(GRPC_WEB_REQUESTS, "kind" => kind);
        Self {
            translated: match origins.cors() {
                Some(cors) => BoxCloneSyncService::new(ServiceBuilder::new().layer(cors).service(translated)),
                None => BoxCloneSyncService::new(translated),
            },
            calls: counter("call"),
            preflights: counter("preflight"),
            others: counter("other"),
        }
    }

    /// Whether the stack itself should not see this request.
    pub(crate) fn wants<B>(request: &Request<B>) -> bool {
        request.version() != Version::HTTP_2 || is_web(request) || is_preflight(request)
    }

    /// Answers a request that it wants.
    pub(crate) async fn answer(self, request: Request<Body>) -> Response<Body> {
        match () {
            () if is_web(&request) => self.calls.increment(1),
            () if is_preflight(&request) => self.preflights.increment(1),
            () => {
                self.others.increment(1);
                return told(WRONG_PORT);
            }
        }
        match self.translated.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

fn is_web<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(GRPC_WEB.as_bytes()))
}

fn is_preflight<B>(request: &Request<B>) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// 415 with a sentence, for who came to the wrong port.
fn told(why: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::new(http_body_util::Full::from(why)));
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// Spells the content type as the translation knows it, without parameters, and lets who says nothing of the answer's
/// have it as the question's.
fn normal(mut request: Request<Body>) -> Request<Body> {
    let headers = request.headers_mut();
    let Some(kind) = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()) else {
        return request;
    };
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let Ok(kind) = HeaderValue::from_str(kind) else {
        return request;
    };
    let accepts_web = headers
        .get(ACCEPT)
        .is_some_and(|accept| accept.as_bytes().starts_with(GRPC_WEB.as_bytes()));
    if !accepts_web {
        headers.insert(ACCEPT, kind.clone());
    }
    headers.insert(CONTENT_TYPE, kind);
    request
}

/// The stack as a service, which is what layers go around.
#[derive(Clone, Debug)]
struct Answers(Arc<Stack>);

impl tower::Service<Request<Body>> for Answers {
    type Response = Response<Reply>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Reply>, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let stack = Arc::clone(&self.0);
        Box::pin(async move { Ok(stack.answer(request).await) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn only(names: &[&'static str]) -> Origins {
        Origins::Only(names.iter().map(|name| HeaderValue::from_static(name)).collect())
    }

    #[test]
    fn origins_are_read_as_browsers_spell_them() {
        for (text, origins) in [
            ("", Origins::None),
            (" , ", Origins::None),
            ("*", Origins::Any),
            ("https://Pictures.Example", only(&["https://pictures.example"])),
            ("https://a.b:443,http://c:80/", only(&["https://a.b", "http://c"])),
            (
                " http://localhost:3000 ,https://a.b:8443",
                only(&["http://localhost:3000", "https://a.b:8443"]),
            ),
            ("app://pictures", only(&["app://pictures"])),
            ("http://[::1]:8080", only(&["http://[::1]:8080"])),
        ] {
            assert_eq!(text.parse(), Ok(origins), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_origin_is_refused_by_its_name() {
        for text in [
            "pictures.example",
            "https://a/b",
            "https://a?b",
            "https://me@a",
            "null",
            "*, https://a",
            "https://",
        ] {
            let why = text.parse::<Origins>().unwrap_err();
            assert!(
                why.contains("origin") || why.contains("everybody"),
                "{text:?}: {why}"
            );
        }
    }

    #[test]
    fn the_spelling_of_origins_is_read_again_as_it_was() {
        for text in ["", "*", "https://a,http://b:81"] {
            let origins: Origins = text.parse().unwrap();
            assert_eq!(origins.to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic_and_what_is_read_is_stable(text in ".{0,40}") {
            if let Ok(origins) = text.parse::<Origins>() {
                prop_assert_eq!(origins.to_string().parse(), Ok(origins));
            }
        }
    }
}
