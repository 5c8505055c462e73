//! The pages: each reads its request, asks the ledger or the loop, and says what came of it.

use axum::{
    Json,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use mobula_proto::control::v1 as pb;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Door,
    answer::Failed,
    asked::{Asked, named, object, refused},
    changes,
    details::{self, Source},
};
use crate::Error;

type Answer = Result<Response, Failed>;

/// The Ray release whose REST shapes these are.
const RAY_VERSION: &str = "2.60.0";

/// Decisions when nobody says how many, and at most.
const DECISIONS: usize = 100;
const MAX_DECISIONS: usize = 10_000;

/// Which applications.
#[derive(Debug, Deserialize)]
pub(super) struct Only {
    api_type: Option<String>,
    /// Whether what Ray's models refuse is wanted too.
    #[serde(default)]
    all: bool,
}

pub(super) async fn status(State(door): State<Door>, Query(only): Query<Only>, headers: HeaderMap) -> Answer {
    let source = match only.api_type.as_deref().map(str::to_lowercase).as_deref() {
        None => None,
        Some("declarative") => Some(pb::ApplicationSource::Declarative),
        Some("imperative") => Some(pb::ApplicationSource::Imperative),
        Some(other) => {
            let error = refused(
                "api_type",
                format!("must be declarative or imperative, not {other:?}"),
            );
            return Err(Failed::new(error, &headers));
        }
    };
    let answer = async {
        let status = door.handle.status().await?;
        let config = parsed(&door.ledger.config(pb::GetConfigRequest::default()).await?.config);
        let details = Source {
            status: &status,
            config: &config,
            address: &door.address,
            all: only.all,
        };
        Ok(tagged(
            status.resource_version,
            details::instance(&details, source),
        ))
    };
    answer.await.map_err(|error| Failed::new(error, &headers))
}

pub(super) async fn application(
    State(door): State<Door>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let answer = async {
        let status = door.handle.status().await?;
        let found = status.applications.iter().find(|a| a.name == name);
        let application = found.ok_or_else(|| no_application(&name, &status))?;
        Ok(tagged(
            application.resource_version,
            details::details(application, &details::workers(&status), true),
        ))
    };
    answer.await.map_err(|error| Failed::new(error, &headers))
}

pub(super) async fn deploy(
    State(door): State<Door>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
    body: String,
) -> Answer {
    let answer = async {
        let (ledger, resource_version) = asked.ledger(&door, &headers, "")?;
        let request = pb::DeployRequest {
            config: body,
            dry_run: asked.dry_run,
            resource_version,
            reason: asked.reason,
        };
        Ok(accepted(&ledger.deploy(request).await?))
    };
    answer.await.map_err(|error| Failed::new(error, &headers))
}

pub(super) async fn put(
    State(door): State<Door>,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
    body: String,
) -> Answer {
    let answer = async {
        let (ledger, resource_version) = asked.ledger(&door, &headers, &name)?;
        let request = pb::PutApplicationRequest {
            config: named(&body, &name)?,
            dry_run: asked.dry_run,
            resource_version,
            reason: asked.reason,
        };
        Ok(accepted(&ledger.put(request).await?))
    };
    answer.await.map_err(|error| Failed::new(error, &headers))
}

pub(super) async fn delete(
    State(door): State<Door>,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Answer {
    remove(&door, name, asked, &headers).await
}

pub(super) async fn delete_all(
    State(door): State<Door>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Answer {
    remove(&door, String::new(), asked, &headers).await
}

async fn remove(door: &Door, name: String, asked: Asked, headers: &HeaderMap) -> Answer {
    let answer = async {
        let (ledger, resource_version) = asked.ledger(door, headers, &name)?;
        let request = pb::DeleteApplicationRequest {
            name,
            resource_version,
            dry_run: asked.dry_run,
            reason: asked.reason,
        };
        Ok(accepted(&ledger.delete(request).await?))
    };
    answer.await.map_err(|error| Failed::new(error, headers))
}

pub(super) async fn config(State(door): State<Door>, headers: HeaderMap) -> Answer {
    config_named(&door, String::new(), &headers).await
}

pub(super) async fn config_of(
    State(door): State<Door>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Answer {
    config_named(&door, name, &headers).await
}

async fn config_named(door: &Door, name: String, headers: &HeaderMap) -> Answer {
    let answer = door.ledger.config(pb::GetConfigRequest { name }).await;
    let config = answer.map_err(|error| Failed::new(error, headers))?;
    Ok(tagged(config.resource_version, parsed(&config.config)))
}

/// Ray's `ScaleDeploymentRequest`.
#[derive(Deserialize)]
struct Scale {
    target_num_replicas: u32,
}

pub(super) async fn scale(
    State(door): State<Door>,
    Path((application, deployment)): Path<(String, String)>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
    body: String,
) -> Answer {
    let answer = async {
        let scale: Scale = object(&body, "{\"target_num_replicas\": N}")?;
        let (ledger, resource_version) = asked.ledger(&door, &headers, &application)?;
        let request = pb::ScaleRequest {
            application,
            deployment,
            replicas: scale.target_num_replicas,
            dry_run: asked.dry_run,
            resource_version,
            reason: asked.reason,
        };
        let accepted = ledger.scale(request).await?;
        let mut body = changes::accepted(&accepted);
        if !accepted.dry_run {
            // Ray's words.
            body["message"] = json!("Scaling request received. Deployment will get scaled asynchronously.");
        }
        Ok(tagged(accepted.resource_version, body))
    };
    answer.await.map_err(|error| Failed::new(error, &headers))
}

pub(super) async fn check(State(door): State<Door>, headers: HeaderMap, body: String) -> Answer {
    let answer = door.ledger.check(pb::CheckRequest { config: body }).await;
    let check = answer.map_err(|error| Failed::new(error, &headers))?;
    Ok(Json(changes::checked(&check)).into_response())
}

/// Which revisions.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Past {
    #[serde(default)]
    application: String,
    #[serde(default)]
    limit: u32,
}

pub(super) async fn history(
    State(door): State<Door>,
    Query(past): Query<Past>,
    headers: HeaderMap,
) -> Answer {
    let request = pb::GetHistoryRequest {
        name: past.application,
        limit: past.limit,
    };
    let answer = door.ledger.history(request).await;
    let history = answer.map_err(|error| Failed::new(error, &headers))?;
    Ok(Json(changes::history(&history)).into_response())
}

/// Where to go back to.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Back {
    to: u64,
    application: String,
}

/// How many decisions.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Last {
    limit: Option<usize>,
}

