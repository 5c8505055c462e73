//! The bare side: ONNX Runtime sessions in the plainest loop there is, in a process of its own.
//!
//! UNet calls of as many rows as go fastest here, and for the pictures that those make one window of text each and the VAE
//! decodings. No scheduler, guidance, PNG or network. Threads, spinning and memory are set as the service sets them: one pool
//! for all sessions, no memory patterns.

use std::borrow::Cow;
use std::io::{BufRead as _, Write as _};
use std::process::Stdio;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::ValueEnum as _;
use ort::environment::GlobalThreadPoolOptions;
use ort::session::builder::SessionBuilder;
use ort::session::{Session, SessionInputValue};
use ort::value::{TensorElementType, TensorRef};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::Instant;

use crate::Args;
use crate::service::cpu_seconds;
use crate::subject::Subject;

/// Rows of a UNet call that are tried.
const ROWS: [usize; 4] = [2, 4, 8, 16];
/// Pictures of a decoding that are tried.
const PICTURES: [usize; 3] = [1, 2, 4];
/// Times that each is tried; the fastest counts.
const TRIES: usize = 4;
const WINDOW: usize = 77;

/// What a bare side did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Done {
    pub(crate) rows: f64,
    pub(crate) seconds: f64,
    /// Seconds of processors that it took.
    pub(crate) cpu: f64,
}

/// The UNet of a model.
struct Unet {
    session: Session,
    /// Latent positions of a side.
    side: usize,
    /// Width of the text states.
    width: usize,
}

/// What a picture needs beside the UNet.
struct Rest {
    text: Session,
    vae: Session,
    side: usize,
}

/// Opens a model's sessions: on one pool of threads, or what is not the UNet on `aside` threads of its own.
fn open(args: &Args, model: Subject, threads: usize) -> Result<(Unet, Rest)> {
    let builder = ort::init_from(&args.onnxruntime)?;
    let pool = GlobalThreadPoolOptions::default()
        .with_intra_threads(threads)?
        .with_inter_threads(1)?
        .with_spin_control(args.spin)?;
    let environment = builder
        .with_telemetry(false)
        .with_global_thread_pool(pool)
        .build()?;
    let folder = model.folder()?;
    let open = |part: &str, own: Option<usize>| {
        let mut builder = setup(Session::builder(&environment)?, own, args.spin)?;
        anyhow::Ok(builder.commit_from_file(folder.join(part).join("model.onnx"))?)
    };
    let session = open("unet", None)?;
    let width = session.inputs()[2]
        .dtype()
        .tensor_shape()
        .map_or(0, |shape| shape[2]);
    let side = model.size() as usize / 8;
    let unet = Unet {
        session,
        side,
        width: usize::try_from(width).context("the width of the text states is not fixed")?,
    };
    let rest = Rest {
        text: open("text_encoder", args.aside)?,
        vae: open("vae_decoder", args.aside)?,
        side,
    };
    Ok((unet, rest))
}

fn setup(builder: SessionBuilder, own: Option<usize>, spin: bool) -> Result<SessionBuilder> {
    let failed = |error: ort::Error<SessionBuilder>| anyhow!("{error}");
    let builder = builder.with_memory_pattern(false).map_err(failed)?;
    let Some(threads) = own else {
        return Ok(builder);
    };
    let builder = builder.with_independent_thread_pool().map_err(failed)?;
    let builder = builder.with_intra_threads(threads).map_err(failed)?;
    builder.with_intra_op_spinning(spin).map_err(failed)
}

