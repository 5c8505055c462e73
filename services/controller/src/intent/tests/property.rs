//! Whatever is done, in whatever order: the same twice is once, a way back leads exactly there, and the disk knows it all.

use proptest::prelude::*;

use super::*;

/// Something that somebody does.
#[derive(Clone, Debug)]
enum Step {
    Deploy(Vec<Value>),
    Put(Value),
    Delete(String),
    Scale(String, u32),
    Back(u64, String),
}

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned)
}

prop_compose! {
    fn document()(name in name(), model in 0..3, replicas in 1..4u32, external in any::<bool>(), light in 0..3, deep in 0.0..1.0f64)
        -> Value {
        let mut document = app(&name, pipeline(json!({
            "num_replicas": replicas,
            "max_queued_requests": 10 + light,
            "user_config": { "deep": { "weight": deep } },
        })));
        document["args"]["model"] = json!(format!("m{model}"));
        document["external_scaler_enabled"] = json!(external);
        document
    }
}

fn step() -> impl Strategy<Value = Step> {
    let unique = |documents: Vec<Value>| {
        let mut seen = std::collections::BTreeSet::new();
        let mut documents = documents;
        documents.retain(|document| seen.insert(document["name"].to_string()));
        Step::Deploy(documents)
    };
    prop_oneof![
        prop::collection::vec(document(), 0..4).prop_map(unique),
        document().prop_map(Step::Put),
        name().prop_map(Step::Delete),
        (name(), 1..6u32).prop_map(|(name, replicas)| Step::Scale(name, replicas)),
        (0..12u64, prop_oneof![Just(String::new()), name()]).prop_map(|(to, name)| Step::Back(to, name)),
    ]
}

fn take(desk: &mut Desk, step: &Step) -> Result<pb::Accepted, Error> {
    match step {
        Step::Deploy(documents) => deploy(desk, documents),
        Step::Put(document) => put(desk, document),
        Step::Delete(name) => delete(desk, name),
        Step::Scale(application, replicas) => desk.scale(&pb::ScaleRequest {
            application: application.clone(),
            deployment: "pipeline".into(),
            replicas: *replicas,
            ..Default::default()
        }),
        Step::Back(to, name) => desk.rollback(&pb::RollbackRequest {
            to: *to,
            name: name.clone(),
            ..Default::default()
        }),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_ledger_keeps_its_promises(steps in prop::collection::vec(step(), 1..12)) {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::Dir(dir.path().to_path_buf());
        let mut desk = at(place.clone());
        let mut configs = std::collections::BTreeMap::new();
        for step in &steps {
            let before = desk.subscribe().borrow().clone();
            let accepted = take(&mut desk, step);
            let after = desk.subscribe().borrow().clone();
            match &accepted {
                Ok(accepted) => {
                    prop_assert_eq!(accepted.resource_version, after.resource_version);
                    prop_assert_eq!(accepted.changes.is_empty(), after == before);
                    let step_up = after.resource_version - before.resource_version;
                    prop_assert_eq!(step_up, u64::from(!accepted.changes.is_empty()));
                }
                Err(_) => prop_assert_eq!(&after, &before),
            }
            // Doing it again is nothing, but for what goes back from where it is.
            let again = matches!(step, Step::Deploy(_) | Step::Put(_) | Step::Scale(..)) && accepted.is_ok();
            if again {
                let again = take(&mut desk, step).unwrap();
                prop_assert!(again.changes.is_empty(), "{:?}", again.changes);
            }
            // What is given back, is what was accepted; as a whole config it changes nothing but whose it is.
            let whole = config(&desk, "");
            let request = pb::DeployRequest { config: whole.to_string(), dry_run: true, ..Default::default() };
            let same = desk.deploy(request, None).unwrap();
            prop_assert!(same.changes.iter().all(|change| change.field == "source"), "{:?}", same.changes);
            configs.insert(after.resource_version, whole);
        }
        // Every revision can be gone back to, exactly.
        let versions: Vec<u64> = history(&mut desk, "").iter().map(|r| r.resource_version).collect();
        for version in versions {
            take(&mut desk, &Step::Back(version, String::new())).unwrap();
            prop_assert_eq!(&config(&desk, ""), &configs[&version]);
        }
        let (intent, revisions) = (desk.subscribe().borrow().clone(), history(&mut desk, ""));
        drop(desk);
        let mut desk = at(place);
        let read = desk.subscribe().borrow().clone();
        prop_assert_eq!(read, intent);
        prop_assert_eq!(history(&mut desk, ""), revisions);
    }
}
