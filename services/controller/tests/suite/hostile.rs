//! Callers that mean harm, or are broken, at the REST port and the admin pages: nothing they do stops the controller, costs
//! more memory than it may, keeps a place, or changes what shall run.

use std::{net::SocketAddr, time::Duration};

use mobula_controller::{Config, Listeners};
use mobula_hostile::{
    Answered, call, flood,
    frames::{self, GOAWAY, HEADERS, PING, RESET, begun, frame, told},
    get, heads, json, pour, resident, send, send_again, soon, until_ended,
};
use mobula_kit::{Connections, Stop, channel, limit_connections, listen};
use mobula_proto::control::v1::{GetStatusRequest, serve_service_client::ServeServiceClient};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const APPLICATIONS: &str = "/api/serve/applications/";
const CALL: &str = "/mobula.control.v1.ServeService/GetStatus";
/// What hostile callers may cost together, whatever they send: what transports keep of a few connections.
const COST: usize = 64 << 20;

struct Controller {
    rest: SocketAddr,
    admin: SocketAddr,
    grpc: SocketAddr,
    before: usize,
}

async fn start() -> Controller {
    let bound = async || {
        let listener = listen::bind("test", "127.0.0.1:0".parse().unwrap());
        listener.await.unwrap()
    };
    let listeners = Listeners {
        grpc: bound().await,
        rest: bound().await,
        admin: bound().await,
    };
    let mut controller = Controller {
        rest: listeners.rest.local_addr().unwrap(),
        admin: listeners.admin.local_addr().unwrap(),
        grpc: listeners.grpc.local_addr().unwrap(),
        before: 0,
    };
    let stop = Stop::new(Duration::from_secs(2));
    tokio::spawn(mobula_controller::run(Config::default(), listeners, stop));
    controller.still_serves().await;
    controller.before = resident();
    controller
}

