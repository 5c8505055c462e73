//! The desk, as those who change the intent see it.

mod back;
mod backup;
mod full;
mod loops;
mod property;
mod scaling;

use serde_json::{Value, json};

use mobula_proto::control::v1 as pb;

use super::{desk::Desk, *};
use crate::{
    Error,
    store::{Bounds, Place, Store},
};

const BOUNDS: Bounds = Bounds {
    revisions: 100,
    bytes: u64::MAX,
    decisions: 100,
};

/// Unix time at which everything here happens.
const NOW: u64 = 1_800_000_000_000;

fn desk() -> Desk {
    at(Place::Memory)
}

fn at(place: Place) -> Desk {
    Desk::open(Store::open(place, BOUNDS).unwrap(), || NOW).unwrap()
}

/// An application's document; `more` goes into it.
fn app(name: &str, more: Value) -> Value {
    let mut document = json!({
        "name": name,
        "route_prefix": format!("/{name}"),
        "import_path": "mobula.image:text_to_image",
        "args": { "model": "fake" },
    });
    for (key, value) in more.as_object().unwrap() {
        document[key] = value.clone();
    }
    document
}

fn pipeline(fields: Value) -> Value {
    let mut fields = fields;
    fields["name"] = json!("pipeline");
    json!({ "deployments": [fields] })
}

fn whole(applications: &[Value]) -> String {
    json!({ "applications": applications }).to_string()
}

fn deploy(desk: &mut Desk, applications: &[Value]) -> Result<pb::Accepted, Error> {
    let request = pb::DeployRequest {
        config: whole(applications),
        ..Default::default()
    };
    desk.deploy(request, None)
}

fn put(desk: &mut Desk, application: &Value) -> Result<pb::Accepted, Error> {
    let request = pb::PutApplicationRequest {
        config: application.to_string(),
        ..Default::default()
    };
    desk.put(request)
}

fn delete(desk: &mut Desk, name: &str) -> Result<pb::Accepted, Error> {
    let request = pb::DeleteApplicationRequest {
        name: name.into(),
        ..Default::default()
    };
    desk.delete(request)
}

fn names(desk: &Desk) -> Vec<String> {
    let intent = desk.subscribe().borrow().clone();
    intent
        .config
        .applications
        .iter()
        .map(|app| app.name.clone())
        .collect()
}

/// The config as it is given back.
fn config(desk: &Desk, name: &str) -> Value {
    let request = pb::GetConfigRequest { name: name.into() };
    serde_json::from_str(&desk.config(&request).unwrap().config).unwrap()
}

fn history(desk: &mut Desk, name: &str) -> Vec<pb::Revision> {
    let request = pb::GetHistoryRequest {
        name: name.into(),
        limit: 1000,
    };
    desk.history(&request).unwrap().revisions
}

/// Field and effect of each change, short.
fn told(accepted: &pb::Accepted) -> Vec<String> {
    let tell = |change: &pb::Change| {
        let place = [&change.application, &change.deployment, &change.field];
        let place: Vec<_> = place
            .into_iter()
            .filter(|part| !part.is_empty())
            .cloned()
            .collect();
        let kind = change
            .kind()
            .as_str_name()
            .trim_start_matches("CHANGE_KIND_")
            .to_lowercase();
        let effect = change
            .effect()
            .as_str_name()
            .trim_start_matches("CHANGE_EFFECT_")
            .to_lowercase();
        format!("{kind} {}: {effect}", place.join("/"))
    };
    accepted.changes.iter().map(tell).collect()
}

fn problems(error: Error) -> Vec<mobula_schema::Problem> {
    let Error::Invalid(problems) = error else {
        panic!("{error:?}")
    };
    problems
}

#[test]
fn the_same_config_twice_is_one_change() {
    let mut desk = desk();
    let first = deploy(&mut desk, &[app("a", json!({})), app("b", json!({}))]).unwrap();
    assert_eq!(told(&first), ["added a: scale", "added b: scale"]);
    let second = deploy(&mut desk, &[app("b", json!({})), app("a", json!({}))]).unwrap();
    assert_eq!(
        (second.resource_version, second.changes.len()),
        (first.resource_version, 0)
    );
    assert_eq!(history(&mut desk, "").len(), 1, "no revision for nothing");
}

