//! Who may use an API that is not for everybody: by a token, by mutual TLS, or because nobody else can reach its port.
//!
//! What is set is demanded, wherever the port is. Where no token is set, a port of the loopback interface is open, one under
//! mutual TLS is open to who has a certificate, and any other is closed, with words that say what to set. Health, reflection
//! and metrics are not guarded. Invariant: a guard never lets in somebody because a setting is missing.

use std::{
    convert::Infallible,
    net::IpAddr,
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::{Either, Ready, ready};
use http::{HeaderMap, Request, Response};
use tonic::{Code, Status, body::Body, server::NamedService};
use tower::Service;

use crate::{
    listen::Listener,
    status,
    token::{Scope, Token},
};

/// Calls that were refused for want of a token, by scope (`admin` or `mesh`) and why: `missing`, `wrong` or `closed`.
pub const REFUSED: &str = "mobula_guard_refused_total";

/// Where tokens are looked for: Ray's clients use the second behind proxies that keep the first.
const HEADERS: [&str; 2] = ["authorization", "x-ray-authorization"];

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No token was shown.
    #[error(
        "this needs a token: send \"Authorization: Bearer ...\", or set {0} or {1} for mobula's commands and services"
    )]
    Missing(&'static str, &'static str),
    /// Another token was shown.
    #[error("the token is not the one in {0} of the controller")]
    Wrong(&'static str),
    /// There is nothing to show.
    #[error(
        "this is closed: the port can be reached by others and no token is set; set {0} (or {1}) for the controller and for \
         who calls it, or --tls-client-ca, or listen on 127.0.0.1"
    )]
    Closed(&'static str, &'static str),
}

impl Denied {
    /// As metrics name it.
    fn name(self) -> &'static str {
        match self {
            Self::Missing(..) => "missing",
            Self::Wrong(_) => "wrong",
            Self::Closed(..) => "closed",
        }
    }

    /// For callers of gRPC.
    pub fn status(self) -> Status {
        let (code, reason) = match self {
            Self::Missing(..) => (Code::Unauthenticated, "TOKEN_MISSING"),
            Self::Wrong(_) => (Code::Unauthenticated, "TOKEN_WRONG"),
            Self::Closed(..) => (Code::PermissionDenied, "CLOSED"),
        };
        status::error(code, reason, self.to_string())
    }

    /// For callers of HTTP: 401 where a token would help, 403 else.
    pub fn http(self) -> http::StatusCode {
        match self {
            Self::Missing(..) | Self::Wrong(_) => http::StatusCode::UNAUTHORIZED,
            Self::Closed(..) => http::StatusCode::FORBIDDEN,
        }
    }
}

/// What a port demands.
#[derive(Clone, Debug)]
enum Need {
    Nothing,
    Token(Arc<Token>),
    /// Nobody can be told from anybody.
    Closed,
}

/// A cheap handle to the decision of one port and scope.
#[derive(Clone, Debug)]
pub struct Guard {
    scope: Scope,
    need: Need,
}

impl Guard {
    /// For an API behind this port.
    pub fn new(scope: Scope, token: Option<Token>, listener: &Listener) -> Self {
        // A port without an address is one that cannot be judged.
        let ip = listener.local_addr().map(|address| address.ip()).ok();
        let is_mutual = listener.tls().is_some_and(crate::tls::Server::is_mutual);
        let guard = Self::decide(scope, token, (ip, is_mutual));
        if matches!(guard.need, Need::Closed) {
            tracing::warn!(
                "the {} API is closed: its port is not of the loopback interface and no {} is set",
                scope.name(),
                scope.variable()
            );
        }
        guard
    }

    fn decide(scope: Scope, token: Option<Token>, (ip, is_mutual): (Option<IpAddr>, bool)) -> Self {
        let is_loopback = ip.is_some_and(|ip| ip.to_canonical().is_loopback());
        let need = match token {
            Some(token) => Need::Token(Arc::new(token)),
            None if is_loopback || is_mutual => Need::Nothing,
            None => Need::Closed,
        };
        Self { scope, need }
    }

    /// Decides about a call by its headers.
    ///
    /// # Errors
    /// [`Denied`], which is counted.
    pub fn admit(&self, headers: &HeaderMap) -> Result<(), Denied> {
        let judged = self.judge(headers);
        if let Err(denied) = judged {
            metrics::counter!(REFUSED, "scope" => self.scope.name(), "why" => denied.name()).increment(1);
        }
        judged
    }

