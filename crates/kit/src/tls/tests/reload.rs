//! Certificates that change while they are in use.

use tonic_health::pb::health_check_response::ServingStatus;

use super::*;

fn reloads(result: &str) -> u64 {
    let page = crate::metrics::install().render();
    let line = format!("{RELOADS}{{result=\"{result}\"}} ");
    let value = page.lines().find_map(|row| row.strip_prefix(&line)?.parse().ok());
    value.unwrap_or_default()
}

#[tokio::test]
async fn a_new_certificate_is_for_new_connections_and_streams_run_on() {
    let (before, after) = (Authority::new(), Authority::new());
    let pair = before.issue("port", HOST);
    let live = live(&pair, None);
    let port = Port::grpc(Some(Server::new(Arc::clone(&live), true))).await;
    let address = port.address.to_string();
    let of_before = dial(before.ca(), None);
    let mut client = HealthClient::new(of_before.lazy(&address).unwrap());
    let mut watched = client
        .watch(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert!(watched.message().await.unwrap().is_some());

    let counted = reloads("ok");
    after.write(&pair, HOST, 2100);
    assert_eq!(live.look(), Found::Newer);
    assert_eq!(live.look(), Found::Same);
    assert!(reloads("ok") > counted);

    check(dial(after.ca(), None).lazy(&address).unwrap())
        .await
        .unwrap();
    let text = told(&check(of_before.lazy(&address).unwrap()).await.unwrap_err());
    assert!(text.contains("--tls-ca"), "{text}");
    // The old connection serves its stream until the end, and new calls.
    client.check(HealthCheckRequest::default()).await.unwrap();
    port.stop.trigger();
    let last = watched.message().await.unwrap().unwrap();
    assert_eq!(last.status(), ServingStatus::NotServing);
    drop((client, watched));
    port.serving.await.unwrap();
}

#[tokio::test]
async fn half_a_change_leaves_what_was_in_use_and_the_whole_one_replaces_it() {
    let authority = Authority::new();
    let pair = authority.issue("port", HOST);
    let live = live(&pair, None);
    let port = Port::grpc(Some(Server::new(Arc::clone(&live), true))).await;
    let address = port.address.to_string();
    let dial = dial(authority.ca(), None);
    let next = authority.issue("next", HOST);
    let failed = reloads("failed");

    fs::copy(&next.cert, &pair.cert).unwrap();
    assert_eq!(live.look(), Found::Broken);
    check(dial.lazy(&address).unwrap()).await.unwrap();
    fs::write(&pair.key, "-----BEGIN").unwrap();
    assert_eq!(live.look(), Found::Broken);
    fs::remove_file(&pair.key).unwrap();
    assert_eq!(live.look(), Found::Broken);
    check(dial.lazy(&address).unwrap()).await.unwrap();
    assert!(reloads("failed") > failed);

    fs::copy(&next.key, &pair.key).unwrap();
    assert_eq!(live.look(), Found::Newer);
    check(dial.lazy(&address).unwrap()).await.unwrap();
    port.end().await;
}

#[tokio::test]
async fn an_authority_that_is_taken_away_is_trusted_no_longer() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    let clients = folder.path().join("clients.pem");
    let both = [ours.ca(), theirs.ca()].map(|path| fs::read_to_string(path).unwrap());
    fs::write(&clients, both.concat()).unwrap();
    let live = live(&ours.issue("port", HOST), Some(clients.clone()));
    let port = Port::grpc(Some(Server::new(Arc::clone(&live), true))).await;
    let address = port.address.to_string();
    let stranger = dial(ours.ca(), Some(&theirs.issue("caller", &["caller"])));
    check(stranger.lazy(&address).unwrap()).await.unwrap();
    fs::write(&clients, &both[0]).unwrap();
    assert_eq!(live.look(), Found::Newer);
    // It may not come back by a session of before either.
    let refused = check(stranger.lazy(&address).unwrap()).await;
    assert!(told(&refused.unwrap_err()).contains("does not trust"));
    port.end().await;
}

#[tokio::test(start_paused = true)]
async fn files_are_looked_at_again_and_again_and_a_swapped_link_is_seen() {
    let authority = Authority::new();
    let (old, new) = (
        authority.issue("old", HOST),
        authority.issue_until("new", HOST, 2090),
    );
    let folder = tempfile::tempdir().unwrap();
    let link = |pair: &Pair| {
        for (name, file) in [("tls.crt", &pair.cert), ("tls.key", &pair.key)] {
            let next = folder.path().join("next");
            std::os::unix::fs::symlink(file, &next).unwrap();
            fs::rename(&next, folder.path().join(name)).unwrap();
        }
    };
    link(&old);
    let args = Args {
        client: ClientArgs {
            tls_cert: Some(folder.path().join("tls.crt")),
            tls_key: Some(folder.path().join("tls.key")),
            ..ClientArgs::default()
        },
        ..Args::default()
    };
    let stop = Stop::new(Duration::ZERO);
    let tls = args.open(&stop).unwrap();
    let expires = || tls.live.as_ref().unwrap().current().expires;
    let before = expires();
    link(&new);
    while expires() == before {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let page = crate::metrics::install().render();
    assert!(
        page.contains("mobula_tls_certificate_expiry_timestamp_seconds{use=\"mesh\"}"),
        "{page}"
    );
    stop.trigger();
    stop.wait().await;
}