#[test]
fn a_whole_config_is_total_for_what_whole_configs_deployed_and_keeps_what_was_put_by_itself() {
    let mut desk = desk();
    deploy(&mut desk, &[app("a", json!({})), app("b", json!({}))]).unwrap();
    put(&mut desk, &app("c", json!({}))).unwrap();
    let accepted = deploy(&mut desk, &[app("b", json!({}))]).unwrap();
    assert_eq!(told(&accepted), ["removed a: scale"]);
    assert_eq!(names(&desk), ["b", "c"]);
    // Named once, it belongs to the whole config.
    let accepted = deploy(&mut desk, &[app("b", json!({})), app("c", json!({}))]).unwrap();
    assert_eq!(told(&accepted), ["changed c/source: none"]);
    deploy(&mut desk, &[app("b", json!({}))]).unwrap();
    assert_eq!(names(&desk), ["b"]);
}

#[test]
fn each_field_is_told_with_what_it_costs() {
    let mut desk = desk();
    let before = app(
        "a",
        pipeline(json!({ "num_replicas": 1, "max_ongoing_requests": 8 })),
    );
    put(&mut desk, &before).unwrap();
    let mut after = app(
        "a",
        pipeline(
            json!({ "num_replicas": 3, "max_ongoing_requests": 16, "ray_actor_options": { "num_cpus": 2 } }),
        ),
    );
    after["args"]["options"] = json!({ "row_us": 100 });
    after["route_prefix"] = json!("/elsewhere");
    let accepted = put(&mut desk, &after).unwrap();
    assert_eq!(
        told(&accepted),
        [
            "added a/args.options: rollout",
            "changed a/route_prefix: none",
            "changed a/pipeline/max_ongoing_requests: light",
            "changed a/pipeline/num_replicas: scale",
            "added a/pipeline/ray_actor_options: rollout",
        ]
    );
    let change = &accepted.changes[3];
    assert_eq!((change.before.as_str(), change.after.as_str()), ("1", "3"));
}

#[test]
fn fields_that_only_work_together_are_weighed_together() {
    let mut desk = desk();
    put(&mut desk, &app("a", pipeline(json!({ "num_replicas": 2 })))).unwrap();
    let after = app(
        "a",
        pipeline(json!({ "autoscaling_config": { "min_replicas": 1, "max_replicas": 4 } })),
    );
    let accepted = put(&mut desk, &after).unwrap();
    assert_eq!(
        told(&accepted),
        [
            "added a/pipeline/autoscaling_config: scale",
            "removed a/pipeline/num_replicas: scale"
        ]
    );
    // A delay alone moves nothing; another limit may.
    let scaler = |fields: Value| app("a", pipeline(json!({ "autoscaling_config": fields })));
    let accepted = put(
        &mut desk,
        &scaler(json!({ "min_replicas": 1, "max_replicas": 5, "upscale_delay_s": 3 })),
    );
    assert_eq!(
        told(&accepted.unwrap()),
        [
            "changed a/pipeline/autoscaling_config.max_replicas: scale",
            "added a/pipeline/autoscaling_config.upscale_delay_s: none",
        ]
    );
}

#[test]
fn what_concerns_everything_is_told_without_an_application() {
    let mut desk = desk();
    deploy(&mut desk, &[app("a", json!({}))]).unwrap();
    let text = json!({ "target_capacity": 50, "applications": [app("a", json!({}))] }).to_string();
    let request = pb::DeployRequest {
        config: text,
        ..Default::default()
    };
    let accepted = desk.deploy(request, None).unwrap();
    assert_eq!(told(&accepted), ["added target_capacity: scale"]);
    assert_eq!(
        desk.subscribe().borrow().config.options.target_capacity,
        Some(50.0)
    );
}

