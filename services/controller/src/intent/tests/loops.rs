//! The handle and the loop: one after another, followed by others, and stopped in order.

use std::time::Duration;

use mobula_kit::Stop;

use super::{super::ledger::Flags, *};

async fn open(place: Place, text: Option<&str>, stop: &Stop) -> Result<Ledger, Error> {
    let start = Start {
        place,
        bounds: BOUNDS,
        restore: None,
        flags: text.map(|text| Flags {
            setting: "--config",
            value: "app.yaml".into(),
            text: text.into(),
        }),
    };
    Ledger::open(start, stop).await
}

fn stop() -> Stop {
    Stop::new(Duration::from_secs(5))
}

fn request(application: &Value) -> pb::PutApplicationRequest {
    pb::PutApplicationRequest {
        config: application.to_string(),
        ..Default::default()
    }
}

fn models(ledger: &Ledger) -> Vec<(String, String)> {
    let intent = ledger.intent();
    let apps = intent.config.applications.iter();
    apps.map(|app| (app.name.clone(), app.deployments[1].model.clone()))
        .collect()
}

#[tokio::test]
async fn of_two_who_change_the_same_version_one_is_told() {
    let stop = stop();
    let ledger = open(Place::Memory, None, &stop).await.unwrap();
    let version = ledger
        .put(request(&app("a", json!({}))))
        .await
        .unwrap()
        .resource_version;
    let change = |model: &str| {
        let ledger = ledger.clone();
        let mut request = request(&app("a", json!({ "args": { "model": model } })));
        request.resource_version = version;
        async move { ledger.put(request).await }
    };
    let (one, other) = tokio::join!(change("m1"), change("m2"));
    assert_eq!([one.is_ok(), other.is_ok()].iter().filter(|ok| **ok).count(), 1);
}

#[tokio::test]
async fn a_change_is_published_when_it_is_kept_and_the_newest_is_what_is_seen() {
    let stop = stop();
    let ledger = open(Place::Memory, None, &stop).await.unwrap();
    let mut follow = ledger.follow();
    assert!(
        !follow.has_changed().unwrap(),
        "what is there at the start counts as seen"
    );
    for model in ["m1", "m2", "m3"] {
        ledger
            .put(request(&app("a", json!({ "args": { "model": model } }))))
            .await
            .unwrap();
    }
    follow.changed().await.unwrap();
    assert_eq!(follow.borrow_and_update().resource_version, 3);
    assert_eq!(ledger.intent().resource_version, 3);
}

#[tokio::test]
async fn work_that_panics_is_answered_and_the_ledger_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    for place in [Place::Memory, Place::Dir(dir.path().to_path_buf())] {
        let stop = stop();
        let ledger = open(place, None, &stop).await.unwrap();
        ledger.put(request(&app("a", json!({})))).await.unwrap();
        let broken: Result<(), Error> = ledger.ask(|_| panic!("for the test")).await;
        assert!(matches!(broken, Err(Error::Broken(_))), "{broken:?}");
        let again = ledger.put(request(&app("b", json!({})))).await.unwrap();
        assert_eq!(again.resource_version, 2);
        assert_eq!(models(&ledger).len(), 2);
        stop.trigger();
        stop.wait().await;
    }
}

#[tokio::test]
async fn decisions_that_were_handed_in_before_the_stop_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::Dir(dir.path().to_path_buf());
    let first = stop();
    let ledger = open(place.clone(), None, &first).await.unwrap();
    for to in 0..300 {
        ledger.decided(pb::Decision {
            application: "a".into(),
            to,
            ..Default::default()
        });
    }
    first.trigger();
    assert_eq!(first.wait().await, mobula_kit::Drained::Clean);
    let error = ledger.backup().await.unwrap_err();
    assert!(matches!(error, Error::Stopping), "{error:?}");
    let second = stop();
    let ledger = open(place, None, &second).await.unwrap();
    let found = ledger.decisions("a".into(), String::new(), 1000).await.unwrap();
    assert_eq!(found.len(), 100, "as many as are kept");
    assert_eq!(found[0].to, 299);
}

