//! Doors for users with a certificate of their own, in front of a mesh where everybody else shows one: HTTPS, gRPC and gRPC-Web
//! for strangers, and nothing else for them.

use mobula_e2e::{Up, decode};

use super::{PATH, certs::Authority, curl, flags};

/// `GenerateRequest{prompt: "a red circle"}` as gRPC sends it.
const ASKED: &[u8] = b"\0\0\0\0\x0e\x12\x0ca red circle";

/// A caller of the public doors: what it trusts, and no certificate.
struct Stranger<'a> {
    ca: &'a str,
}

impl Stranger<'_> {
    async fn asks(&self, arguments: &[&str]) -> anyhow::Result<(bool, Vec<u8>)> {
        curl(&[&["--cacert", self.ca], arguments].concat()).await
    }
}

/// The picture within an answer of gRPC-Web, and the text of its trailers.
fn drawn(answer: &[u8]) -> Option<(&[u8], String)> {
    let find = |what: &[u8]| answer.windows(what.len()).position(|bytes| bytes == what);
    let picture = answer.get(find(b"\x89PNG\r\n\x1a\n")?..find(b"IEND")? + 8)?;
    let mut left = answer;
    loop {
        let (head, rest) = left.split_at_checked(5)?;
        let length = u32::from_be_bytes(head[1..].try_into().ok()?) as usize;
        let (message, rest) = rest.split_at_checked(length)?;
        if head[0] == 0x80 {
            return Some((picture, String::from_utf8_lossy(message).into_owned()));
        }
        left = rest;
    }
}

#[tokio::test]
async fn strangers_draw_over_https_and_grpc_web_with_the_public_certificate_and_reach_nothing_else()
-> anyhow::Result<()> {
    let (mesh, public) = (Authority::new(), Authority::new());
    let own = mesh.issue("mesh", &["127.0.0.1", "localhost"]);
    let shown = public.issue("public", &["127.0.0.1", "pictures.example"]);
    let mesh_ca = mesh.ca().display().to_string();
    let public_ca = public.ca().display().to_string();
    let (cert, key) = (shown.cert.display().to_string(), shown.key.display().to_string());
    let mut arguments = flags(&mesh_ca, &own).to_vec();
    arguments.extend(["--tls-client-ca", &mesh_ca, "--engine", "fake"]);
    arguments.extend(["--public-tls-cert", &cert, "--public-tls-key", &key]);
    let origin = "https://pictures.example";
    let variables = [("MOBULA_ALLOWED_ORIGINS", origin.to_owned())];
    let up = Up::start(&arguments, &variables).await?;
    let stranger = Stranger { ca: &public_ca };

    // HTTPS, by both versions of HTTP, and by the certificate's other name.
    let page = format!("https://{}{PATH}", up.http());
    let named = format!("https://pictures.example:{}{PATH}", up.http().port());
    let found = format!("pictures.example:{}:127.0.0.1", up.http().port());
    let first = stranger.asks(&["--http1.1", &page]).await?;
    assert!(first.0, "{}", up.output());
    decode(&first.1)?;
    for arguments in [
        &["--http2", page.as_str()][..],
        &["--resolve", &found, named.as_str()],
        &["--tls-max", "1.2", page.as_str()],
    ] {
        let (done, picture) = stranger.asks(arguments).await?;
        assert!(done && picture == first.1, "{arguments:?}: {}", up.output());
    }
    // Who does not trust its authority, and who speaks without TLS.
    assert!(!curl(&["--cacert", &mesh_ca, &page]).await?.0);
    for plain in [up.http(), up.grpc()] {
        let (done, said) = curl(&["--http0.9", &format!("http://{plain}/")]).await?;
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(!done || said.contains("this port speaks TLS"), "{plain}: {said}");
    }

    // gRPC-Web, as a browser's page asks it: before the call whether it may, then the call, by both versions of HTTP.
    let folder = tempfile::tempdir()?;
    let asked = folder.path().join("asked");
    std::fs::write(&asked, ASKED)?;
    let data = format!("@{}", asked.display());
    let call = format!("https://{}/mobula.image.v1.ImageService/Generate", up.grpc());
    let from = format!("origin: {origin}");
    let before = [
        "--request",
        "OPTIONS",
        "--include",
        "--header",
        &from,
        "--header",
        "access-control-request-method: POST",
        &call,
    ];
    let (done, allowed) = stranger.asks(&before).await?;
    let allowed = String::from_utf8_lossy(&allowed).to_ascii_lowercase();
    let line = format!("access-control-allow-origin: {origin}");
    assert!(done && allowed.contains(&line), "{allowed}");
    for version in ["--http1.1", "--http2"] {
        let page = [
            version,
            "--header",
            "content-type: application/grpc-web+proto",
            "--header",
            "x-grpc-web: 1",
            "--header",
            &from,
            "--data-binary",
            &data,
            &call,
        ];
        let (done, answer) = stranger.asks(&page).await?;
        let Some((picture, trailers)) = drawn(&answer).filter(|_| done) else {
            anyhow::bail!("{version}: {}", String::from_utf8_lossy(&answer));
        };
        decode(picture)?;
        assert!(trailers.contains("grpc-status:0"), "{version}: {trailers}");
    }
    let file = folder.path().join("own.png").display().to_string();
    up.told(&["imagine", "--tls-ca", &public_ca, "a red circle", "-o", &file])
        .await?;

    // The mesh itself is as closed as ever.
    let rest = format!("https://{}/api/serve/applications/", up.rest());
    for ca in [&mesh_ca, &public_ca] {
        assert!(!curl(&["--cacert", ca, &rest]).await?.0, "without a certificate");
    }
    let member = [
        "--cacert",
        &mesh_ca,
        "--cert",
        own.cert.to_str().unwrap_or_default(),
        "--key",
        own.key.to_str().unwrap_or_default(),
        &rest,
    ];
    let (done, status) = curl(&member).await?;
    assert!(
        done && String::from_utf8_lossy(&status).contains("applications"),
        "{}",
        up.output()
    );
    Ok(())
}

#[tokio::test]
async fn a_public_door_that_asks_for_certificates_draws_for_who_has_one() -> anyhow::Result<()> {
    let authority = Authority::new();
    let shown = authority.issue("public", &["127.0.0.1"]);
    let user = authority.issue("user", &["somebody"]);
    let ca = authority.ca().display().to_string();
    let text = |path: &std::path::Path| path.display().to_string();
    let (cert, key) = (text(&shown.cert), text(&shown.key));
    let public = [
        "--public-tls-cert",
        &cert,
        "--public-tls-key",
        &key,
        "--public-tls-client-ca",
        &ca,
    ];
    let up = Up::start(&[&["--engine", "fake"], &public[..]].concat(), &[]).await?;
    let page = format!("https://{}{PATH}", up.http());
    assert!(!curl(&["--cacert", &ca, &page]).await?.0);
    let (cert, key) = (text(&user.cert), text(&user.key));
    let (done, picture) = curl(&["--cacert", &ca, "--cert", &cert, "--key", &key, &page]).await?;
    assert!(done, "{}", up.output());
    decode(&picture)?;
    // Behind the doors it is plain, as it was not told otherwise.
    let status = up.told(&["status"]).await?;
    assert!(status.contains("RUNNING"), "{status}");
    Ok(())
}
