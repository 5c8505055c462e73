//! Clients that begin something and do not go on with it, and who are there all the while: they answer every ping. Time is
//! stopped once all is set up, and goes on by itself to the next thing that is due whenever nothing else happens.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use crate::common::{GRACE, LARGE, ask, client, serve, serve_for};
use axum::{Router, routing::any};
use bytes::Bytes;
use futures::{StreamExt as _, channel::mpsc};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mobula_hostile::{pause, resident, soon};
use mobula_kit::{Stop, channel, listen, metrics, web::Origins};
use mobula_proto::control::v1::{RestoreRequest, serve_service_client::ServeServiceClient};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Notify,
    time::Instant,
};

/// A body that is given piece by piece.
type Pieces = StreamBody<mpsc::UnboundedReceiver<Result<Frame<Bytes>, Infallible>>>;

/// Gives a body its pieces; its end is the drop.
type Sender = mpsc::UnboundedSender<Result<Frame<Bytes>, Infallible>>;

/// A connection over HTTP/2 whose streams begin with so much room.
async fn connect(address: SocketAddr, window: u32) -> SendRequest<Pieces> {
    let socket = TcpStream::connect(address).await.unwrap();
    // Else answers to pings wait in the system, on whose clock the test has no hand.
    socket.set_nodelay(true).unwrap();
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(window)
        .handshake(TokioIo::new(socket))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

/// Begins a request with these bytes; more may follow, until the sender is dropped.
fn begin(
    sender: &mut SendRequest<Pieces>,
    head: http::request::Builder,
    bytes: &[u8],
) -> (
    Sender,
    impl Future<Output = hyper::Result<Response<Incoming>>> + use<>,
) {
    let (pieces, body) = mpsc::unbounded();
    if !bytes.is_empty() {
        let first = Frame::data(Bytes::copy_from_slice(bytes));
        pieces.unbounded_send(Ok(first)).unwrap();
    }
    let request = head.body(StreamBody::new(body)).unwrap();
    (pieces, sender.send_request(request))
}

fn call(address: SocketAddr, method: &str) -> http::request::Builder {
    Request::post(format!(
        "http://{address}/mobula.control.v1.ServeService/{method}"
    ))
    .header("content-type", "application/grpc")
    .header("te", "trailers")
}

/// Lets what is under way come to rest before the clock stops.
async fn at_rest(server: SocketAddr) {
    client(server).get_status(ask("answer")).await.unwrap();
    pause();
}

/// What the page says of peers that were let go of.
fn stalled(what: &str) -> bool {
    let page = metrics::render(&metrics::install());
    page.contains(&format!("mobula_stalled_total{{what=\"{what}\"}}"))
}

#[tokio::test]
async fn a_call_whose_message_does_not_come_whole_is_answered_that_its_time_is_over() {
    let server = serve(Stop::new(GRACE), None).await;
    // Three of a hundred bytes; half of the length; nothing; a whole message and no end; a stream's second message cut off.
    let cut = [0, 0, 0, 0, 100, 1, 2, 3];
    let then_cut = [0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 1];
    for (method, bytes) in [
        ("GetStatus", &cut[..]),
        ("GetStatus", &cut[..3]),
        ("GetStatus", &[]),
        ("GetStatus", &[0; 5]),
        ("Restore", &cut),
        ("Restore", &then_cut),
    ] {
        let mut sender = connect(server.address, 1 << 20).await;
        let (_pieces, answer) = begin(&mut sender, call(server.address, method), bytes);
        let answer = tokio::spawn(answer);
        at_rest(server.address).await;
        let start = Instant::now();
        let answer = answer.await.unwrap().unwrap();
        assert_eq!(answer.headers()["grpc-status"], "4", "{method} {bytes:?}");
        let why = answer.headers()["grpc-message"].to_str().unwrap();
        assert!(why.contains("did%20not%20arrive%20in%20time"), "{why}");
        assert!(start.elapsed() < Duration::from_secs(40), "{:?}", start.elapsed());
        // The connection is as good as ever.
        let (_, again) = begin(&mut sender, call(server.address, "GetStatus"), &[0; 5]);
        assert_eq!(again.await.unwrap().status(), StatusCode::OK);
        tokio::time::resume();
    }
    assert!(stalled("message"));
}

#[tokio::test]
async fn a_browsers_call_whose_message_does_not_come_whole_is_answered_the_same() {
    let server = serve_for(Stop::new(GRACE), None, Some(Origins::Any)).await;
    let head = "POST /mobula.control.v1.ServeService/GetStatus HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc-web+proto\r\n\
                content-length: 105\r\n\r\n\0\0\0\0\x64abc";
    let told = mobula_hostile::until_ended(server.address, head.as_bytes(), async {}).await;
    assert!(
        told.contains("grpc-status: 4") || told.contains("grpc-status:4"),
        "{told}"
    );
}

#[tokio::test]
async fn a_stream_of_messages_may_be_silent_between_them_as_long_as_it_likes() {
    let server = serve(Stop::new(GRACE), None).await;
    let (pieces, stream) = mpsc::unbounded();
    let mut control = ServeServiceClient::new(channel::lazy(&server.address.to_string()).unwrap());
    let restoring = tokio::spawn(async move { control.restore(stream).await });
    pieces.unbounded_send(RestoreRequest::default()).unwrap();
    server.knobs.begun.notified().await;
    at_rest(server.address).await;
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    let data = Bytes::from(vec![7; 1 << 20]);
    pieces.unbounded_send(RestoreRequest { data }).unwrap();
    server.knobs.begun.notified().await;
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    drop(pieces);
    restoring.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_answer_that_is_not_taken_is_let_go_of_and_others_on_its_connection_are_served() {
    let server = serve(Stop::new(GRACE), None).await;
    let mut before = None;
    // Room for nothing, for one byte, and for some.
    for window in [0, 1, 65_535, 65_535, 65_535] {
        let mut sender = connect(server.address, window).await;
        let large = || call(server.address, "GetStatus").header("x-do", "large");
        let mut unread = Vec::new();
        for _ in 0..16 {
            let (_, answer) = begin(&mut sender, large(), &[0; 5]);
            unread.push(answer.await.unwrap());
        }
        at_rest(server.address).await;
        tokio::time::sleep(Duration::from_secs(70)).await;
        for answer in unread {
            let read = answer.into_body().collect().await;
            let error = read.err().map(|error| format!("{error:?}")).unwrap_or_default();
            assert!(error.contains("CANCEL"), "{window}: {error}");
        }
        // What the first round took from the system is there for the next ones.
        let held = resident().saturating_sub(*before.get_or_insert_with(resident));
        assert!(held < 16 * LARGE, "{window}: {held} bytes are held");
        if window > 0 {
            let (_, again) = begin(&mut sender, call(server.address, "GetStatus"), &[0; 5]);
            let body = again.await.unwrap().into_body().collect().await.unwrap();
            assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
        }
        tokio::time::resume();
    }
    assert!(stalled("answer"));
}

#[tokio::test]
async fn a_reader_who_is_slow_gets_the_whole_answer() {
    let server = serve(Stop::new(GRACE), None).await;
    let mut sender = connect(server.address, 65_535).await;
    let large = call(server.address, "GetStatus").header("x-do", "large");
    let (_, answer) = begin(&mut sender, large, &[0; 5]);
    let mut body = answer.await.unwrap().into_body();
    at_rest(server.address).await;
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let piece = frame.unwrap().data_ref().map_or(0, Bytes::len);
        length += piece;
        // Four kilobytes a second.
        tokio::time::sleep(Duration::from_millis(piece as u64 / 4)).await;
    }
    assert!(length > LARGE, "{length}");
}

/// A page that reads what it is sent, and one that is too large for any window.
async fn pages() -> (SocketAddr, Arc<Notify>) {
    let listener = listen::bind("HTTP", "127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    let dropped = Arc::<Notify>::default();
    let bell = Arc::clone(&dropped);
    let large = async move || {
        let guard = Bell(Arc::clone(&bell));
        let pieces = futures::stream::repeat(Bytes::from_static(&[7; 1 << 20])).take(256);
        axum::body::Body::from_stream(pieces.map(move |piece| {
            let _held = &guard;
            Ok::<_, Infallible>(piece)
        }))
    };
    let app = Router::new()
        .route("/read", any(async |body: String| body))
        .route("/large", any(large));
    tokio::spawn(mobula_kit::http::serve(listener, app, Stop::new(GRACE)));
    (address, dropped)
}

struct Bell(Arc<Notify>);

impl Drop for Bell {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

async fn read(address: SocketAddr, says: &str) -> String {
    mobula_hostile::until_ended(address, says.as_bytes(), async {}).await
}

#[tokio::test]
async fn a_body_over_http_that_does_not_go_on_is_answered_408_with_words() {
    let (address, _) = pages().await;
    for head in [
        "content-length: 100\r\n\r\nabc",
        "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ] {
        let told = read(address, &format!("POST /read HTTP/1.1\r\nhost: a\r\n{head}")).await;
        assert!(told.starts_with("HTTP/1.1 408"), "{told}");
        assert!(told.contains("did not arrive in time"), "{told}");
    }
    let mut sender = connect(address, 1 << 20).await;
    let (_, decent) = begin(
        &mut sender,
        Request::post(format!("http://{address}/read")),
        b"abc",
    );
    assert_eq!(decent.await.unwrap().status(), StatusCode::OK);
    pause();
    let (_pieces, answer) = begin(
        &mut sender,
        Request::post(format!("http://{address}/read")),
        b"abc",
    );
    let answer = tokio::spawn(answer);
    assert_eq!(
        answer.await.unwrap().unwrap().status(),
        StatusCode::REQUEST_TIMEOUT
    );
    let (pieces, answer) = begin(
        &mut sender,
        Request::post(format!("http://{address}/read")),
        b"abc",
    );
    let answer = tokio::spawn(answer);
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(15)).await;
        let more = vec![b'd'; 20 << 10];
        pieces.unbounded_send(Ok(Frame::data(more.into()))).unwrap();
    }
    drop(pieces);
    let body = answer
        .await
        .unwrap()
        .unwrap()
        .into_body()
        .collect()
        .await
        .unwrap();
    assert_eq!(body.to_bytes().len(), 3 + 3 * (20 << 10), "slow is not late");
    assert!(stalled("body"));
}

#[tokio::test]
async fn an_answer_over_http_1_that_is_not_read_ends_its_connection() {
    let (address, dropped) = pages().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n";
    stream.write_all(head).await.unwrap();
    stream.readable().await.unwrap();
    pause();
    let start = Instant::now();
    dropped.notified().await;
    assert!(
        start.elapsed() < Duration::from_secs(200),
        "{:?}",
        start.elapsed()
    );
    let mut read = Vec::new();
    let _ = stream.read_to_end(&mut read).await;
    assert!(read.len() < 256 << 20, "{}", read.len());
    assert!(stalled("connection"));
}

#[tokio::test]
async fn an_answer_over_http_2_that_is_not_read_is_let_go_of() {
    let (address, dropped) = pages().await;
    let mut sender = connect(address, 65_535).await;
    let (pieces, answer) = begin(&mut sender, Request::get(format!("http://{address}/large")), b"");
    drop(pieces);
    let unread = answer.await.unwrap();
    pause();
    dropped.notified().await;
    assert!(unread.into_body().collect().await.is_err());
    tokio::time::resume();
    let (pieces, answer) = begin(
        &mut sender,
        Request::post(format!("http://{address}/read")),
        b"abc",
    );
    drop(pieces);
    let answer = soon("an answer", answer).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
}
