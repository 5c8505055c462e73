//! A whole mesh under mutual TLS or with tokens, and what it says to who comes without.

use std::path::Path;

use mobula_e2e::{PATIENCE, Up, decode, get, send};
use mobula_kit::{channel::Dial, tls::ClientArgs};
use mobula_proto::control::v1::{GetStatusRequest, serve_service_client::ServeServiceClient};
use tokio::process::Command;

use self::certs::{Authority, Pair};

mod closed;
mod public;

#[path = "../../../crates/kit/src/tls/tests/certs.rs"]
mod certs;

const PATH: &str = "/imagine?prompt=a%20red%20circle&seed=7&img_size=128";

/// Flags for who dials the mesh.
fn flags<'a>(ca: &'a str, pair: &'a Pair) -> [&'a str; 6] {
    let text = |path: &'a Path| path.to_str().unwrap_or_default();
    [
        "--tls-ca",
        ca,
        "--tls-cert",
        text(&pair.cert),
        "--tls-key",
        text(&pair.key),
    ]
}

/// What curl says: its exit status and what it read.
async fn curl(arguments: &[&str]) -> anyhow::Result<(bool, Vec<u8>)> {
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--fail-with-body", "--max-time", "30"])
        .args(arguments);
    let output = tokio::time::timeout(PATIENCE, command.output()).await??;
    Ok((output.status.success(), output.stdout))
}

#[tokio::test]
async fn a_mesh_under_mutual_tls_draws_for_who_has_a_certificate_and_for_nobody_else() -> anyhow::Result<()> {
    let authority = Authority::new();
    let pair = authority.issue("mesh", &["127.0.0.1", "localhost"]);
    let caller = authority.issue("caller", &["somebody"]);
    let ca = authority.ca().display().to_string();
    let mut arguments = flags(&ca, &pair).to_vec();
    arguments.extend(["--tls-client-ca", &ca, "--engine", "fake"]);
    let up = Up::start(&arguments, &[]).await?;
    let own = flags(&ca, &caller);

    // A client that is not ours, over HTTP, and what it reads without a certificate or without TLS.
    let page = format!("https://{}{PATH}", up.http());
    let (cert, key) = (own[3], own[5]);
    let (done, picture) = curl(&["--cacert", &ca, "--cert", cert, "--key", key, &page]).await?;
    assert!(done, "{}", up.output());
    decode(&picture)?;
    let (done, _) = curl(&["--cacert", &ca, &page]).await?;
    assert!(!done, "nobody draws without a certificate");
    for plain in [up.http(), up.rest()] {
        let (done, said) = curl(&[&format!("http://{plain}/")]).await?;
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(!done && said.contains("this port speaks TLS"), "{plain}: {said}");
    }

    // Our own commands.
    let imagine = [
        &["imagine"],
        &own[..],
        &["a red circle", "--seed", "7", "-o", "own.png"],
    ]
    .concat();
    up.told(&imagine).await?;
    let status = up.told(&[&["status"], &own[..]].concat()).await?;
    assert!(status.contains("RUNNING"), "{status}");
    let plain = up.mobula(&["status"]).await?;
    let said = String::from_utf8_lossy(&plain.stderr).into_owned();
    assert!(
        !plain.status.success() && said.contains("this port speaks TLS"),
        "{said}"
    );

    // Every worker's port.
    let args = ClientArgs {
        tls_ca: Some(authority.ca()),
        tls_cert: Some(caller.cert.clone()),
        tls_key: Some(caller.key.clone()),
        tls_server_name: None,
    };
    let dial = Dial {
        tls: args.open()?,
        ..Dial::default()
    };
    let mut client = ServeServiceClient::new(dial.lazy(&up.controller().to_string())?);
    let workers = client.get_status(GetStatusRequest {}).await?.into_inner().workers;
    assert!(workers.len() >= 2, "{workers:?}");
    for worker in workers {
        let stranger = ServeServiceClient::new(mobula_kit::channel::lazy(&worker.address)?);
        let refused = stranger
            .clone()
            .get_status(GetStatusRequest {})
            .await
            .unwrap_err();
        let said = mobula_kit::chain(&refused);
        assert!(
            said.contains("this port speaks TLS"),
            "{}: {said}",
            worker.worker_id
        );
    }
    Ok(())
}

#[tokio::test]
async fn what_changes_a_mesh_wants_the_token_and_drawing_does_not() -> anyhow::Result<()> {
    const ADMIN: &str = "s3cret-of-people";
    const MESH: &str = "s3cret-of-workers";
    let variables = [
        ("MOBULA_ADMIN_TOKEN", ADMIN.to_owned()),
        ("MOBULA_MESH_TOKEN", MESH.to_owned()),
    ];
    let up = Up::start(&["--engine", "fake"], &variables).await?;
    let answer = get(up.http(), PATH).await?;
    assert_eq!(answer.status, 200, "{}", answer.text());

    let applications = "/api/serve/applications/";
    let answer = get(up.rest(), applications).await?;
    assert_eq!(answer.status, 401, "{}", answer.text());
    assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"mobula\"");
    assert!(
        answer.text().contains("Authorization: Bearer"),
        "{}",
        answer.text()
    );
    for (token, status) in [(ADMIN, 200), (MESH, 401)] {
        let request = http::Request::get(applications).header("authorization", format!("Bearer {token}"));
        let answer = send(up.rest(), request.body(String::new())?).await?;
        assert_eq!(answer.status, status, "{}", answer.text());
    }

    let refused = up.mobula(&["status"]).await?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("MOBULA_ADMIN_TOKEN"),
        "{said}"
    );
    up.write("token", ADMIN)?;
    let status = up.told(&["status", "--admin-token-file", "token"]).await?;
    assert!(status.contains("RUNNING"), "{status}");

    for process in up.processes() {
        let line = std::fs::read_to_string(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
        assert!(!line.contains("s3cret"), "{line}");
        let environment = std::fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
        let environment = String::from_utf8_lossy(&environment).into_owned();
        let may_know = ["mobula", "mobula-controller"].contains(&process.name.as_str());
        assert!(
            may_know || !environment.contains(ADMIN),
            "{} knows the token of people",
            process.name
        );
    }
    assert!(!up.output().contains("s3cret"), "{}", up.output());
    Ok(())
}
