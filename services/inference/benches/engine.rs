//! The service against bare ONNX Runtime sessions, on the same rows and cores: images per second and their ratio.
//!
//!     cargo bench -p mobula-inference --bench engine -- --model models/demo
//!
//! The bare side runs in a process of its own: UNet calls of `--rows` rows and VAE decodings of the pictures they make,
//! in the plainest loop there is, with no scheduler, guidance, text, PNG or network. The service side is asked over gRPC on a
//! socket by `--callers` callers, each of whom waits for its picture before it asks for the next. The two take turns.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use mobula_inference::{Config, Loader, Service};
use mobula_kit::worker::{ReplicaSpec, ReplicaState, Replicas, WorkerKind};
use mobula_kit::{Readiness, Stop, channel, grpc};
use mobula_proto::inference::v1::GenerateRequest;
use mobula_proto::inference::v1::generate_response::Event;
use mobula_proto::inference::v1::inference_service_client::InferenceServiceClient;
use mobula_proto::inference::v1::inference_service_server::InferenceServiceServer;
use ort::session::Session;
use ort::value::TensorRef;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tonic::transport::Channel;

/// The service against bare ONNX Runtime sessions.
#[derive(Parser, Clone, Debug)]
struct Args {
    /// Model folder; its UNet must take a timestep per row as it is
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo"))]
    model: PathBuf,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Measurements of each side
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Callers at a time
    #[arg(long, default_value_t = 16)]
    callers: usize,
    /// Rows in one UNet call
    #[arg(long, default_value_t = 16)]
    rows: usize,
    /// Denoising steps
    #[arg(long, default_value_t = 20)]
    steps: u32,
    /// Width and height, pixels
    #[arg(long, default_value_t = 128)]
    size: u32,
    /// Threads that compute; by default one per core
    #[arg(long)]
    threads: Option<usize>,
    /// Let the service's idle threads spin
    #[arg(long)]
    spin: bool,
    /// Where ONNX Runtime is
    #[arg(long, env = "ORT_DYLIB_PATH", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.ort/lib/libonnxruntime.so"))]
    onnxruntime: PathBuf,
    /// Token ids of the prompt, separated by commas; by default a text without words
    #[arg(long, value_delimiter = ',')]
    ids: Vec<u32>,
    /// Measure the service with the fake engine instead, and nothing beside it
    #[arg(long)]
    fake: bool,
    /// Draw one picture with these ids to a file, and measure nothing
    #[arg(long)]
    save: Option<PathBuf>,
    /// Seed of the picture to save
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Measure the bare sessions and print images per second
    #[arg(long, hide = true)]
    bare: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if args.bare {
        println!("{}", bare(&args)?);
        return Ok(());
    }
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(compare(args))
}

async fn compare(args: Args) -> Result<()> {
    let side = Side::start(&args).await?;
    if let Some(path) = &args.save {
        std::fs::write(path, side.draw(args.seed).await?)?;
        return Ok(());
    }
    side.measure(Duration::from_secs(2)).await?;
    if args.fake {
        println!(
            "{:.0} images/s",
            side.measure(Duration::from_secs(args.seconds)).await?
        );
        return Ok(());
    }
    let (mut bare, mut service) = (Vec::new(), Vec::new());
    println!("round   bare images/s   service images/s   ratio");
    for round in 1..=args.rounds {
        bare.push(bare_in_child().await?);
        service.push(side.measure(Duration::from_secs(args.seconds)).await?);
        let (b, s) = (bare[round - 1], service[round - 1]);
        println!("{round:>5} {b:>15.2} {s:>18.2} {:>6.1}%", 100.0 * s / b);
    }
    let (b, s) = (median(&mut bare), median(&mut service));
    println!("median {b:>14.2} {s:>18.2} {:>6.1}%", 100.0 * s / b);
    let rows = f64::from(args.steps) * 2.0;
    println!("rows/s {:>14.0} {:>18.0}", b * rows, s * rows);
    side.stop.trigger();
    side.stop.wait().await;
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Runs this program again as the bare side, so that the two share neither threads nor memory.
async fn bare_in_child() -> Result<f64> {
    let args: Vec<String> = std::env::args().skip(1).chain(["--bare".to_owned()]).collect();
    let program = std::env::current_exe()?;
    let output = tokio::task::spawn_blocking(move || Command::new(program).args(args).output()).await??;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)?
        .trim()
        .parse()
        .context("the bare side printed no number")
}

