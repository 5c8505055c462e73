//! Who is let in where tokens are set.

use std::time::Duration;

use mobula_controller::{Config, Listeners};
use mobula_kit::{Stop, channel::Dial, listen, status, token::Token};
use mobula_proto::control::v1::{
    GetStatusRequest, WatchRoutesRequest, control_service_client::ControlServiceClient,
    serve_service_client::ServeServiceClient,
};
use tonic::{Code, Status};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

fn showing(token: Option<&str>) -> Dial {
    Dial {
        token: token.and_then(Token::new),
        ..Dial::default()
    }
}

/// What people ask for.
async fn looks(address: &str, token: Option<&str>) -> Result<(), Status> {
    let mut client = ServeServiceClient::new(showing(token).link(address).unwrap());
    client.get_status(GetStatusRequest {}).await.map(|_| ())
}

/// What proxies ask for.
async fn follows(address: &str, token: Option<&str>) -> Result<(), Status> {
    let mut client = ControlServiceClient::new(showing(token).link(address).unwrap());
    let request = WatchRoutesRequest {
        proxy_id: "proxy".into(),
        ..WatchRoutesRequest::default()
    };
    client.watch_routes(request).await.map(|_| ())
}

#[tokio::test]
async fn each_token_opens_what_it_is_for_and_health_needs_none() {
    let bound = async || {
        listen::bind("test", "127.0.0.1:0".parse().unwrap())
            .await
            .unwrap()
    };
    let listeners = Listeners {
        grpc: bound().await,
        rest: bound().await,
        admin: bound().await,
    };
    let address = listeners.grpc.local_addr().unwrap().to_string();
    let config = Config {
        admin_token: Token::new("people"),
        mesh_token: Token::new("workers"),
        ..Config::default()
    };
    let stop = Stop::new(Duration::from_secs(2));
    let task = tokio::spawn(mobula_controller::run(config, listeners, stop.clone()));

    looks(&address, Some("people")).await.unwrap();
    follows(&address, Some("workers")).await.unwrap();
    for (token, reason) in [(None, "TOKEN_MISSING"), (Some("workers"), "TOKEN_WRONG")] {
        let refused = looks(&address, token).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
        assert_eq!(status::reason(&refused).as_deref(), Some(reason));
        assert!(refused.message().contains("MOBULA_ADMIN_TOKEN"), "{refused}");
    }
    for (token, reason) in [(None, "TOKEN_MISSING"), (Some("people"), "TOKEN_WRONG")] {
        let refused = follows(&address, token).await.unwrap_err();
        assert_eq!(status::reason(&refused).as_deref(), Some(reason));
        assert!(refused.message().contains("MOBULA_MESH_TOKEN"), "{refused}");
    }
    let channel = mobula_kit::channel::lazy(&address).unwrap();
    HealthClient::new(channel)
        .check(HealthCheckRequest::default())
        .await
        .unwrap();
    stop.trigger();
    task.await.unwrap().unwrap();
}