#[tokio::test]
async fn flags_are_heeded_when_they_say_something_new_and_leave_later_changes_alone_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let start = async |text: &str| {
        let stop = stop();
        let ledger = open(Place::Dir(dir.path().to_path_buf()), Some(text), &stop)
            .await
            .unwrap();
        (ledger, stop)
    };
    let end = async |stop: Stop| {
        stop.trigger();
        stop.wait().await;
    };
    let file = whole(&[app("a", json!({ "args": { "model": "m1" } }))]);
    let (ledger, stop) = start(&file).await;
    assert_eq!(models(&ledger), [("a".into(), "m1".into())]);
    let reason = ledger
        .history(pb::GetHistoryRequest::default())
        .await
        .unwrap()
        .revisions[0]
        .reason
        .clone();
    assert_eq!(reason, "--config app.yaml");
    ledger
        .put(request(&app("a", json!({ "args": { "model": "m2" } }))))
        .await
        .unwrap();
    end(stop).await;

    let (ledger, stop) = start(&file).await;
    assert_eq!(
        models(&ledger),
        [("a".into(), "m2".into())],
        "the flag says what it said before"
    );
    end(stop).await;

    let other = whole(&[app("a", json!({ "args": { "model": "m3" } }))]);
    let (ledger, stop) = start(&other).await;
    assert_eq!(models(&ledger), [("a".into(), "m3".into())]);
    end(stop).await;
    // The first file is something new again.
    let (ledger, stop) = start(&file).await;
    assert_eq!(models(&ledger), [("a".into(), "m1".into())]);
    end(stop).await;
}

#[tokio::test]
async fn a_file_with_problems_is_refused_and_what_was_there_is_still() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::Dir(dir.path().to_path_buf());
    let first = stop();
    let ledger = open(place.clone(), Some(&whole(&[app("a", json!({}))])), &first)
        .await
        .unwrap();
    first.trigger();
    first.wait().await;
    drop(ledger);
    let error = open(
        place.clone(),
        Some("applications: [{import_path: fruit:app}]"),
        &stop(),
    )
    .await;
    let error = error.unwrap_err();
    assert!(
        error.to_string().contains("applications[0].import_path"),
        "{error}"
    );
    assert_eq!(error.code(), tonic::Code::InvalidArgument);
    let ledger = open(place, None, &stop()).await.unwrap();
    assert_eq!(models(&ledger).len(), 1);
}

#[tokio::test]
async fn a_backup_is_begun_with_once() {
    let source = stop();
    let ledger = open(Place::Memory, None, &source).await.unwrap();
    ledger.put(request(&app("a", json!({})))).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("backup.json");
    std::fs::write(&file, ledger.backup().await.unwrap()).unwrap();
    let start = || Start {
        place: Place::Dir(dir.path().join("state")),
        bounds: BOUNDS,
        restore: Some(file.clone()),
        flags: None,
    };
    let first = stop();
    let restored = Ledger::open(start(), &first).await.unwrap();
    assert_eq!(models(&restored).len(), 1);
    let everything = pb::DeleteApplicationRequest::default();
    restored.delete(everything).await.unwrap();
    first.trigger();
    first.wait().await;
    let again = Ledger::open(start(), &stop()).await.unwrap();
    assert!(models(&again).is_empty(), "what was done since is not undone");
}

#[tokio::test]
async fn work_whose_caller_has_gone_is_not_begun() {
    let stop = stop();
    let ledger = open(Place::Memory, None, &stop).await.unwrap();
    let patient = ledger.put(request(&app("a", json!({}))));
    {
        // Polled once, so that it is in the queue, and given up.
        let impatient = ledger.put(request(&app("b", json!({}))));
        tokio::pin!(impatient);
        assert!(futures_once(impatient.as_mut()).await.is_none());
    }
    patient.await.unwrap();
    assert_eq!(models(&ledger).len(), 1);
}

/// What a future has if it is asked once.
async fn futures_once<F: Future + Unpin>(future: F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = std::future::ready(()) => None,
    }
}
