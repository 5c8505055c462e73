//! Numbers of replicas: in the document, outside of it, and nobody's to set.

use super::*;

fn scale(desk: &mut Desk, deployment: &str, replicas: u32) -> Result<pb::Accepted, Error> {
    desk.scale(&pb::ScaleRequest {
        application: "a".into(),
        deployment: deployment.into(),
        replicas,
        ..Default::default()
    })
}

fn target(desk: &Desk) -> Option<u32> {
    let key = ("a".to_owned(), "pipeline".to_owned());
    desk.subscribe().borrow().targets.get(&key).copied()
}

#[test]
fn a_fixed_number_is_changed_where_it_stands() {
    let mut desk = desk();
    let original = app("a", pipeline(json!({ "num_replicas": 2 })));
    put(&mut desk, &original).unwrap();
    let accepted = scale(&mut desk, "pipeline", 5).unwrap();
    assert_eq!(told(&accepted), ["changed a/pipeline/num_replicas: scale"]);
    assert_eq!(config(&desk, "a")["deployments"][0]["num_replicas"], 5);
    assert!(
        scale(&mut desk, "pipeline", 5).unwrap().changes.is_empty(),
        "it is so already"
    );
    // The config that is put again says what it says.
    let accepted = put(&mut desk, &original).unwrap();
    assert_eq!(told(&accepted), ["changed a/pipeline/num_replicas: scale"]);
    // A deployment that was not written is written now.
    scale(&mut desk, "preprocess", 3).unwrap();
    let written = &config(&desk, "a")["deployments"][1];
    assert_eq!(*written, json!({ "name": "preprocess", "num_replicas": 3 }));
}

#[test]
fn an_external_scalers_number_stands_beside_the_document_and_outlives_the_same_config() {
    let mut desk = desk();
    let mut document = app("a", pipeline(json!({ "num_replicas": 2 })));
    document["external_scaler_enabled"] = json!(true);
    put(&mut desk, &document).unwrap();
    let accepted = scale(&mut desk, "pipeline", 7).unwrap();
    assert_eq!(told(&accepted), ["changed a/pipeline/target_num_replicas: scale"]);
    assert_eq!(
        (
            accepted.changes[0].before.as_str(),
            accepted.changes[0].after.as_str()
        ),
        ("2", "7")
    );
    assert_eq!(target(&desk), Some(7));
    assert_eq!(desk.subscribe().borrow().applications["a"].resource_version, 2);
    assert!(scale(&mut desk, "pipeline", 7).unwrap().changes.is_empty());
    assert!(put(&mut desk, &document).unwrap().changes.is_empty());
    assert_eq!(target(&desk), Some(7), "the same config says nothing new");
    document["deployments"][0]["num_replicas"] = json!(3);
    put(&mut desk, &document).unwrap();
    assert_eq!(target(&desk), None, "another number is what the config wants");
    scale(&mut desk, "pipeline", 4).unwrap();
    document["external_scaler_enabled"] = json!(false);
    put(&mut desk, &document).unwrap();
    assert_eq!(target(&desk), None);
}

#[test]
fn what_scales_by_itself_is_not_scaled_from_outside() {
    let mut desk = desk();
    let scaler = json!({ "autoscaling_config": { "min_replicas": 1, "max_replicas": 4 } });
    put(&mut desk, &app("a", pipeline(scaler))).unwrap();
    let error = scale(&mut desk, "pipeline", 2).unwrap_err();
    assert_eq!(error.code(), tonic::Code::FailedPrecondition);
    let said = error.to_string();
    for part in ["a/pipeline", "1 to 4", "external_scaler_enabled"] {
        assert!(said.contains(part), "{said}");
    }
    assert!(!said.contains("min_replicas: 0"), "{said}");
    let said = scale(&mut desk, "pipeline", 0).unwrap_err().to_string();
    assert!(said.contains("min_replicas: 0"), "{said}");
}

#[test]
fn numbers_and_names_that_are_not_there_are_refused() {
    let mut desk = desk();
    assert_eq!(
        scale(&mut desk, "pipeline", 1).unwrap_err().code(),
        tonic::Code::NotFound
    );
    put(&mut desk, &app("a", json!({}))).unwrap();
    let error = scale(&mut desk, "pipelin", 1).unwrap_err();
    assert!(error.to_string().contains("preprocess, pipeline"), "{error}");
    let error = scale(&mut desk, "pipeline", 0).unwrap_err();
    assert_eq!(error.code(), tonic::Code::InvalidArgument);
    for part in ["a/pipeline", "external_scaler_enabled: true", "min_replicas: 0"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    let error = scale(&mut desk, "pipeline", 10_001).unwrap_err();
    assert_eq!(error.code(), tonic::Code::InvalidArgument);
}

#[test]
fn decisions_are_kept_and_what_scales_begins_with_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::Dir(dir.path().to_path_buf());
    let mut desk = at(place.clone());
    let scaler = json!({ "autoscaling_config": { "min_replicas": 1, "max_replicas": 9 } });
    put(&mut desk, &app("a", pipeline(scaler))).unwrap();
    let decision = |deployment: &str, to| pb::Decision {
        application: "a".into(),
        deployment: deployment.into(),
        to,
        inputs: [("total_requests".to_owned(), 12.5), ("none".to_owned(), f64::NAN)].into(),
        ..Default::default()
    };
    desk.decided(vec![
        decision("pipeline", 3),
        decision("pipeline", 5),
        decision("preprocess", 2),
    ])
    .unwrap();
    let found = desk.decisions(("a", "pipeline"), 10).unwrap();
    assert_eq!(found.iter().map(|d| d.to).collect::<Vec<_>>(), [5, 3]);
    assert_eq!(found[0].inputs, [("total_requests".to_owned(), 12.5)].into());
    assert_eq!(desk.decisions(("", ""), 2).unwrap().len(), 2);
    assert_eq!(history(&mut desk, "").len(), 1, "a decision is no revision");
    drop(desk);
    let desk = at(place);
    assert_eq!(target(&desk), Some(5));
    assert_eq!(
        desk.subscribe().borrow().targets.len(),
        1,
        "a fixed number stands in the document"
    );
}
