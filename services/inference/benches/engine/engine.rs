//! Mobula's engine in the bare side's loop and in a process of its own: one pool of threads, or lanes that share a call's rows.
//!
//! The same calls as the bare side's, without scheduler, guidance, PNG or network.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use mobula_inference::engine::onnx::{Onnx, Runtime, Setup};
use mobula_inference::engine::{Batch, Condition, Encoded, Engine as _, Info};
use mobula_inference::model::Model;

use crate::Args;
use crate::bare::{wave, work};
use crate::subject::Subject;

struct Engine {
    engine: Onnx,
    info: Info,
    batch: Batch,
    condition: Arc<Condition>,
    side: usize,
    encoded: Encoded,
    planes: Vec<f32>,
    left: usize,
}

impl Engine {
    fn open(args: &Args, model: Subject, threads: usize, lanes: usize) -> Result<Self> {
        let runtime = Runtime {
            library: Some(args.onnxruntime.clone()),
            threads,
            spin: args.spin,
        };
        let mut options = HashMap::from([("lanes".to_owned(), lanes.to_string())]);
        let setup = Setup::take(&mut options, &Setup::default())?;
        let engine = Onnx::load(&Model::open(&model.folder()?)?, &runtime, &setup)?;
        let info = engine.info().clone();
        let condition = Arc::new(Condition {
            states: wave(info.states()).into(),
            pooled: wave(info.pooled).into(),
            time_ids: wave(info.time_ids).into(),
            guidance: wave(info.guidance).into(),
        });
        Ok(Self {
            batch: Batch::new(&info),
            engine,
            info,
            condition,
            side: model.size() as usize,
            encoded: Encoded::default(),
            planes: Vec::new(),
            left: 0,
        })
    }

    fn denoise(&mut self, rows: usize) -> Result<()> {
        let shape = self.info.latents(self.side, self.side);
        self.batch.reset(shape, self.info.window);
        for _ in 0..rows {
            let sample = self.batch.push(500.0, &self.condition)?;
            for (index, value) in sample.iter_mut().enumerate() {
                *value = (0.7 * index as f32).sin();
            }
        }
        Ok(self.engine.denoise(&mut self.batch)?)
    }

    /// A window of text for each of so many pictures, and decodings in calls of `each`.
    fn finish(&mut self, pictures: usize, each: usize) -> Result<()> {
        let ids = (0..pictures * self.info.ids()).map(|id| 5 + id as u32 % 200);
        self.engine
            .encode(&ids.collect::<Vec<_>>(), 0, &mut self.encoded)?;
        self.left += pictures;
        let shape = self.info.latents(self.side, self.side);
        while self.left >= each {
            self.engine
                .decode(&wave(each * shape.values()), shape, &mut self.planes)?;
            self.left -= each;
        }
        Ok(())
    }
}

/// The other process: works as the bare side does.
pub(crate) fn serve(args: &Args, model: Subject, threads: usize, lanes: usize) -> Result<()> {
    let mut engine = Engine::open(args, model, threads, lanes)?;
    let [rows, pictures] = args.choice[..] else {
        anyhow::bail!("--lanes needs --choice");
    };
    println!("{rows} {pictures}");
    work(model, rows, |finishes| {
        engine.denoise(rows)?;
        if finishes {
            engine
                .finish(rows / 2, pictures)
                .context("what a picture needs beside the UNet")?;
        }
        Ok(())
    })
}
