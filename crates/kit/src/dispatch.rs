//! Which service a path belongs to. A table of a handful of services is searched in order, which is faster than any
//! router and needs nothing per request.

use std::{convert::Infallible, fmt, future::Future, future::poll_fn, pin::Pin};

use http::{Request, Response};
use tonic::{Status, body::Body, server::NamedService};
use tower::Service;

/// A handler's answer to come.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// The services of a server.
#[derive(Default)]
pub(crate) struct Table(Vec<(&'static str, Box<dyn Handler>)>);

trait Handler: Send + Sync {
    fn call(&self, request: Request<Body>) -> Answer;
}

impl Table {
    pub(crate) fn add<S>(&mut self, service: S)
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.0.push((S::NAME, Box::new(Mounted(service))));
    }

    /// Names of the services, in the order in which they were added.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|(name, _)| *name).collect()
    }

    /// Begins to answer a request. UNIMPLEMENTED: there is no such service here.
    pub(crate) fn call(&self, request: Request<Body>) -> Answer {
        let path = request.uri().path();
        let service = path
            .strip_prefix('/')
            .and_then(|path| path.split_once('/'))
            .map_or("", |(name, _)| name);
        match self.0.iter().find(|(name, _)| *name == service) {
            Some((_, handler)) => handler.call(request),
            None => {
                let status = Status::unimplemented(format!("there is no service {service:?} here"));
                Box::pin(std::future::ready(status.into_http()))
            }
        }
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

struct Mounted<S>(S);

impl<S> Handler for Mounted<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    fn call(&self, request: Request<Body>) -> Answer {
        let mut service = self.0.clone();
        Box::pin(async move {
            let Ok(()) = poll_fn(|cx| service.poll_ready(cx)).await;
            let Ok(response) = service.call(request).await;
            response
        })
    }
}
