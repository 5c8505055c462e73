//! Ways back: asked for, and by themselves.

use super::*;

fn rollback(desk: &mut Desk, to: u64, name: &str) -> Result<pb::Accepted, Error> {
    desk.rollback(&pb::RollbackRequest {
        to,
        name: name.into(),
        ..Default::default()
    })
}

fn model(desk: &Desk, name: &str) -> Value {
    config(desk, name)["args"]["model"].clone()
}

fn with_model(name: &str, model: &str) -> Value {
    app(name, json!({ "args": { "model": model } }))
}

fn failed(desk: &mut Desk, name: &str, resource_version: u64) -> Result<pb::Accepted, Error> {
    desk.rolled_back(&Failed {
        application: name.into(),
        resource_version,
        deployment: "pipeline".into(),
        why: "3 replicas failed to start".into(),
    })
}

#[test]
fn an_earlier_revision_is_made_the_intent_as_a_new_one() {
    let mut desk = desk();
    deploy(&mut desk, &[with_model("a", "m1"), app("b", json!({}))]).unwrap();
    let first = config(&desk, "");
    deploy(&mut desk, &[with_model("a", "m2")]).unwrap();
    let accepted = rollback(&mut desk, 1, "").unwrap();
    assert_eq!(accepted.resource_version, 3);
    assert_eq!(
        told(&accepted),
        ["changed a/args.model: rollout", "added b: scale"]
    );
    assert_eq!(config(&desk, ""), first);
    assert_eq!(history(&mut desk, "")[0].action, "rollback");
    assert!(
        rollback(&mut desk, 1, "").unwrap().changes.is_empty(),
        "it is so already"
    );
    // The one before the current one, and back again.
    rollback(&mut desk, 0, "").unwrap();
    assert_eq!(names(&desk), ["a"]);
    rollback(&mut desk, 0, "").unwrap();
    assert_eq!(config(&desk, ""), first);
}

#[test]
fn one_application_goes_back_and_the_others_stay() {
    let mut desk = desk();
    deploy(&mut desk, &[with_model("a", "m1"), with_model("b", "n1")]).unwrap();
    put(&mut desk, &with_model("a", "m2")).unwrap();
    put(&mut desk, &with_model("b", "n2")).unwrap();
    let accepted = rollback(&mut desk, 0, "a").unwrap();
    assert_eq!(told(&accepted)[0], "changed a/args.model: rollout");
    assert_eq!((model(&desk, "a"), model(&desk, "b")), (json!("m1"), json!("n2")));
    // One that was deleted comes back.
    delete(&mut desk, "b").unwrap();
    rollback(&mut desk, 0, "b").unwrap();
    assert_eq!(model(&desk, "b"), "n2");
    rollback(&mut desk, 1, "b").unwrap();
    assert_eq!(model(&desk, "b"), "n1");
}

#[test]
fn what_is_not_in_the_history_cannot_be_gone_back_to() {
    let mut desk = desk();
    for (to, name) in [(0, ""), (7, ""), (0, "a"), (7, "a")] {
        let error = rollback(&mut desk, to, name).unwrap_err();
        assert_eq!(error.code(), tonic::Code::NotFound, "{to} {name}");
    }
    put(&mut desk, &app("a", json!({}))).unwrap();
    assert_eq!(
        rollback(&mut desk, 1, "b").unwrap_err().code(),
        tonic::Code::NotFound
    );
    assert_eq!(
        rollback(&mut desk, 0, "a").unwrap_err().code(),
        tonic::Code::NotFound
    );
    let request = pb::RollbackRequest {
        to: 1,
        resource_version: 9,
        ..Default::default()
    };
    assert_eq!(desk.rollback(&request).unwrap_err().code(), tonic::Code::Aborted);
}

#[test]
fn an_update_that_failed_is_taken_back_and_told_with_the_reason() {
    let mut desk = desk();
    put(&mut desk, &with_model("a", "good")).unwrap();
    put(&mut desk, &with_model("b", "good")).unwrap();
    let bad = put(&mut desk, &with_model("a", "bad")).unwrap().resource_version;
    let accepted = failed(&mut desk, "a", bad).unwrap();
    assert_eq!(told(&accepted), ["changed a/args.model: rollout"]);
    assert_eq!(model(&desk, "a"), "good");
    let newest = &history(&mut desk, "a")[0];
    assert_eq!(
        (newest.action.as_str(), newest.reason.as_str()),
        ("automatic rollback", "pipeline: 3 replicas failed to start")
    );
}