#[test]
fn a_dry_run_tells_everything_and_changes_nothing() {
    let mut desk = desk();
    let request = pb::DeployRequest {
        config: whole(&[app("a", json!({}))]),
        dry_run: true,
        ..Default::default()
    };
    let accepted = desk.deploy(request, None).unwrap();
    assert!(accepted.dry_run);
    assert_eq!(told(&accepted), ["added a: scale"]);
    assert_eq!((names(&desk), history(&mut desk, "").len()), (Vec::new(), 0));
}

#[test]
fn what_is_refused_leaves_everything_as_it_was() {
    let mut desk = desk();
    deploy(&mut desk, &[app("a", json!({}))]).unwrap();
    let before = desk.subscribe().borrow().clone();
    let broken = app("b", json!({ "import_path": "fruit:app" }));
    let found = problems(deploy(&mut desk, &[app("c", json!({})), broken.clone()]).unwrap_err());
    assert_eq!(found[0].path, "applications[1].import_path", "{found:?}");
    let found = problems(put(&mut desk, &broken).unwrap_err());
    assert_eq!(found[0].path, "import_path", "{found:?}");
    assert_eq!(*desk.subscribe().borrow(), before);
    assert_eq!(history(&mut desk, "").len(), 1);
}

#[test]
fn a_clash_with_what_is_there_is_a_problem_of_what_was_given() {
    let mut desk = desk();
    put(&mut desk, &app("a", json!({}))).unwrap();
    put(&mut desk, &app("z", json!({}))).unwrap();
    let clash = |name: &str| app(name, json!({ "route_prefix": "/z" }));
    let found = problems(put(&mut desk, &clash("m")).unwrap_err());
    assert!(!found[0].path.contains("applications"), "{found:?}");
    let found = problems(deploy(&mut desk, &[app("q", json!({})), clash("m")]).unwrap_err());
    assert!(found[0].path.starts_with("applications[1]"), "{found:?}");
}

#[test]
fn a_change_of_something_older_is_refused_with_the_current_version() {
    let mut desk = desk();
    let first = deploy(&mut desk, &[app("a", json!({}))])
        .unwrap()
        .resource_version;
    put(&mut desk, &app("b", json!({}))).unwrap();
    let put_at = |desk: &mut Desk, name: &str, resource_version| {
        let request = pb::PutApplicationRequest {
            config: app(
                name,
                json!({ "route_prefix": format!("/{name}/{resource_version}") }),
            )
            .to_string(),
            resource_version,
            ..Default::default()
        };
        desk.put(request)
    };
    // The application is as old as it was, whatever was done to others.
    let second = put_at(&mut desk, "a", first).unwrap().resource_version;
    let error = put_at(&mut desk, "a", first).unwrap_err();
    assert_eq!(error.code(), tonic::Code::Aborted);
    let said = error.to_string();
    assert!(
        said.contains(&format!("at resource version {second}, not {first}")),
        "{said}"
    );
    let error = put_at(&mut desk, "gone", 4).unwrap_err();
    assert!(matches!(error, Error::Conflict { current: 0, .. }), "{error:?}");
    // The whole config has a version of its own.
    let request = pb::DeployRequest {
        config: whole(&[]),
        resource_version: first,
        ..Default::default()
    };
    assert_eq!(
        desk.deploy(request, None).unwrap_err().code(),
        tonic::Code::Aborted
    );
    assert_eq!(names(&desk), ["a", "b"]);
}

#[test]
fn what_is_deleted_is_gone_and_what_is_not_there_cannot_be() {
    let mut desk = desk();
    deploy(&mut desk, &[app("a", json!({})), app("b", json!({}))]).unwrap();
    assert_eq!(told(&delete(&mut desk, "a").unwrap()), ["removed a: scale"]);
    let error = delete(&mut desk, "a").unwrap_err();
    assert_eq!(error.code(), tonic::Code::NotFound);
    let text = json!({ "target_capacity": 50, "applications": [app("b", json!({}))] }).to_string();
    let request = pb::DeployRequest {
        config: text,
        ..Default::default()
    };
    desk.deploy(request, None).unwrap();
    assert_eq!(
        told(&delete(&mut desk, "").unwrap()),
        ["removed target_capacity: scale", "removed b: scale"]
    );
    assert_eq!(config(&desk, ""), json!({ "applications": [] }));
    assert!(
        told(&delete(&mut desk, "").unwrap()).is_empty(),
        "all of nothing is nothing"
    );
}