impl Controller {
    /// Every port, with something that decent callers ask for there.
    fn ports(&self) -> [(SocketAddr, &'static str); 3] {
        [
            (self.rest, APPLICATIONS),
            (self.admin, "/metrics"),
            (self.grpc, CALL),
        ]
    }

    /// Decent callers are answered at every port, and nothing was deployed.
    async fn still_serves(&self) {
        let status = get(self.rest, APPLICATIONS).await;
        assert_eq!(status.status, 200, "{}", status.text());
        assert_eq!(status.json()["applications"], serde_json::json!({}));
        assert_eq!(get(self.admin, "/healthz").await.status, 200);
        assert_eq!(get(self.admin, "/metrics").await.status, 200);
        let mut client = ServeServiceClient::new(channel::lazy(&self.grpc.to_string()).unwrap());
        let status = client.get_status(GetStatusRequest {}).await.unwrap();
        assert!(status.into_inner().applications.is_empty());
    }

    /// The same, and hostile callers have cost what they may.
    async fn unharmed(&self) {
        self.still_serves().await;
        let cost = resident().saturating_sub(self.before);
        assert!(cost < COST, "{cost} bytes");
    }

    fn all(&self) -> [SocketAddr; 3] {
        [self.rest, self.admin, self.grpc]
    }
}

async fn ask(address: SocketAddr, line: &str, body: impl AsRef<[u8]>) -> Answered {
    let body = body.as_ref();
    let head = format!(
        "{line} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    call(address, [head.as_bytes(), body].concat()).await
}

#[tokio::test]
async fn heads_of_any_size_are_answered() {
    let controller = start().await;
    for (address, path) in [(controller.rest, APPLICATIONS), (controller.admin, "/healthz")] {
        for head in heads::odd(path) {
            let answer = call(address, &head.bytes).await;
            assert!(
                head.statuses.contains(&answer.status),
                "{path}, {}: {}",
                head.what,
                answer.status
            );
        }
    }
    controller.unharmed().await;
}

#[tokio::test]
async fn who_says_nothing_or_half_a_head_is_let_go_of() {
    let controller = start().await;
    for address in controller.all() {
        for says in heads::halves() {
            until_ended(address, says, controller.still_serves()).await;
        }
    }
    for (address, path) in [(controller.rest, APPLICATIONS), (controller.admin, "/healthz")] {
        let says = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
        let told = until_ended(address, says.as_bytes(), controller.still_serves()).await;
        assert!(told.starts_with("HTTP/1.1 200"), "{told}");
    }
    controller.unharmed().await;
}

#[tokio::test]
async fn a_body_that_never_ends_is_told_so_in_time() {
    let controller = start().await;
    for line in [
        "PUT /api/serve/applications/",
        "PUT /api/serve/applications/a",
        "POST /api/serve/check",
        "POST /api/serve/rollback",
        "POST /api/v1/applications/a/deployments/b/scale",
        "GET /api/serve/applications/",
    ] {
        for rest in [
            "content-length: 1000\r\n\r\n{",
            "transfer-encoding: chunked\r\n\r\n1\r\n{\r\n",
        ] {
            let says = format!("{line} HTTP/1.1\r\nhost: a\r\n{rest}");
            let told = until_ended(controller.rest, says.as_bytes(), controller.still_serves()).await;
            assert!(told.starts_with("HTTP/1.1 408"), "{line}: {told}");
            assert!(told.contains("without a pause"), "{line}: {told}");
        }
    }
    // Admin pages read none.
    let says = b"GET /metrics HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n{";
    let told = until_ended(controller.admin, says, controller.still_serves()).await;
    assert!(told.starts_with("HTTP/1.1 200"), "{told}");
    controller.unharmed().await;
}

#[tokio::test]
async fn a_body_that_comes_byte_by_byte_is_cut_off_in_time() {
    let controller = start().await;
    let mut stream = TcpStream::connect(controller.rest).await.unwrap();
    let head = "PUT /api/serve/applications/ HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    controller.still_serves().await;
    tokio::time::pause();
    let (mut read, mut write) = stream.split();
    let dripping = async {
        while write.write_all(b"{").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
    };
    let mut told = String::new();
    tokio::select! {
        () = dripping => {}
        _ = read.read_to_string(&mut told) => {}
    }
    tokio::time::resume();
    assert!(told.starts_with("HTTP/1.1 408"), "{told}");
    controller.unharmed().await;
}

#[tokio::test]
async fn bodies_larger_than_any_config_are_refused_by_their_size() {
    let controller = start().await;
    for (what, body) in [
        ("lists without an end", vec![b'['; 10 << 20]),
        ("blanks", vec![b' '; 10 << 20]),
        ("lines", b"a: &a [*a]\n".repeat(1 << 20)),
        ("too much to be read on", vec![b'x'; 32 << 20]),
    ] {
        for line in [
            "PUT /api/serve/applications/",
            "PUT /api/serve/applications/a",
            "POST /api/serve/check",
        ] {
            let answer = ask(controller.rest, line, &body).await;
            assert_eq!(answer.status, 413, "{what}: {line}: {}", answer.text());
            assert!(answer.text().contains("more than"), "{}", answer.text());
        }
        let answer = ask(controller.admin, "GET /healthz", &body).await;
        assert_eq!(answer.status, 200, "{what}");
    }
    controller.still_serves().await;
}

#[tokio::test]
async fn json_and_yaml_that_are_bombs_are_the_callers_fault_and_deploy_nothing() {
    let controller = start().await;
    let mut bodies = json::bombs("applications");
    let digits = format!("{{\"applications\": {}}}", "9".repeat(100_000));
    bodies.push(("a number of a hundred thousand digits", digits));
    bodies.push(("lists to the size that is read", "[".repeat(1 << 20)));
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..30 {
        let before = format!("*a{}, ", level - 1).repeat(9);
        laughs.push_str(&format!("a{level}: &a{level} [{before}]\n"));
    }
    bodies.push(("aliases of aliases", laughs));
    bodies.push(("nested lines", "- ".repeat(50_000)));
    bodies.push(("half a pair", "applications: \"\\ud800\"".to_owned()));
    for (what, body) in &bodies {
        for line in [
            "PUT /api/serve/applications/",
            "PUT /api/serve/applications/a",
            "POST /api/v1/applications/a/deployments/b/scale",
        ] {
            let answer = ask(controller.rest, line, body).await;
            assert_eq!(answer.status, 400, "{what}: {line}: {}", answer.text());
            assert!(answer.body.len() < 4_096, "{what}: {} bytes", answer.body.len());
        }
        let answer = ask(controller.rest, "POST /api/serve/check", body).await;
        assert!([200, 400].contains(&answer.status), "{what}: {}", answer.status);
    }
    let answer = ask(
        controller.rest,
        "PUT /api/serve/applications/",
        b"{\"a\": \"\xff\xfe\"}",
    )
    .await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    controller.unharmed().await;
}

#[tokio::test]
async fn broken_frames_end_their_connection_and_nobody_elses() {
    let controller = start().await;
    for (address, path) in controller.ports() {
        for (what, frames) in frames::broken(path) {
            let (kinds, code) = told(&send(address, &begun(&frames)).await);
            assert!(kinds.contains(&GOAWAY), "{path}, {what}: {kinds:?}");
            assert_ne!(code, Some(0), "{path}, {what}");
        }
        for head in frames::endless(path) {
            let (kinds, code) = told(&send_again(address, &head.first, &head.again, head.times).await);
            assert!(
                kinds.contains(&GOAWAY) && code != Some(0),
                "{path}, {}: {kinds:?}",
                head.what
            );
        }
        for (what, frames) in frames::large(path) {
            let (kinds, _) = told(&send(address, &begun(&frames)).await);
            let is_told = [HEADERS, RESET, GOAWAY].iter().any(|kind| kinds.contains(kind));
            assert!(is_told, "{path}, {what}: {kinds:?}");
        }
        for (_, bytes) in frames::no_frames() {
            send(address, bytes).await;
        }
        let passed_over = [frame(0x77, 0xff, 0, &[1; 100]), frame(PING, 0, 0, &[7; 8])];
        let (kinds, _) = told(&send(address, &begun(&passed_over)).await);
        assert!(kinds.contains(&PING), "{path}: {kinds:?}");
        controller.still_serves().await;
    }
    controller.unharmed().await;
}

#[tokio::test]
async fn floods_of_frames_are_bounded() {
    let controller = start().await;
    for (address, path) in controller.ports() {
        let (kinds, code) = told(&send(address, &frames::resets(path)).await);
        assert_eq!(code, Some(11), "{path}: ENHANCE_YOUR_CALM: {}", kinds.len());
        for questions in frames::questions() {
            let first = begun(&[]);
            tokio::select! {
                () = pour(address, &first, &questions) => {}
                () = soon("others are served", controller.still_serves()) => {}
            }
        }
    }
    controller.unharmed().await;
}

#[tokio::test]
async fn half_closed_connections_end() {
    let controller = start().await;
    for address in [controller.rest, controller.admin] {
        for says in [
            "",
            "GET /",
            "GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n",
            "PUT /api/serve/applications/ HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n{",
            "PUT /api/serve/applications/ HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ] {
            for _ in 0..20 {
                send(address, says.as_bytes()).await;
            }
        }
    }
    controller.unharmed().await;
}

#[tokio::test]
async fn a_flood_of_connections_takes_the_places_there_are_and_no_more() {
    limit_connections(Connections { all: 20, each: None });
    let controller = start().await;
    // Connections of those before may take a moment to be counted out.
    let (held, refused) = flood(controller.rest, 60).await;
    assert!(held.len() <= 20 && refused >= 40, "{} of 60 came in", held.len());
    // The pages that tell why have places of their own.
    let page = get(controller.admin, "/metrics").await;
    assert!(
        page.text()
            .contains("mobula_connections_refused_total{reason=\"all\"}")
    );
    drop(held);
    let free = async {
        loop {
            let mut stream = TcpStream::connect(controller.rest).await.unwrap();
            let asked = stream
                .write_all(b"GET /api/ray/version HTTP/1.1\r\nhost: a\r\n\r\n")
                .await;
            if asked.is_ok() && matches!(stream.read(&mut [0; 64]).await, Ok(1..)) {
                return;
            }
        }
    };
    soon("a place", free).await;
    // And a flood of those takes nothing of the others.
    let (held, refused) = flood(controller.admin, 150).await;
    assert!(
        held.len() <= 128 && refused >= 22,
        "{} of 150 came in",
        held.len()
    );
    assert_eq!(get(controller.rest, "/api/ray/version").await.status, 200);
    drop(held);
    let page = async {
        loop {
            let (held, _) = flood(controller.admin, 1).await;
            if !held.is_empty() {
                return;
            }
        }
    };
    soon("a page", page).await;
    controller.unharmed().await;
}
