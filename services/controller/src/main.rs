//! The controller's binary.

use std::{net::SocketAddr, process::ExitCode};

use clap::Parser;
use mobula_controller::{Config, Listeners};
use mobula_kit::{Common, listen, tls, token};

/// Mobula's controller: places replicas on workers and tells proxies where they are.
#[derive(Debug, Parser)]
#[command(name = "mobula-controller", version)]
struct Args {
    /// Address for workers, proxies and tools (gRPC)
    #[arg(long, env = "MOBULA_LISTEN", default_value = "127.0.0.1:7265")]
    listen: SocketAddr,
    /// Address of Ray Serve's REST API (HTTP)
    #[arg(long, env = "MOBULA_REST_LISTEN", default_value = "127.0.0.1:8265")]
    rest_listen: SocketAddr,
    /// Address of the admin pages (HTTP: /metrics, /healthz, /readyz)
    #[arg(long, env = "MOBULA_ADMIN_LISTEN", default_value = "127.0.0.1:9265")]
    admin_listen: SocketAddr,
    #[command(flatten)]
    config: Config,
    #[command(flatten)]
    tls: tls::Args,
    #[command(flatten)]
    admin: token::AdminArgs,
    #[command(flatten)]
    mesh: token::MeshArgs,
    #[command(flatten)]
    common: Common,
}

fn main() -> ExitCode {
    let Args {
        listen,
        rest_listen,
        admin_listen,
        mut config,
        tls,
        admin,
        mesh,
        common,
    } = mobula_kit::parse();
    mobula_kit::main("mobula-controller", &common, |stop| async move {
        config.worker_variables = [tls.variables(), mesh.variables()].concat();
        config.admin_token = admin.open()?;
        config.mesh_token = mesh.open()?;
        let tls = tls.open(&stop)?;
        let listeners = Listeners {
            grpc: listen::bind("gRPC", listen).await?.over(tls.ports()),
            rest: listen::bind("REST", rest_listen).await?.over(tls.ports()),
            admin: listen::bind("admin", admin_listen).await?.over(tls.admin()),
        };
        mobula_controller::run(config, listeners, stop).await
    })
}