#[test]
fn an_application_without_a_name_is_called_default_in_what_is_given_back() {
    let mut desk = desk();
    let mut document = app("default", json!({}));
    document.as_object_mut().unwrap().remove("name");
    put(&mut desk, &document).unwrap();
    assert_eq!(config(&desk, "default")["name"], "default");
    let again = config(&desk, "default");
    assert!(put(&mut desk, &again).unwrap().changes.is_empty());
}

#[test]
fn times_and_versions_are_those_of_the_last_change() {
    let mut desk = desk();
    deploy(&mut desk, &[app("a", json!({})), app("b", json!({}))]).unwrap();
    put(&mut desk, &app("b", json!({ "route_prefix": "/x" }))).unwrap();
    let intent = desk.subscribe().borrow().clone();
    assert_eq!(intent.resource_version, 2);
    assert_eq!(
        intent.applications["a"],
        Meta {
            resource_version: 1,
            source: ApplicationSource::Declarative,
            deployed_unix_ms: NOW
        }
    );
    assert_eq!(intent.applications["b"].resource_version, 2);
    assert_eq!(intent.applications["b"].source, ApplicationSource::Imperative);
}

#[test]
fn a_check_tells_every_field_and_every_problem_and_changes_nothing() {
    let mut desk = desk();
    let check = |desk: &mut Desk, text: &str| desk.check(&pb::CheckRequest { config: text.into() });
    let found = check(&mut desk, &whole(&[app("a", json!({}))]));
    assert!(found.accepted && found.changes.len() == 1, "{found:?}");
    assert!(
        found
            .notes
            .iter()
            .any(|note| note.verdict() == pb::Verdict::Honoured),
        "{found:?}"
    );
    let found = check(&mut desk, "applications:\n- name: a\n  import_path: fruit:app\n");
    assert!(!found.accepted, "{found:?}");
    let note = &found.notes[0];
    assert_eq!(
        (note.verdict(), note.line),
        (pb::Verdict::Refused, 3),
        "{found:?}"
    );
    assert_eq!(names(&desk), [""; 0]);
}

#[test]
fn what_was_written_is_what_the_next_desk_reads() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::Dir(dir.path().to_path_buf());
    let mut first = at(place.clone());
    // A number that is easily read back as its neighbour.
    let odd = pipeline(json!({ "user_config": { "weight": 0.300_000_000_000_000_04, "tiny": 5e-324 } }));
    put(&mut first, &app("a", odd.clone())).unwrap();
    let before = first.subscribe().borrow().clone();
    drop(first);
    let mut second = at(place);
    assert_eq!(*second.subscribe().borrow(), before);
    assert!(put(&mut second, &app("a", odd)).unwrap().changes.is_empty());
}

#[test]
fn a_history_tells_what_was_done_by_whom_and_why() {
    let mut desk = desk();
    let request = pb::DeployRequest {
        config: whole(&[app("a", json!({})), app("b", json!({}))]),
        reason: "the first".into(),
        ..Default::default()
    };
    desk.deploy(request, None).unwrap();
    put(&mut desk, &app("b", json!({ "route_prefix": "/x" }))).unwrap();
    let all = history(&mut desk, "");
    let short: Vec<_> = all
        .iter()
        .map(|r| {
            (
                r.resource_version,
                r.action.as_str(),
                r.reason.as_str(),
                r.current,
                r.changes.len(),
            )
        })
        .collect();
    assert_eq!(
        short,
        [(2, "put", "", true, 2), (1, "deploy", "the first", false, 2)]
    );
    assert_eq!(all[0].at_unix_ms, NOW);
    let of_a = history(&mut desk, "a");
    assert_eq!(of_a.len(), 1);
    assert!(of_a[0].current && of_a[0].changes.len() == 1, "{of_a:?}");
}
