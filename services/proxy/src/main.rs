//! `mobula-proxy`: the front door of a mesh.

use std::{net::SocketAddr, process::ExitCode};

use clap::Parser;
use mobula_kit::{channel::Dial, listen::bind, tls, token};
use mobula_proxy::{Config, Listeners};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The front door of a Mobula mesh: HTTP and gRPC for users.
#[derive(Debug, Parser)]
#[command(name = "mobula-proxy", version)]
struct Line {
    /// Address of the gRPC door.
    #[arg(long, env = "MOBULA_LISTEN", default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
    /// Address of the HTTP door.
    #[arg(long, env = "MOBULA_HTTP_LISTEN", default_value = "127.0.0.1:8000")]
    http_listen: SocketAddr,
    /// Address of the metrics and probes.
    #[arg(long, env = "MOBULA_ADMIN_LISTEN", default_value = "127.0.0.1:9100")]
    admin_listen: SocketAddr,
    #[command(flatten)]
    config: Config,
    #[command(flatten)]
    tls: tls::Args,
    #[command(flatten)]
    public_tls: tls::PublicArgs,
    #[command(flatten)]
    mesh: token::MeshArgs,
    #[command(flatten)]
    common: mobula_kit::Common,
}

fn main() -> ExitCode {
    let mut line: Line = mobula_kit::parse();
    mobula_kit::main("mobula-proxy", &line.common, |stop| async move {
        let tls = line.tls.open(&stop)?;
        let doors = line.public_tls.open(&tls, &stop)?;
        line.config.dial = Dial {
            tls: tls.client(),
            token: line.mesh.open()?,
        };
        let listeners = Listeners {
            http: bind("HTTP", line.http_listen).await?.over(doors.clone()),
            grpc: bind("gRPC", line.listen).await?.over(doors),
            admin: bind("admin pages", line.admin_listen).await?.over(tls.admin()),
        };
        mobula_proxy::run(line.config, listeners, stop).await
    })
}