pub(super) async fn decisions(
    State(door): State<Door>,
    Path((application, deployment)): Path<(String, String)>,
    Query(last): Query<Last>,
    headers: HeaderMap,
) -> Answer {
    let limit = last.limit.unwrap_or(DECISIONS).min(MAX_DECISIONS);
    let answer = door.ledger.decisions(application, deployment, limit).await;
    let decisions = answer.map_err(|error| Failed::new(error, &headers))?;
    let decisions: Vec<Value> = decisions.iter().map(details::decision).collect();
    Ok(Json(json!({ "decisions": decisions })).into_response())
}

pub(super) async fn rollback(
    State(door): State<Door>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
    body: String,
) -> Answer {
    let answer = async {
        let back: Back = if body.trim().is_empty() {
            Back::default()
        } else {
            object(&body, "{\"to\": REVISION, \"application\": NAME}")?
        };
        // The version that a way back names is the whole config's.
        let (ledger, resource_version) = asked.ledger(&door, &headers, "")?;
        let request = pb::RollbackRequest {
            to: back.to,
            name: back.application,
            resource_version,
            dry_run: asked.dry_run,
            reason: asked.reason,
        };
        Ok(accepted(&ledger.rollback(request).await?))
    };
    answer.await.map_err(|error| Failed::new(error, &headers))
}

/// What is to be explained: one of them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Subject {
    request_id: Option<String>,
    replica_id: Option<String>,
    application: Option<String>,
    deployment: Option<String>,
    worker: Option<String>,
}

pub(super) async fn explain(
    State(door): State<Door>,
    Query(subject): Query<Subject>,
    headers: HeaderMap,
) -> Answer {
    use pb::explain_request::Subject as Of;
    let one = [
        subject.request_id.map(Of::RequestId),
        subject.replica_id.map(Of::ReplicaId),
        subject.application.map(Of::Application),
        subject.deployment.map(Of::Deployment),
        subject.worker.map(Of::Worker),
    ];
    let mut given = one.into_iter().flatten();
    let request = pb::ExplainRequest {
        subject: given.next(),
    };
    if given.next().is_some() {
        let error = refused("(query)", "must name one subject, not several");
        return Err(Failed::new(error, &headers));
    }
    let answer = door.handle.explain(request).await;
    let explained = answer.map_err(|error| Failed::new(error, &headers))?;
    Ok(Json(changes::explained(&explained)).into_response())
}

/// What Ray's command asks before anything else; `version` is that of its protocol.
pub(super) async fn version(State(door): State<Door>) -> Json<Value> {
    Json(json!({
        "version": "4",
        "ray_version": RAY_VERSION,
        "ray_commit": concat!("mobula-", env!("CARGO_PKG_VERSION")),
        "session_name": door.address,
    }))
}

pub(super) async fn no_page() -> (StatusCode, &'static str) {
    (
        StatusCode::NOT_FOUND,
        "no such page; Ray Serve's are /api/serve/applications/ and below\n",
    )
}

fn accepted(accepted: &pb::Accepted) -> Response {
    tagged(accepted.resource_version, changes::accepted(accepted))
}

fn tagged(version: u64, body: Value) -> Response {
    ([(header::ETAG, format!("\"{version}\""))], Json(body)).into_response()
}

fn no_application(name: &str, status: &pb::GetStatusResponse) -> Error {
    let names: Vec<&str> = status.applications.iter().map(|a| a.name.as_str()).collect();
    Error::Unknown(format!(
        "there is no application named {name:?}; there are: {}",
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        }
    ))
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or(Value::Null)
}
