//! What is kept: over a restart, over `kill -9`, over a disk that loses what was not synced, and over damage.

mod damage;
mod disk;
mod kill;

use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::intent::Change;

/// The same on every run.
const SEED: u64 = 7;
const BOUNDS: Bounds = Bounds {
    revisions: 5,
    bytes: u64::MAX,
    decisions: 8,
};

/// A revision whose number is in everything that it has.
fn revision(version: u64) -> Revision {
    let entry = Entry {
        document: json!({ "name": "a", "args": { "model": format!("model-{version}") }, "weight": 0.1 }),
        source: Source::Imperative,
        resource_version: version,
        deployed_unix_ms: version,
        origin: version,
    };
    Revision {
        at_unix_ms: version,
        action: Action::Put,
        reason: format!("for the {version}th time"),
        changes: Vec::<Change>::new(),
        desired: Desired {
            resource_version: version,
            options: serde_json::Map::new(),
            applications: BTreeMap::from([("a".to_owned(), entry)]),
        },
    }
}

fn decision(to: u32) -> Decision {
    Decision {
        at_unix_ms: to.into(),
        application: "a".into(),
        deployment: "pipeline".into(),
        from: to.saturating_sub(1),
        to,
        reason: "more requests".into(),
        policy: "ongoing".into(),
        inputs: BTreeMap::from([("total_requests".to_owned(), f64::from(to) * 0.3)]),
    }
}

fn put(store: &mut Store, version: u64) {
    let revision = revision(version);
    let batch = Batch {
        revision: Some(&revision),
        ..Batch::default()
    };
    store.commit(&batch).unwrap();
}

/// Everything that a store holds.
fn everything(store: &mut Store) -> (Kept, History) {
    let mut history = History::default();
    let mut all = |revision| {
        history.revisions.push(revision);
        true
    };
    store.revisions(&mut all).unwrap();
    store
        .decisions(|decision| {
            history.decisions.push(decision);
            true
        })
        .unwrap();
    (store.load().unwrap(), history)
}

#[test]
fn what_was_written_is_there_when_it_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::Dir(dir.path().join("made/if need be"));
    let mut store = Store::open(place.clone(), BOUNDS).unwrap();
    assert_eq!(store.load().unwrap(), Kept::default());
    let targets = Targets::from([(("a".into(), "pipeline".into()), 7)]);
    let revision = revision(1);
    let batch = Batch {
        revision: Some(&revision),
        targets: Some(&targets),
        applied: Some("digest"),
        decisions: &[decision(6), decision(7)],
        ..Batch::default()
    };
    store.commit(&batch).unwrap();
    let before = everything(&mut store);
    drop(store);

    let mut store = Store::open(place, BOUNDS).unwrap();
    let after = everything(&mut store);
    assert_eq!(after, before);
    assert_eq!(after.0.desired, revision.desired);
    assert_eq!(after.0.targets, targets);
    assert_eq!(after.0.applied.as_deref(), Some("digest"));
    assert_eq!(after.1.decisions, [decision(7), decision(6)], "newest first");
}

#[test]
fn history_is_bounded_and_the_current_intent_is_in_it() {
    let mut store = Store::open(Place::Memory, BOUNDS).unwrap();
    for version in 1..=20 {
        put(&mut store, version);
        let batch = Batch {
            decisions: &[decision(version as u32)],
            ..Batch::default()
        };
        store.commit(&batch).unwrap();
    }
    let (kept, history) = everything(&mut store);
    let versions: Vec<_> = history
        .revisions
        .iter()
        .map(|r| r.desired.resource_version)
        .collect();
    assert_eq!(versions, [20, 19, 18, 17, 16]);
    let decided: Vec<_> = history.decisions.iter().map(|d| d.to).collect();
    assert_eq!(decided, [20, 19, 18, 17, 16, 15, 14, 13]);
    assert_eq!(kept.desired.resource_version, 20);
}

#[test]
fn history_is_bounded_in_bytes_whoever_wrote_it() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::Dir(dir.path().to_path_buf());
    let mut store = Store::open(place.clone(), BOUNDS).unwrap();
    for version in 1..=4 {
        put(&mut store, version);
    }
    // As a controller would have left it that does not measure.
    store.run(|database, _| tables::unmeasured(database)).unwrap();
    drop(store);
    let one = serde_json::to_vec(&revision(4)).unwrap().len() as u64;
    let bounds = Bounds {
        bytes: one * 3,
        ..BOUNDS
    };
    let mut store = Store::open(place, bounds).unwrap();
    let versions = |store: &mut Store| {
        let (_, history) = everything(store);
        let versions = history.revisions.iter();
        versions.map(|r| r.desired.resource_version).collect::<Vec<_>>()
    };
    put(&mut store, 5);
    assert_eq!(versions(&mut store), [5, 4, 3]);
    let mut large = revision(6);
    large.reason = "x".repeat(usize::try_from(one).unwrap() * 9);
    let batch = Batch {
        revision: Some(&large),
        ..Batch::default()
    };
    store.commit(&batch).unwrap();
    assert_eq!(versions(&mut store), [6], "the current one is kept");
    put(&mut store, 7);
    assert_eq!(versions(&mut store), [7]);
}

#[test]
fn a_history_that_is_put_in_place_leaves_nothing_of_the_one_before() {
    let mut store = Store::open(Place::Memory, BOUNDS).unwrap();
    for version in 1..=3 {
        put(&mut store, version);
    }
    let history = History {
        revisions: vec![revision(1), revision(9)],
        decisions: vec![decision(4)],
    };
    let newest = revision(10);
    let batch = Batch {
        history: Some(&history),
        revision: Some(&newest),
        ..Batch::default()
    };
    store.commit(&batch).unwrap();
    let (_, found) = everything(&mut store);
    assert_eq!(found.revisions, [revision(10), revision(9), revision(1)]);
    assert_eq!(found.decisions, [decision(4)]);
}

#[test]
fn targets_that_are_not_named_any_more_go() {
    let mut store = Store::open(Place::Memory, BOUNDS).unwrap();
    let key = |name: &str| ("a".to_owned(), name.to_owned());
    for targets in [
        Targets::from([(key("x"), 1), (key("y"), 2)]),
        Targets::from([(key("y"), 3)]),
    ] {
        let batch = Batch {
            targets: Some(&targets),
            ..Batch::default()
        };
        store.commit(&batch).unwrap();
        assert_eq!(store.load().unwrap().targets, targets);
    }
}

#[test]
fn a_second_controller_in_the_same_directory_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::Dir(dir.path().to_path_buf());
    let first = Store::open(place.clone(), BOUNDS).unwrap();
    let error = Store::open(place.clone(), BOUNDS).unwrap_err();
    let said = error.to_string();
    let pid = std::process::id().to_string();
    for part in [dir.path().to_str().unwrap(), &pid, "--state-dir"] {
        assert!(said.contains(part), "{said}");
    }
    drop(first);
    Store::open(place, BOUNDS).unwrap();
}

#[test]
fn a_directory_that_cannot_be_made_is_refused_with_the_flag() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = Store::open(Place::Dir(file.join("below")), BOUNDS).unwrap_err();
    assert!(error.to_string().contains("--state-dir"), "{error}");
}
