//! `mobula-preprocess`: parses its arguments, binds its ports, serves.

use std::{net::SocketAddr, process::ExitCode};

use clap::Parser;
use mobula_kit::{Common, Stop, channel::Dial, listen, tls, token};
use mobula_preprocess::{Config, Error, Listeners, run};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Mobula's preprocess service: prompts to tokens
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Where to serve gRPC
    #[arg(long, env = "MOBULA_LISTEN", default_value = "127.0.0.1:7100")]
    listen: SocketAddr,
    /// Where to serve /metrics, /healthz and /readyz
    #[arg(long, env = "MOBULA_ADMIN_LISTEN", default_value = "127.0.0.1:9171")]
    admin_listen: SocketAddr,
    #[command(flatten)]
    config: Config,
    #[command(flatten)]
    tls: tls::Args,
    #[command(flatten)]
    mesh: token::MeshArgs,
    #[command(flatten)]
    common: Common,
}

fn main() -> ExitCode {
    let Args {
        listen,
        admin_listen,
        mut config,
        tls,
        mesh,
        common,
    } = mobula_kit::parse();
    mobula_kit::main("mobula-preprocess", &common, move |stop: Stop| async move {
        let tls = tls.open(&stop)?;
        config.dial = Dial {
            tls: tls.client(),
            token: mesh.open()?,
        };
        let grpc = listen::bind("gRPC", listen).await?.over(tls.ports());
        let admin = listen::bind("admin", admin_listen).await?.over(tls.admin());
        run(config, Listeners { grpc, admin }, stop).await?;
        Ok::<(), Error>(())
    })
}
