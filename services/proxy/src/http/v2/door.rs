//! The way of one request of the protocol over HTTP.

use std::sync::Arc;

use axum::{body::Body, response::Response};
use http::{Method, Request, StatusCode, request::Parts};
use mobula_kit::Stop;
use serde_json::{Value as Json, json};

use super::{
    super::{answer as answers, caller},
    body,
    error::{self, Failure},
    path::{Ask as Path, Endpoint, Of},
    read, write,
};
use crate::{
    Error,
    caller::Caller,
    metrics::{Door, Seen},
    table::Table,
    v2::{self, EXTENSIONS, Oip, SERVER, Terms, To, Which},
};

/// Bytes of a body that says which models to list or how to load one.
const SMALL: usize = 64 << 10;

/// Answers a request whose path is the protocol's.
pub(in crate::http) async fn answer(
    (oip, table, stop): (&Oip, &Table, &Stop),
    path: Path,
    request: Request<Body>,
    seen: &mut Seen,
) -> Response {
    let (parts, body) = request.into_parts();
    let endpoint = path.endpoint;
    let method = endpoint.method();
    // Settings are read by one method and written by the other, and there are none either way.
    let is_any = matches!(endpoint, Endpoint::Trace | Endpoint::Log | Endpoint::Unknown);
    let is_head = method == Method::GET && parts.method == Method::HEAD;
    let answered = if parts.method != method && !is_head && !is_any {
        Err(Failure::Method(method))
    } else {
        Asked {
            oip,
            table,
            is_draining: stop.is_triggered(),
            parts: &parts,
        }
        .answer(endpoint, body, seen)
        .await
    };
    answered.unwrap_or_else(|failure| error::response(&failure))
}

struct Asked<'a> {
    oip: &'a Oip,
    table: &'a Table,
    is_draining: bool,
    parts: &'a Parts,
}