    fn judge(&self, headers: &HeaderMap) -> Result<(), Denied> {
        let (variable, file) = (self.scope.variable(), self.scope.file_variable());
        let token = match &self.need {
            Need::Nothing => return Ok(()),
            Need::Closed => return Err(Denied::Closed(variable, file)),
            Need::Token(token) => token,
        };
        let shown = HEADERS.iter().flat_map(|name| headers.get_all(*name));
        let mut shown = shown.filter_map(|value| bearer(value.to_str().ok()?)).peekable();
        if shown.peek().is_none() {
            return Err(Denied::Missing(variable, file));
        }
        if shown.any(|shown| token.is(shown)) {
            Ok(())
        } else {
            Err(Denied::Wrong(variable))
        }
    }

    /// The same service for who is let in.
    pub fn over<S>(&self, inner: S) -> Guarded<S> {
        Guarded {
            inner,
            guard: self.clone(),
        }
    }
}

/// The token of `Bearer token`, whose first word is written as one likes (RFC 9110, 11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// A gRPC service with a guard in front.
#[derive(Clone, Debug)]
pub struct Guarded<S> {
    inner: S,
    guard: Guard,
}

impl<S: NamedService> NamedService for Guarded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Self::Response, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self.guard.admit(request.headers()) {
            Ok(()) => Either::Left(self.inner.call(request)),
            Err(denied) => Either::Right(ready(Ok(denied.status().into_http()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(token: Option<&str>, ip: &str, is_mutual: bool) -> Guard {
        let token = token.map(|token| Token::new(token).unwrap());
        Guard::decide(Scope::Admin, token, (Some(ip.parse().unwrap()), is_mutual))
    }

    fn headers(values: &[(&'static str, &str)]) -> HeaderMap {
        let values = values.iter().map(|(name, value)| {
            let name = http::HeaderName::from_static(name);
            (name, http::HeaderValue::from_bytes(value.as_bytes()).unwrap())
        });
        values.collect()
    }

    #[test]
    fn without_a_token_only_loopback_and_mutual_tls_are_open() {
        let nothing = HeaderMap::new();
        for loopback in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(guard(None, loopback, false).judge(&nothing), Ok(()), "{loopback}");
        }
        for other in ["0.0.0.0", "::", "10.0.0.1", "::ffff:10.0.0.1"] {
            let denied = guard(None, other, false).judge(&nothing).unwrap_err();
            assert!(matches!(denied, Denied::Closed(..)), "{other}");
            assert!(
                denied
                    .to_string()
                    .contains("set MOBULA_ADMIN_TOKEN (or MOBULA_ADMIN_TOKEN_FILE)")
            );
            assert_eq!(guard(None, other, true).judge(&nothing), Ok(()), "{other}");
        }
        let unknown = Guard::decide(Scope::Mesh, None, (None, false));
        assert!(unknown.judge(&nothing).is_err());
    }

    #[test]
    fn a_token_that_is_set_is_demanded_everywhere() {
        for (ip, is_mutual) in [("127.0.0.1", false), ("0.0.0.0", false), ("0.0.0.0", true)] {
            let guard = guard(Some("s3cret"), ip, is_mutual);
            for taken in [
                headers(&[("authorization", "Bearer s3cret")]),
                headers(&[("authorization", "bearer  s3cret")]),
                headers(&[
                    ("authorization", "Basic eDp5"),
                    ("x-ray-authorization", "Bearer s3cret"),
                ]),
                headers(&[
                    ("authorization", "Bearer other"),
                    ("authorization", "Bearer s3cret"),
                ]),
            ] {
                assert_eq!(guard.judge(&taken), Ok(()), "{taken:?}");
            }
            for missing in [
                headers(&[]),
                headers(&[("authorization", "s3cret")]),
                headers(&[("authorization", "Basic s3cret")]),
                headers(&[("authorization", "Bearer \u{fc}")]),
            ] {
                assert!(
                    matches!(guard.judge(&missing), Err(Denied::Missing(..))),
                    "{missing:?}"
                );
            }
            for wrong in ["Bearer ", "Bearer s3cre", "Bearer s3crets", "Bearer S3CRET"] {
                let denied = guard.judge(&headers(&[("authorization", wrong)]));
                assert!(matches!(denied, Err(Denied::Wrong(_))), "{wrong}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn only_the_token_opens(token in "[!-~]{1,40}", shown in "[!-~]{1,40}") {
            let guard = guard(Some(&token), "0.0.0.0", false);
            let judged = guard.judge(&headers(&[("authorization", &format!("Bearer {shown}"))]));
            proptest::prop_assert_eq!(judged.is_ok(), token == shown);
        }
    }
}
