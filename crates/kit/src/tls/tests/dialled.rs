//! Whom a process that dials trusts, and what it says of whom it does not.

use super::*;

async fn refused(port: &Port, dial: &Dial) -> String {
    let address = format!("localhost:{}", port.address.port());
    told(&check(dial.lazy(&address).unwrap()).await.unwrap_err())
}

#[tokio::test]
async fn what_is_wrong_with_a_certificate_is_told_in_words() {
    let authority = Authority::new();
    let others = Authority::new();
    let cases = [
        (
            others.issue("other", HOST),
            "of no authority that is trusted here (--tls-ca)",
        ),
        (authority.issue_until("ended", HOST, 2001), "has ended"),
        (
            authority.issue("elsewhere", &["elsewhere.example"]),
            "is not for localhost (--tls-server-name",
        ),
    ];
    for (pair, says) in cases {
        let port = Port::grpc(Some(Server::new(live(&pair, None), true))).await;
        let text = refused(&port, &dial(authority.ca(), None)).await;
        assert!(text.contains(says), "{says}: {text}");
        port.end().await;
    }
}

#[tokio::test]
async fn one_name_may_stand_for_every_address() {
    let authority = Authority::new();
    let pair = authority.issue("mesh", &["mesh.internal"]);
    let port = Port::grpc(Some(Server::new(live(&pair, None), true))).await;
    let args = ClientArgs {
        tls_ca: Some(authority.ca()),
        tls_server_name: Some("mesh.internal".to_owned()),
        ..ClientArgs::default()
    };
    let named = Dial {
        tls: args.open().unwrap(),
        ..Dial::default()
    };
    check(named.lazy(&port.address.to_string()).unwrap())
        .await
        .unwrap();
    port.end().await;
}

#[tokio::test]
async fn an_address_that_says_https_is_never_dialled_plain() {
    let plain = Port::grpc(None).await;
    let refused = check(
        Dial::default()
            .lazy(&format!("https://{}", plain.address))
            .unwrap(),
    )
    .await;
    let text = told(&refused.unwrap_err());
    assert!(text.contains("TLS"), "{text}");
    plain.end().await;
}

#[test]
fn files_that_cannot_be_used_are_named_with_why() {
    let authority = Authority::new();
    let (one, two) = (authority.issue("one", HOST), authority.issue("two", HOST));
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text");
    fs::write(&text, "no certificate").unwrap();
    let own = |cert: &PathBuf, key: &PathBuf| Files {
        own: Some((cert.clone(), key.clone())),
        ..Files::default()
    };
    let trusting = |ca: &PathBuf| Files {
        ca: Some(ca.clone()),
        ..Files::default()
    };
    let cases = [
        (own(&one.cert, &two.key), "one.pem", "does not go with its key"),
        (own(&text, &one.key), "text", "holds no certificate"),
        (own(&one.cert, &text), "text", "holds no private key"),
        (
            own(&folder.path().join("none"), &one.key),
            "none",
            "cannot be read",
        ),
        (trusting(&text), "text", "holds no certificate"),
        (trusting(&one.key), "one.key", "holds no certificate"),
    ];
    for (files, name, why) in cases {
        let error = Live::open(Use::Mesh, files).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(name) && text.contains(why), "{text}");
        assert!(error.is_config());
        assert!(!text.contains("PRIVATE KEY"), "{text}");
    }
}