/// The plainest loop: as many UNet calls as a picture has steps, then the decodings.
fn bare(args: &Args) -> Result<f64> {
    let threads = args
        .threads
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let environment = ort::init_from(&args.onnxruntime)?.with_telemetry(false).build()?;
    let open = |part: &str| -> Result<Session> {
        let builder = Session::builder(&environment)?.with_intra_threads(threads);
        let mut builder = builder.map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(builder.commit_from_file(args.model.join(part).join("model.onnx"))?)
    };
    let (mut unet, mut decoder) = (open("unet")?, open("vae_decoder")?);
    let width = unet.inputs()[2]
        .dtype()
        .tensor_shape()
        .map_or(0, |shape| shape[2]);
    let (width, side) = (usize::try_from(width)?, args.size as usize / 8);
    let (rows, pictures) = (args.rows, args.rows / 2);
    let samples = vec![0.3_f32; rows * 4 * side * side];
    let timesteps = vec![500.0_f32; rows];
    let states = vec![0.1_f32; rows * 77 * width];
    let latents = vec![0.3_f32; 4 * 4 * side * side];
    let mut batch = || -> Result<()> {
        for _ in 0..args.steps {
            unet.run(vec![
                (
                    Cow::from("sample"),
                    TensorRef::from_array_view(([rows, 4, side, side], &samples[..]))?.into(),
                ),
                (
                    Cow::from("timestep"),
                    TensorRef::from_array_view(([rows], &timesteps[..]))?.into(),
                ),
                (Cow::from("encoder_hidden_states"), {
                    TensorRef::from_array_view(([rows, 77, width], &states[..]))?.into()
                }),
            ]
                as Vec<(Cow<'_, str>, ort::session::SessionInputValue<'_>)>)?;
        }
        for _ in 0..pictures.div_ceil(4) {
            decoder.run(ort::inputs![TensorRef::from_array_view((
                [4, 4, side, side],
                &latents[..]
            ))?])?;
        }
        Ok(())
    };
    batch()?;
    let begun = Instant::now();
    let mut drawn = 0;
    while begun.elapsed() < Duration::from_secs(args.seconds) {
        batch()?;
        drawn += pictures;
    }
    Ok(drawn as f64 / begun.elapsed().as_secs_f64())
}

/// The service with one replica.
struct Side {
    client: InferenceServiceClient<Channel>,
    request: GenerateRequest,
    callers: usize,
    stop: Stop,
}

impl Side {
    async fn start(args: &Args) -> Result<Self> {
        let config = Config {
            onnxruntime: Some(args.onnxruntime.clone()),
            threads: args.threads,
            spin: args.spin,
            max_batch_rows: args.rows,
            ..Config::default()
        };
        let stop = Stop::new(Duration::from_secs(5));
        let replicas = Replicas::new(Loader::new(&config), stop.clone());
        replicas.assign(ReplicaSpec {
            replica_id: "bench".into(),
            kind: WorkerKind::Inference.into(),
            model: std::path::absolute(&args.model)?.display().to_string(),
            engine: if args.fake { "fake".into() } else { "onnx".into() },
            max_ongoing_requests: args.callers as u32,
            ..ReplicaSpec::default()
        });
        let begun = Instant::now();
        let model = loop {
            let changed = replicas.changed();
            let report = replicas.reports().pop().context("the replica is gone")?;
            if report.state() == ReplicaState::Failed {
                bail!(report.message);
            }
            if report.state() == ReplicaState::Running {
                break report.model.context("the replica has no model")?;
            }
            changed.await;
        };
        println!("the replica is ready after {:?}", begun.elapsed());
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let address = listener.local_addr()?;
        let server = grpc::Server::new("bench").add(InferenceServiceServer::new(Service::new(replicas)));
        stop.spawn("server", server.serve(listener, Readiness::new(), stop.clone()));
        let ids = if args.ids.is_empty() {
            vec![0; 77]
        } else {
            args.ids.clone()
        };
        ensure!(ids.len() == 77, "{} ids, expected 77", ids.len());
        let request = GenerateRequest {
            replica_id: "bench".into(),
            negative_prompt_ids: std::iter::once(ids[0])
                .chain(std::iter::repeat_n(ids[76], 76))
                .collect(),
            prompt_ids: ids,
            width: args.size,
            height: args.size,
            steps: args.steps,
            guidance_scale: model.default_guidance_scale.max(1.5),
            scheduler: model.default_scheduler,
            ..GenerateRequest::default()
        };
        let client = InferenceServiceClient::new(channel::lazy(&address.to_string())?);
        Ok(Self {
            client,
            request,
            callers: args.callers,
            stop,
        })
    }

    /// Draws one picture; returns the PNG.
    async fn draw(&self, seed: u64) -> Result<Vec<u8>> {
        let request = GenerateRequest {
            seeds: vec![seed],
            ..self.request.clone()
        };
        let mut stream = self.client.clone().generate(request).await?.into_inner();
        let mut png = None;
        while let Some(response) = stream.message().await? {
            if let Some(Event::Image(image)) = response.event {
                png = Some(image.png.to_vec());
            }
        }
        png.context("there was no picture")
    }

    /// Images per second with all callers asking.
    async fn measure(&self, duration: Duration) -> Result<f64> {
        let begun = Instant::now();
        let caller = |caller: usize| async move {
            let mut drawn = 0_u64;
            while begun.elapsed() < duration {
                self.draw(((caller as u64) << 32) + drawn).await?;
                drawn += 1;
            }
            anyhow::Ok(drawn)
        };
        let drawn = futures::future::try_join_all((0..self.callers).map(caller)).await?;
        Ok(drawn.iter().sum::<u64>() as f64 / begun.elapsed().as_secs_f64())
    }
}