impl Rest {
    fn encode(&mut self, windows: usize) -> Result<()> {
        let ids: Vec<i64> = (0..windows * WINDOW).map(|id| 5 + id as i64 % 200).collect();
        let ints: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
        let input = &self.text.inputs()[0];
        let name = input.name().to_owned();
        let value: SessionInputValue<'_> = match input.dtype().tensor_type() {
            Some(TensorElementType::Int32) => {
                TensorRef::from_array_view(([windows, WINDOW], &ints[..]))?.into()
            }
            _ => TensorRef::from_array_view(([windows, WINDOW], &ids[..]))?.into(),
        };
        self.text.run(vec![(name, value)])?;
        Ok(())
    }

    fn decode(&mut self, pictures: usize) -> Result<()> {
        let latents = wave(pictures * 4 * self.side * self.side);
        let shape = [pictures, 4, self.side, self.side];
        self.vae
            .run(ort::inputs![TensorRef::from_array_view((shape, &latents[..]))?])?;
        Ok(())
    }

    /// What so many pictures need, decoded in calls of `each`; what does not fill one is left for the next.
    fn finish(&mut self, pictures: usize, each: usize, left: &mut usize) -> Result<()> {
        self.encode(pictures)?;
        *left += pictures;
        while *left >= each {
            self.decode(each)?;
            *left -= each;
        }
        Ok(())
    }
}

impl Unet {
    fn denoise(&mut self, rows: usize) -> Result<()> {
        let (side, width) = (self.side, self.width);
        let samples = wave(rows * 4 * side * side);
        let states = wave(rows * WINDOW * width);
        let (times, steps) = (vec![500.0_f32; rows], vec![500_i64; rows]);
        let port = &self.session.inputs()[1];
        // As it was exported: one timestep for the call, or one for each row.
        let ranks = port.dtype().tensor_shape().map_or(0, |shape| shape.len());
        let (shape, count) = if ranks == 0 {
            (vec![], 1)
        } else {
            (vec![rows], rows)
        };
        let time: SessionInputValue<'_> = match port.dtype().tensor_type() {
            Some(TensorElementType::Int64) => TensorRef::from_array_view((shape, &steps[..count]))?.into(),
            _ => TensorRef::from_array_view((shape, &times[..count]))?.into(),
        };
        let names: Vec<String> = self
            .session
            .inputs()
            .iter()
            .map(|port| port.name().to_owned())
            .collect();
        let values = [
            TensorRef::from_array_view(([rows, 4, side, side], &samples[..]))?.into(),
            time,
            TensorRef::from_array_view(([rows, WINDOW, width], &states[..]))?.into(),
        ];
        let feed: Vec<_> = names.into_iter().map(Cow::from).zip(values).collect();
        self.session.run(feed)?;
        Ok(())
    }
}

/// Values of the size of latents, none of them alike.
pub(crate) fn wave(count: usize) -> Vec<f32> {
    (0..count).map(|index| (0.7 * index as f32).sin()).collect()
}

/// The choice with the most items a second.
fn fastest(choices: &[usize], mut run: impl FnMut(usize) -> Result<()>) -> Result<usize> {
    let mut best = vec![Duration::MAX; choices.len()];
    // Turn and turn about, so that a slow moment of the machine meets all of them.
    for turn in 0..=TRIES {
        for (choice, best) in choices.iter().zip(&mut best) {
            let begun = Instant::now();
            run(*choice)?;
            if turn > 0 {
                *best = begun.elapsed().min(*best);
            }
        }
    }
    let each = |index: &usize| best[*index].as_nanos() / choices[*index] as u128;
    let index = (0..choices.len()).min_by_key(each).unwrap_or(0);
    Ok(choices[index])
}

/// Who does what pictures need beside the UNet.
enum Finisher {
    /// The UNet's thread, in turns.
    Here(Rest, usize),
    /// A thread of its own.
    Aside(SyncSender<usize>),
}

impl Finisher {
    fn new(mut rest: Rest, each: usize, aside: bool) -> Self {
        if !aside {
            return Self::Here(rest, 0);
        }
        // Two batches wait at most: the UNet is not to run away from the decoder.
        let (sender, batches) = sync_channel(1);
        std::thread::spawn(move || {
            let mut left = 0;
            for pictures in batches {
                rest.finish(pictures, each, &mut left)
                    .expect("the bare side's decoder failed");
            }
        });
        Self::Aside(sender)
    }

    fn finish(&mut self, pictures: usize, each: usize) -> Result<()> {
        match self {
            Self::Here(rest, left) => rest.finish(pictures, each, left),
            Self::Aside(sender) => Ok(sender.send(pictures)?),
        }
    }
}