impl Asked<'_> {
    async fn answer(&self, endpoint: Endpoint, body: Body, seen: &mut Seen) -> Result<Response, Failure> {
        let is_populated = self.table.is_populated;
        match endpoint {
            Endpoint::Live => Ok(ready(true)),
            Endpoint::Ready => Ok(ready(is_populated && !self.is_draining)),
            Endpoint::Server => {
                let version = env!("CARGO_PKG_VERSION");
                let told = json!({ "name": SERVER, "version": version, "extensions": EXTENSIONS });
                Ok(answers::json(StatusCode::OK, &told))
            }
            Endpoint::Regions => Ok(answers::json(StatusCode::OK, &json!([]))),
            Endpoint::Unregister => Ok(answers::json(StatusCode::OK, &json!({}))),
            Endpoint::Register => Err(Error::Unsupported(v2::NO_SHARED_MEMORY).into()),
            Endpoint::Unload => Err(Error::Unsupported(v2::NO_UNLOAD).into()),
            Endpoint::Trace => Err(Error::Unsupported(v2::NO_TRACES).into()),
            Endpoint::Log => Err(Error::Unsupported(v2::NO_LOG).into()),
            Endpoint::Unknown => Err(Failure::Unknown),
            Endpoint::Model(name, version, Of::Ready) => {
                let which = Which::find((self.table, &self.caller()), &name, &version)?;
                Ok(ready(which.reason().is_none() && !self.is_draining))
            }
            Endpoint::AllStats | Endpoint::Index if !is_populated => Err(Error::NoRoutes.into()),
            Endpoint::AllStats => {
                let all = v2::all(self.table, &self.caller());
                let told = v2::json::statistics(all.iter().map(Which::statistics));
                Ok(answers::json(StatusCode::OK, &told))
            }
            Endpoint::Index => self.index(body).await,
            Endpoint::Load(name) => self.load(&name, body).await,
            Endpoint::Model(name, version, Of::Infer) => {
                let (id, answered) = self.infer((&name, &version), body, seen).await;
                let mut response = answered.unwrap_or_else(|failure| error::response(&failure));
                caller::name(response.headers_mut(), &id);
                Ok(response)
            }
            Endpoint::Model(name, version, of) => {
                let which = Which::find((self.table, &self.caller()), &name, &version)?;
                let told = match of {
                    Of::Config => v2::json::config(&which.config()),
                    Of::Stats => v2::json::statistics([which.statistics()].into_iter()),
                    Of::Metadata | Of::Ready | Of::Infer => v2::json::metadata(&which.metadata()),
                };
                Ok(answers::json(StatusCode::OK, &told))
            }
        }
    }

    fn caller(&self) -> Arc<Caller> {
        Caller::of(&self.parts.extensions)
    }

    /// Has a model answer; gives the request's name in Mobula, too.
    async fn infer(
        &self,
        (name, version): (&str, &str),
        body: Body,
        seen: &mut Seen,
    ) -> (Arc<str>, Result<Response, Failure>) {
        // Before the body: a time limit counts from the head.
        let (terms, model_id) = terms_of(self.parts);
        let given: Arc<str> = terms.request_id.as_str().into();
        let work = async {
            let which = Which::find_or((self.table, &terms.caller), (name, &model_id), version)?;
            seen.application(&which.application.ingress);
            let limit = self.oip.max_request_bytes;
            let read = body::read(&self.oip.generator, &self.parts.headers, body, limit).await?;
            let (ask, binary) = read::read(read)?;
            let to = To {
                model: name.to_owned(),
                id: ask.id.clone(),
            };
            let (id, answer) = self.oip.infer(which, ask, terms).await?;
            Ok((id, write::response(&to, answer, &binary)))
        };
        match work.await {
            Ok((id, response)) => (id, Ok(response)),
            Err(failure) => (given, Err(failure)),
        }
    }

    async fn index(&self, body: Body) -> Result<Response, Failure> {
        let asked = self.small(body).await?;
        let is_ready_only = asked.get("ready").and_then(Json::as_bool).unwrap_or_default();
        let models = v2::all(self.table, &self.caller());
        let models = models.iter().map(Which::index);
        let models = models.filter(|model| !is_ready_only || model.reason.is_empty());
        let told: Vec<_> = models.map(|model| v2::json::index(&model)).collect();
        Ok(answers::json(StatusCode::OK, &Json::Array(told)))
    }

    async fn load(&self, name: &str, body: Body) -> Result<Response, Failure> {
        let asked = self.small(body).await?;
        let parameters = asked.get("parameters").and_then(Json::as_object);
        let names: Vec<_> = parameters
            .into_iter()
            .flat_map(|given| given.keys().cloned())
            .collect();
        v2::load_as_it_is(&names)?;
        let (terms, _) = terms_of(self.parts);
        let which = Which::find((self.table, &terms.caller), name, "")?;
        self.oip.load(&which, terms).await?;
        Ok(answers::json(StatusCode::OK, &json!({})))
    }

    /// A small body of JSON; an empty one is an empty object.
    async fn small(&self, body: Body) -> Result<Json, Failure> {
        let read = body::read(&self.oip.generator, &self.parts.headers, body, SMALL).await?;
        if read.json.is_empty() {
            return Ok(json!({}));
        }
        let read: Result<Json, _> = serde_json::from_slice(&read.json);
        read.map_err(|error| error::malformed(format!("is no JSON: {error}")))
    }
}

/// Yes or no, as the protocol's probes say it.
fn ready(is_ready: bool) -> Response {
    let status = match is_ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    answers::json(status, &json!({ "ready": is_ready }))
}

/// Who asks, as the headers say, and which of the models on demand, where the path does not.
fn terms_of(parts: &Parts) -> (Terms, String) {
    let headers = &parts.headers;
    let (mut asked, mut problems) = Default::default();
    let deadline = caller::read(headers, &mut asked, &mut problems);
    let terms = Terms {
        request_id: asked.request_id,
        caller: Caller::of(&parts.extensions),
        deadline,
        priority: asked.priority,
        door: Door::Http,
        headers: Some(Arc::new(headers.clone())),
        problems,
    };
    (terms, asked.model_id)
}
