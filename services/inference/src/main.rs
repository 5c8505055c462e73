//! The inference service's binary.

use std::{net::SocketAddr, process::ExitCode};

use clap::{Parser, Subcommand};
use mobula_inference::{Config, Listeners, prepare};
use mobula_kit::{Common, channel::Dial, listen, tls, token};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Mobula's inference worker: draws pictures from tokens.
#[derive(Debug, Parser)]
#[command(
    name = "mobula-inference",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Address for proxies (gRPC)
    #[arg(long, env = "MOBULA_LISTEN", default_value = "127.0.0.1:7200")]
    listen: SocketAddr,
    /// Address of the admin pages (HTTP: /metrics, /healthz, /readyz)
    #[arg(long, env = "MOBULA_ADMIN_LISTEN", default_value = "127.0.0.1:9172")]
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

/// What it does instead of serving.
#[derive(Debug, Subcommand)]
enum Command {
    /// Look at a model folder, prepare it for serving, and measure it
    Prepare(prepare::Args),
}

fn main() -> ExitCode {
    let Args {
        command,
        listen,
        admin_listen,
        mut config,
        tls,
        mesh,
        common,
    } = mobula_kit::parse();
    if let Some(Command::Prepare(args)) = command {
        return match prepare::run(&args, &mut std::io::stdout()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        };
    }
    mobula_kit::main("mobula-inference", &common, |stop| async move {
        let tls = tls.open(&stop)?;
        config.dial = Dial {
            tls: tls.client(),
            token: mesh.open()?,
        };
        let listeners = Listeners {
            grpc: listen::bind("gRPC", listen).await?.over(tls.ports()),
            admin: listen::bind("admin", admin_listen).await?.over(tls.admin()),
        };
        mobula_inference::run(config, listeners, stop).await
    })
}
