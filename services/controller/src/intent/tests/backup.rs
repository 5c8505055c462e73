//! Backups: everything goes over, and nothing that is damaged.

use super::*;

/// A desk with some history.
fn lived() -> Desk {
    let mut desk = desk();
    let scaler = json!({ "autoscaling_config": { "min_replicas": 1, "max_replicas": 9 } });
    deploy(&mut desk, &[app("a", pipeline(scaler)), app("b", json!({}))]).unwrap();
    put(&mut desk, &app("c", json!({}))).unwrap();
    let decision = pb::Decision {
        application: "a".into(),
        deployment: "pipeline".into(),
        to: 6,
        inputs: [("total_requests".to_owned(), 0.1 + 0.2)].into(),
        ..Default::default()
    };
    desk.decided(vec![decision]).unwrap();
    desk
}

#[test]
fn a_backup_brings_intent_history_and_decisions_to_another_controller() {
    let mut old = lived();
    let backup = old.backup().unwrap();
    let mut new = desk();
    put(&mut new, &app("other", json!({}))).unwrap();
    let accepted = new.restore(&backup, String::new()).unwrap();
    assert_eq!(accepted.resource_version, 3, "after both of them");
    assert_eq!(config(&new, ""), config(&old, ""));
    let (restored, original) = (new.subscribe().borrow().clone(), old.subscribe().borrow().clone());
    assert_eq!(restored.targets, original.targets);
    assert_eq!(restored.targets.values().next(), Some(&6));
    let actions: Vec<_> = history(&mut new, "").into_iter().map(|r| r.action).collect();
    assert_eq!(actions, ["restore", "put", "deploy"]);
    assert_eq!(
        new.decisions(("", ""), 9).unwrap(),
        old.decisions(("", ""), 9).unwrap()
    );
    // What was kept as imperative is still.
    deploy(&mut new, &[]).unwrap();
    assert_eq!(names(&new), ["c"]);
}

#[test]
fn a_backup_of_the_controller_itself_makes_a_new_revision_and_no_change() {
    let mut desk = lived();
    let before = config(&desk, "");
    let backup = desk.backup().unwrap();
    let accepted = desk.restore(&backup, "a drill".into()).unwrap();
    assert_eq!((accepted.resource_version, accepted.changes.len()), (3, 0));
    assert_eq!(config(&desk, ""), before);
    assert_eq!(history(&mut desk, "")[0].reason, "a drill");
}

#[test]
fn a_backup_may_be_formatted() {
    let mut desk = lived();
    let document: Value = serde_json::from_slice(&desk.backup().unwrap()).unwrap();
    let pretty = serde_json::to_vec_pretty(&document).unwrap();
    desk.restore(&pretty, String::new()).unwrap();
}

#[test]
fn a_backup_that_was_changed_is_refused_whole() {
    let mut desk = lived();
    let backup = desk.backup().unwrap();
    let before = desk.subscribe().borrow().clone();
    let mut refused = |bytes: &[u8]| {
        let found = problems(desk.restore(bytes, String::new()).unwrap_err());
        assert_eq!(*desk.subscribe().borrow(), before);
        found[0].to_string()
    };
    for at in (0..backup.len()).step_by(backup.len() / 97) {
        let mut damaged = backup.clone();
        damaged[at] ^= 1;
        refused(&damaged);
        refused(&backup[..at]);
    }
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut document: Value = serde_json::from_slice(&backup).unwrap();
        change(&mut document);
        document.to_string().into_bytes()
    };
    let said = refused(&changed(&|document| {
        document["content"]["history"]["revisions"] = json!([])
    }));
    assert!(said.contains("digest"), "{said}");
    let said = refused(&changed(&|document| document["format"] = json!(2)));
    assert!(
        said.contains("newer controller (format 2; this one reads 1)"),
        "{said}"
    );
    let said = refused(&changed(&|document| document["kind"] = json!("something")));
    assert!(said.contains("no backup"), "{said}");
    let said = refused(b"applications: []");
    assert!(said.contains("no JSON"), "{said}");
}