#[test]
fn a_way_back_passes_over_what_was_taken_back_already() {
    for name in ["", "a"] {
        let mut desk = desk();
        put(&mut desk, &with_model("a", "old")).unwrap();
        put(&mut desk, &with_model("a", "good")).unwrap();
        put(&mut desk, &with_model("a", "bad")).unwrap();
        failed(&mut desk, "a", 0).unwrap();
        assert_eq!(model(&desk, "a"), "good");
        rollback(&mut desk, 0, name).unwrap();
        assert_eq!(model(&desk, "a"), "old", "{name:?}");
        // And again: what was in force before that.
        rollback(&mut desk, 0, name).unwrap();
        assert_eq!(model(&desk, "a"), "good", "{name:?}");
        // One that is named is gone back to.
        rollback(&mut desk, 3, name).unwrap();
        assert_eq!(model(&desk, "a"), "bad", "{name:?}");
    }
}

#[test]
fn a_way_back_passes_over_all_that_failed_one_after_another() {
    for name in ["", "a"] {
        let mut desk = desk();
        put(&mut desk, &with_model("b", "good")).unwrap();
        for model in ["good", "bad", "worse"] {
            put(&mut desk, &with_model("a", model)).unwrap();
        }
        failed(&mut desk, "a", 0).unwrap();
        failed(&mut desk, "a", 0).unwrap();
        assert_eq!(model(&desk, "a"), "good");
        let back = rollback(&mut desk, 0, name);
        if name.is_empty() {
            // To when there was no a.
            back.unwrap();
            assert_eq!(names(&desk), ["b"]);
        } else {
            assert_eq!(back.unwrap_err().code(), tonic::Code::NotFound);
        }
    }
}

#[test]
fn what_failed_once_and_works_now_can_be_gone_back_to() {
    let mut desk = desk();
    for model in ["good", "late"] {
        put(&mut desk, &with_model("a", model)).unwrap();
    }
    failed(&mut desk, "a", 0).unwrap();
    put(&mut desk, &with_model("a", "late")).unwrap();
    put(&mut desk, &with_model("a", "new")).unwrap();
    rollback(&mut desk, 0, "a").unwrap();
    assert_eq!(model(&desk, "a"), "late");
}

#[test]
fn updates_that_fail_one_after_another_lead_back_to_what_was_good() {
    let mut desk = desk();
    for model in ["good", "bad", "worse"] {
        put(&mut desk, &with_model("a", model)).unwrap();
    }
    failed(&mut desk, "a", 0).unwrap();
    assert_eq!(model(&desk, "a"), "bad");
    failed(&mut desk, "a", 0).unwrap();
    assert_eq!(
        model(&desk, "a"),
        "good",
        "not to the one that has failed already"
    );
    assert_eq!(
        failed(&mut desk, "a", 0).unwrap_err().code(),
        tonic::Code::NotFound
    );
}

#[test]
fn a_change_of_numbers_meanwhile_does_not_hide_what_was_before_the_update() {
    let mut desk = desk();
    put(&mut desk, &with_model("a", "good")).unwrap();
    put(&mut desk, &with_model("a", "bad")).unwrap();
    let request = pb::ScaleRequest {
        application: "a".into(),
        deployment: "pipeline".into(),
        replicas: 4,
        ..Default::default()
    };
    desk.scale(&request).unwrap();
    let mut lighter = config(&desk, "a");
    lighter["deployments"][0]["max_queued_requests"] = json!(9);
    put(&mut desk, &lighter).unwrap();
    failed(&mut desk, "a", 0).unwrap();
    assert_eq!(model(&desk, "a"), "good");
}

#[test]
fn a_failure_of_what_is_no_longer_wanted_changes_nothing() {
    let mut desk = desk();
    put(&mut desk, &with_model("a", "good")).unwrap();
    let bad = put(&mut desk, &with_model("a", "bad")).unwrap().resource_version;
    put(&mut desk, &with_model("a", "better")).unwrap();
    assert_eq!(
        failed(&mut desk, "a", bad).unwrap_err().code(),
        tonic::Code::Aborted
    );
    assert_eq!(model(&desk, "a"), "better");
    assert_eq!(
        failed(&mut desk, "gone", 0).unwrap_err().code(),
        tonic::Code::NotFound
    );
}
