//! A null server on free ports, and command lines run in this process.

use std::path::Path;

use clap::Parser;
use mobula_loadtest::null::{Behaviour, Server};
use mobula_loadtest::{Args, Error, Outcome, execute};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

pub(crate) async fn null(behaviour: Behaviour) -> Server {
    Server::start("127.0.0.1:0", "127.0.0.1:0", 1, behaviour)
        .await
        .unwrap()
}

/// Both doors of a null server, as targets.
pub(crate) fn doors(server: &Server) -> [String; 2] {
    [server.grpc.to_string(), format!("http://{}", server.http)]
}

pub(crate) async fn run(arguments: &[&str]) -> Result<Outcome, Error> {
    run_until(arguments, &CancellationToken::new()).await
}

pub(crate) async fn run_until(arguments: &[&str], stop: &CancellationToken) -> Result<Outcome, Error> {
    let words = std::iter::once("mobula-loadtest").chain(arguments.iter().copied());
    let args = Args::try_parse_from(words).unwrap();
    Box::pin(execute(&args, stop)).await
}

/// Runs a command line and gives back its report as JSON as well.
pub(crate) async fn report(arguments: &[&str]) -> (Outcome, Value) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    let mut all = arguments.to_vec();
    all.extend(["--json", path.to_str().unwrap()]);
    let outcome = run(&all).await.unwrap();
    (outcome, json(&path))
}

pub(crate) fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}
