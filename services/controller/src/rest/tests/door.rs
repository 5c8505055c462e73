//! The door with a ledger in memory, asked as hostile and clumsy clients ask.

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Method, Request, StatusCode, header},
};
use mobula_kit::Stop;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::super::{Door, app};
use crate::{
    intent::{Ledger, Start},
    owner,
    store::{Bounds, Place},
};

const ALL: &str = "/api/serve/applications/";
const ONE: &str = "/api/serve/applications/a";

/// Nobody runs what is deployed here.
async fn door() -> Router {
    let start = Start {
        place: Place::Memory,
        bounds: Bounds {
            revisions: 10,
            bytes: u64::MAX,
            decisions: 10,
        },
        restore: None,
        flags: None,
    };
    let stop = Stop::new(std::time::Duration::from_secs(5));
    let ledger = Ledger::open(start, &stop).await.unwrap();
    let (handle, _, _) = owner::channel();
    app(Door {
        ledger,
        handle,
        address: String::new(),
    })
}

async fn ask(
    door: &Router,
    (method, path): (Method, &str),
    headers: &[(header::HeaderName, &str)],
    body: &str,
) -> (StatusCode, String) {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    let request = request.body(Body::from(body.to_owned())).unwrap();
    let answer = door.clone().oneshot(request).await.unwrap();
    let status = answer.status();
    let text = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
    (status, String::from_utf8(text.to_vec()).unwrap())
}

fn one(waiting: u32) -> String {
    json!({
        "import_path": "mobula.image:text_to_image",
        "args": {"model": "fake"},
        "deployments": [{"name": "pipeline", "max_queued_requests": waiting}],
    })
    .to_string()
}

async fn config(door: &Router) -> Value {
    let (_, text) = ask(door, (Method::GET, "/api/serve/config"), &[], "").await;
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn of_all_who_put_what_is_not_there_yet_one_wins() {
    for tag in [(header::IF_MATCH, "\"0\""), (header::IF_NONE_MATCH, "*")] {
        let door = door().await;
        for path in [ONE, ALL] {
            let body = |waiting| match path {
                ONE => one(waiting),
                _ => json!({"applications": [], "target_capacity": waiting}).to_string(),
            };
            // The whole config has been put once an application has.
            let winners = usize::from(path == ONE);
            let bodies = [1, 2, 3].map(body);
            let headers = [tag.clone()];
            let ask = |i: usize| ask(&door, (Method::PUT, path), &headers, &bodies[i]);
            let (first, second, third) = tokio::join!(ask(0), ask(1), ask(2));
            let codes = [first.0, second.0, third.0];
            let won = codes.iter().filter(|code| **code == StatusCode::OK).count();
            let lost = codes.iter().filter(|code| **code == StatusCode::CONFLICT).count();
            assert_eq!((won, lost), (winners, 3 - winners), "{path} {tag:?}");
        }
    }
}

#[tokio::test]
async fn a_scaling_is_tried_and_made_of_a_version_as_every_other_change() {
    let door = door().await;
    let _ = ask(&door, (Method::PUT, ONE), &[], &one(5)).await;
    let before = config(&door).await;
    let path = "/api/v1/applications/a/deployments/pipeline/scale";
    let dry = format!("{path}?dry_run=true");
    let three = json!({"target_num_replicas": 3}).to_string();
    let (code, text) = ask(&door, (Method::POST, &dry), &[], &three).await;
    assert_eq!(code, StatusCode::OK, "{text}");
    assert!(
        text.contains("num_replicas") && !text.contains("request received"),
        "{text}"
    );
    assert_eq!(config(&door).await, before);
    let stale = [(header::IF_MATCH, "\"7\"")];
    let (code, text) = ask(&door, (Method::POST, path), &stale, &three).await;
    assert_eq!(code, StatusCode::CONFLICT, "{text}");
    assert_eq!(config(&door).await, before);
    let current = [(header::IF_MATCH, "\"1\"")];
    let (code, text) = ask(&door, (Method::POST, path), &current, &three).await;
    assert_eq!(code, StatusCode::OK, "{text}");
    assert_ne!(config(&door).await, before);
}

#[tokio::test]
async fn the_reason_of_every_change_is_kept() {
    let door = door().await;
    let scale = "/api/v1/applications/a/deployments/pipeline/scale";
    for (method, path, body) in [
        (Method::PUT, ONE, one(5)),
        (Method::POST, scale, json!({"target_num_replicas": 3}).to_string()),
        (Method::POST, "/api/serve/rollback", String::new()),
        (Method::DELETE, ONE, String::new()),
        (Method::PUT, ONE, one(6)),
        (Method::DELETE, ALL, String::new()),
    ] {
        let path = format!("{path}?reason=why%20not");
        let (code, text) = ask(&door, (method, &path), &[], &body).await;
        assert_eq!(code, StatusCode::OK, "{path}: {text}");
    }
    let (_, text) = ask(&door, (Method::GET, "/api/serve/history"), &[], "").await;
    let history: Value = serde_json::from_str(&text).unwrap();
    let revisions = history["revisions"].as_array().unwrap();
    let reasons: Vec<_> = revisions.iter().map(|revision| &revision["reason"]).collect();
    assert_eq!(reasons, [&json!("why not"); 6], "{text}");
}

#[tokio::test]
async fn a_list_is_no_object() {
    let door = door().await;
    let _ = ask(&door, (Method::PUT, ONE), &[], &one(5)).await;
    let before = config(&door).await;
    for (path, body) in [
        ("/api/serve/rollback", "[]"),
        ("/api/serve/rollback", "[1, \"a\"]"),
        ("/api/v1/applications/a/deployments/pipeline/scale", "[3]"),
    ] {
        let (code, text) = ask(&door, (Method::POST, path), &[], body).await;
        assert_eq!(code, StatusCode::BAD_REQUEST, "{path} {body}: {text}");
    }
    assert_eq!(config(&door).await, before);
}

#[tokio::test]
async fn problems_of_an_application_without_a_name_are_told_at_their_lines() {
    let door = door().await;
    let body = "import_path: mobula.image:text_to_image\nroute_prefix: x\ndeployments:\n- name: nobody\n";
    let (code, text) = ask(&door, (Method::PUT, ONE), &[], body).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    assert!(
        text.contains("line 2: route_prefix") && text.contains("line 4: deployments[0].name"),
        "{text}"
    );
}

#[tokio::test]
async fn one_subject_is_explained_at_a_time() {
    let door = door().await;
    let path = "/api/serve/explain?application=a&worker=w";
    let (code, text) = ask(&door, (Method::GET, path), &[], "").await;
    assert_eq!(
        (code, text.contains("one subject")),
        (StatusCode::BAD_REQUEST, true),
        "{text}"
    );
}