/// The other process: says what it chose, then works for as many seconds as each line asks and says what it did.
pub(crate) fn serve(args: &Args, model: Subject, threads: usize) -> Result<()> {
    let (mut unet, mut rest) = open(args, model, threads)?;
    let (rows, pictures) = match args.choice[..] {
        [rows, pictures] => (rows, pictures),
        _ => (
            fastest(&ROWS, |rows| unet.denoise(rows))?,
            fastest(&PICTURES, |pictures| rest.decode(pictures))?,
        ),
    };
    let mut finisher = Finisher::new(rest, pictures, args.aside.is_some());
    println!("{rows} {pictures}");
    work(model, rows, |finishes| {
        unet.denoise(rows)?;
        if finishes {
            finisher.finish(rows / 2, pictures)?;
        }
        Ok(())
    })
}

/// Makes calls for as many seconds as each line of the input asks, and says what it did; a call is told whether it makes its
/// pictures whole.
pub(crate) fn work(model: Subject, rows: usize, mut call: impl FnMut(bool) -> Result<()>) -> Result<()> {
    // Calls go on from one measurement to the next, so that each has its part of texts and decodings.
    let mut calls = 0;
    for line in std::io::stdin().lock().lines() {
        let asked = Duration::from_secs_f64(line?.trim().parse()?);
        let (begun, cpu, mut done) = (Instant::now(), cpu_seconds(), 0);
        while begun.elapsed() < asked {
            calls += 1;
            call(calls % model.steps() == 0)?;
            done += rows;
        }
        println!("{done} {} {}", begun.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        std::io::stdout().flush()?;
    }
    Ok(())
}

/// A bare side, seen from here.
pub(crate) struct Bare {
    /// Rows of its UNet calls, and pictures of its decodings.
    pub(crate) choice: (usize, usize),
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

impl Bare {
    /// A process with one pool of threads for everything, which finds out what goes fastest.
    pub(crate) async fn start(args: &Args, model: Subject, threads: usize) -> Result<Self> {
        Self::with(args, model, &[format!("--pool={threads}")]).await
    }

    /// A process whose threads are divided as these flags say, with calls of this many rows and pictures.
    pub(crate) async fn divided(
        args: &Args,
        model: Subject,
        mut flags: Vec<String>,
        choice: (usize, usize),
    ) -> Result<Self> {
        flags.push(format!("--choice={},{}", choice.0, choice.1));
        Self::with(args, model, &flags).await
    }

    async fn with(args: &Args, model: Subject, flags: &[String]) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let name = model.to_possible_value().context("a model without a name")?;
        command
            .args(["--models", name.get_name(), "--onnxruntime"])
            .arg(&args.onnxruntime)
            .args(args.spin.then_some("--spin"))
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut process = command.spawn()?;
        let input = process.stdin.take().context("no way to the bare side")?;
        let output = process.stdout.take().context("no way from the bare side")?;
        let mut bare = Self {
            choice: (0, 0),
            input,
            output: BufReader::new(output).lines(),
            _process: process,
        };
        let said = bare.line().await?;
        bare.choice = (said[0] as usize, said[1] as usize);
        Ok(bare)
    }

    /// Lets it work for a while.
    pub(crate) async fn measure(&mut self, seconds: f64) -> Result<Done> {
        self.input.write_all(format!("{seconds}\n").as_bytes()).await?;
        self.input.flush().await?;
        let said = self.line().await?;
        Ok(Done {
            rows: said[0],
            seconds: said[1],
            cpu: said[2],
        })
    }

    async fn line(&mut self) -> Result<Vec<f64>> {
        let line = self.output.next_line().await?.context("the bare side ended")?;
        let said = line.split(' ').map(str::parse).collect::<Result<Vec<f64>, _>>();
        said.with_context(|| format!("the bare side said {line:?}"))
    }
}

/// Measures the first model's bare sessions and nothing else.
pub(crate) async fn alone(args: &Args) -> Result<()> {
    let model = *args.models.first().context("no model was named")?;
    let mut bare = Bare::start(args, model, args.threads()).await?;
    let done = bare.measure(args.seconds as f64).await?;
    println!("{:.3}", done.rows / done.seconds / f64::from(2 * model.steps()));
    Ok(())
}
