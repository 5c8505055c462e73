//! The inference service's binary.

use std::{net::SocketAddr, process::ExitCode};

use clap::Parser;
use mobula_inference::{Config, Listeners};
use mobula_kit::{Common, listen};

/// Mobula's inference worker: draws pictures from tokens.
#[derive(Debug, Parser)]
#[command(name = "mobula-inference", version)]
struct Args {
    /// Address for proxies (gRPC)
    #[arg(long, env = "MOBULA_LISTEN", default_value = "127.0.0.1:7200")]
    listen: SocketAddr,
    /// Address of the admin pages (HTTP: /metrics, /healthz, /readyz)
    #[arg(long, env = "MOBULA_ADMIN_LISTEN", default_value = "127.0.0.1:9172")]
    admin_listen: SocketAddr,
    #[command(flatten)]
    config: Config,
    #[command(flatten)]
    common: Common,
}

fn main() -> ExitCode {
    let Args {
        listen,
        admin_listen,
        config,
        common,
    } = mobula_kit::parse();
    mobula_kit::main("mobula-inference", &common, |stop| async move {
        let listeners = Listeners {
            grpc: listen::bind("gRPC", listen).await?,
            admin: listen::bind("admin", admin_listen).await?,
        };
        mobula_inference::run(config, listeners, stop).await
    })
}
