//! The admin port over a real socket.
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use mobula_kit::{Drained, Readiness, Stop, admin, listen};

async fn get(address: std::net::SocketAddr, path: &str) -> Option<(u16, String)> {
    let socket = tokio::net::TcpStream::connect(address).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::get(path)
        .header("host", "admin")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let response = sender.send_request(request).await.ok()?;
    let status = response.status().as_u16();
    let text = response.into_body().collect().await.unwrap().to_bytes();
    connection.abort();
    Some((status, String::from_utf8(text.to_vec()).unwrap()))
}

#[tokio::test]
async fn readiness_and_metrics_can_be_read_until_the_drain_is_over() {
    let stop = Stop::new(std::time::Duration::from_secs(5));
    let readiness = Readiness::new();
    let latch = readiness.latch("the model is loaded");
    let listener = listen::bind("admin", "127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(admin::serve(listener, readiness.clone(), stop.clone()));

    assert_eq!(get(address, "/healthz").await.unwrap(), (200, "ok\n".to_owned()));
    assert_eq!(
        get(address, "/readyz").await.unwrap(),
        (503, "waiting for: the model is loaded\n".to_owned())
    );
    latch.release();
    assert_eq!(get(address, "/readyz").await.unwrap().0, 200);
    let (code, page) = get(address, "/metrics").await.unwrap();
    assert_eq!(code, 200);
    assert!(
        page.contains("process_resident_memory_bytes") && page.contains("mobula_build_info"),
        "{page}"
    );

    let work = stop.hold("work");
    stop.trigger();
    readiness.drain();
    serving.await.unwrap().unwrap();
    assert_eq!(
        get(address, "/readyz").await.unwrap(),
        (503, "waiting for: draining\n".to_owned())
    );
    drop(work);
    assert_eq!(stop.wait().await, Drained::Clean);
    while get(address, "/healthz").await.is_some() {
        tokio::task::yield_now().await;
    }
}
