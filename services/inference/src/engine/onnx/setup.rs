//! How an engine is set up beside its model: who computes, how cores are divided, and how large pictures are decoded.

use std::collections::HashMap;

use super::super::{Error, Stages, computes};
use super::lanes::{self, Choice};
use super::provider::Providers;
use crate::model::Model;

/// Settings of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    pub(super) providers: Providers,
    /// Pictures with a longer side are decoded and encoded in tiles, pixels.
    pub(super) tile_above: usize,
    /// Rows of a call for strict rows, where kernels depend on the batch.
    pub(super) bucket: usize,
    /// Whether UNet calls run on memory that stays bound; always on a device with memory of its own.
    pub(super) io_binding: bool,
    /// Whether UNets are rewritten to go faster where the CPU computes.
    pub(super) rewrite: bool,
    /// How the CPU's cores are divided.
    pub(super) lanes: Choice,
    /// What lanes may take of memory when nobody asked for a number of them, bytes.
    pub(super) lane_memory: u64,
    /// The networks that are loaded.
    pub(super) stages: Stages,
}

/// A decoder's largest layers have 128 channels at full size: 0.5 GiB each in float32 at 1024 by 1024, of which three or four
/// are alive at a time. Above that tiles are what most machines need.
const TILE_ABOVE: usize = 1024;
/// Two pictures with guidance: lone requests waste half of a call, full ones share it.
const BUCKET: usize = 4;

impl Default for Setup {
    /// The CPU, with one pool of threads.
    fn default() -> Self {
        Self {
            providers: Providers::default(),
            tile_above: TILE_ABOVE,
            bucket: BUCKET,
            io_binding: false,
            rewrite: true,
            lanes: Choice::Fixed(1),
            lane_memory: lanes::MEMORY,
            stages: Stages::ALL,
        }
    }
}

impl Setup {
    /// The options that [`Setup::take`] knows.
    pub const KNOWN: &str = "providers, <provider>.<option>, tile_above, bucket, io_binding, rewrite, lanes";

    /// Makes settings from a worker's flags: providers by name with commas between them, where tiles begin, and lanes: `auto` or
    /// a number.
    ///
    /// # Errors
    /// [`Error::Option`] for what is no provider, no size, or no number of lanes.
    pub fn new(providers: &str, tile_above: Option<usize>, lanes: &str) -> Result<Self, Error> {
        let mut setup = Self {
            providers: Providers::parse(providers)?,
            lanes: choice(lanes)?,
            ..Self::default()
        };
        setup.check_lanes()?;
        if let Some(side) = tile_above {
            setup.tile_above = side;
        }
        Ok(setup)
    }

    /// The name of who computes, as ONNX Runtime has it.
    #[must_use]
    pub fn provider(&self) -> &'static str {
        self.providers.full_name()
    }

    /// Has the engine compute on this GPU of the worker, unless an option names another.
    #[must_use]
    pub fn place_on(mut self, gpu: Option<u32>) -> Self {
        if let Some(gpu) = gpu {
            self.providers.place_on(gpu);
        }
        self
    }

    /// Has the engine load the networks of these stages only.
    #[must_use]
    pub fn with_stages(self, stages: Stages) -> Self {
        Self { stages, ..self }
    }

    /// Number of the GPU that it computes on; none for the CPU, and where devices have no numbers.
    #[must_use]
    pub fn gpu(&self) -> Option<u32> {
        self.providers.gpu()
    }

    /// Takes a replica's options out of the map, over the worker's settings; leaves those that are not its own.
    ///
    /// # Errors
    /// [`Error::Option`] naming the option and what is wrong with it.
    pub fn take(options: &mut HashMap<String, String>, worker: &Self) -> Result<Self, Error> {
        let mut setup = worker.clone();
        if let Some(providers) = options.remove("providers") {
            setup.providers = Providers::parse(&providers)?;
        }
        if let Some(side) = options.remove("tile_above") {
            setup.tile_above = whole("tile_above", &side, 64, 1 << 20)?;
        }
        if let Some(rows) = options.remove("bucket") {
            setup.bucket = whole("bucket", &rows, 1, 256)?;
        }
        if let Some(on) = options.remove("io_binding") {
            setup.io_binding = whole("io_binding", &on, 0, 1)? == 1;
        }
        if let Some(on) = options.remove("rewrite") {
            setup.rewrite = whole("rewrite", &on, 0, 1)? == 1;
        }
        if let Some(number) = options.remove("lanes") {
            setup.lanes = choice(&number)?;
        }
        setup.check_lanes()?;
        let mut keys: Vec<String> = options.keys().filter(|key| key.contains('.')).cloned().collect();
        keys.sort();
        for key in keys {
            if setup.providers.set(&key, &options[&key])? {
                options.remove(&key);
            }
        }
        Ok(setup)
    }

    /// Bounds what lanes may take of memory when nobody asked for a number of them, bytes.
    #[must_use]
    pub fn with_lane_memory(self, bytes: u64) -> Self {
        let lane_memory = self.lane_memory.min(bytes);
        Self { lane_memory, ..self }
    }

    /// By what name measurements of a model would be kept, as far as that is known before it is loaded: where lanes are chosen by
    /// measuring and the manifest does not say, and for a part of a model, it is not.
    #[must_use]
    pub fn computes(&self, model: &Model, threads: usize) -> Option<String> {
        // The manifest tells of the whole.
        if !self.stages.is_all() {
            return None;
        }
        let lanes = match self.lanes {
            Choice::Fixed(lanes) => lanes,
            Choice::Auto if threads < 2 || !self.divides() => 1,
            Choice::Auto => model.divisions.get(threads)?.lanes,
        };
        Some(computes(self.provider(), lanes, threads))
    }

    /// Whether calls could be divided at all: lanes are for the CPU's cores, and bound memory belongs to one session.
    pub(super) fn divides(&self) -> bool {
        self.providers.is_cpu() && !self.io_binding
    }

    /// Whether UNets are rewritten: what was measured to go faster was measured on the CPU, and bound memory knows its inputs by name.
    pub(super) fn rewrites(&self) -> bool {
        self.rewrite && self.divides()
    }

    /// Refuses lanes that were asked for where calls cannot be divided.
    fn check_lanes(&self) -> Result<(), Error> {
        match self.lanes {
            Choice::Fixed(2..) if !self.divides() => Err(Error::Option {
                name: "lanes".to_owned(),
                why: format!(
                    "divide the CPU's cores, and networks are run by {}{}; leave it out",
                    self.providers.full_name(),
                    if self.io_binding { " with io_binding" } else { "" }
                ),
            }),
            Choice::Auto | Choice::Fixed(_) => Ok(()),
        }
    }
}

fn choice(text: &str) -> Result<Choice, Error> {
    if text == "auto" {
        return Ok(Choice::Auto);
    }
    let wrong = || Error::Option {
        name: "lanes".to_owned(),
        why: format!(
            "{text:?} is neither auto nor a whole number from 1 to {}",
            lanes::MAX
        ),
    };
    whole("lanes", text, 1, lanes::MAX)
        .map(Choice::Fixed)
        .map_err(|_| wrong())
}

fn whole(name: &str, text: &str, least: usize, most: usize) -> Result<usize, Error> {
    text.parse()
        .ok()
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| Error::Option {
            name: name.to_owned(),
            why: format!("{text:?} is no whole number from {least} to {most}"),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_computes_on_the_gpu_it_was_given_unless_its_options_name_another() {
        let take = |providers: &str, own: &[(&str, &str)], gpu| {
            let own = own
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            let worker = Setup::new(providers, None, "auto").unwrap();
            Setup::take(&mut own.collect(), &worker).unwrap().place_on(gpu)
        };
        let given = take("tensorrt,cuda,cpu", &[], Some(3));
        assert_eq!(given.gpu(), Some(3));
        assert_eq!(given.providers.on_device(), ["tensorrt 3", "cuda 3"]);
        assert_eq!(take("cuda", &[], Some(2)).providers.device().unwrap().1, 2);
        assert_eq!(take("cuda", &[("cuda.device_id", "1")], Some(3)).gpu(), Some(1));
        assert_eq!(
            take(
                "cpu",
                &[("providers", "tensorrt,cuda"), ("cuda.device_id", "1")],
                Some(2)
            )
            .providers
            .on_device(),
            ["tensorrt 2", "cuda 1"]
        );
        // Two replicas are one model with one batch only where they are set up alike.
        assert_ne!(take("cuda", &[], Some(0)), take("cuda", &[], Some(1)));
        assert_eq!(take("cuda", &[], None).gpu(), Some(0));
        for providers in ["cpu", "openvino", "coreml"] {
            assert_eq!(
                take(providers, &[], Some(1)),
                Setup::new(providers, None, "auto").unwrap()
            );
            assert_eq!(take(providers, &[], Some(1)).gpu(), None);
        }
    }

    #[test]
    fn options_are_taken_by_name_and_others_are_left() {
        let option = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let mut options = HashMap::from([
            option("providers", "cuda,cpu"),
            option("cuda.gpu_mem_limit", "1000000"),
            option("tile_above", "512"),
            option("max_batch_rows", "4"),
            option("lanes", "auto"),
        ]);
        let setup = Setup::take(&mut options, &Setup::default()).unwrap();
        assert_eq!(options.into_keys().collect::<Vec<_>>(), ["max_batch_rows"]);
        assert_eq!(
            (setup.tile_above, setup.providers.full_name()),
            (512, "CUDAExecutionProvider")
        );
        assert_eq!(
            (setup.lanes, Setup::default().lanes),
            (Choice::Auto, Choice::Fixed(1))
        );
        for (key, value) in [
            ("tile_above", "tiny"),
            ("bucket", "0"),
            ("io_binding", "2"),
            ("rewrite", "yes"),
            ("lanes", "17"),
            ("lanes", "many"),
            ("providers", "tpu"),
        ] {
            let mut options = HashMap::from([option(key, value)]);
            let error = Setup::take(&mut options, &Setup::default())
                .unwrap_err()
                .to_string();
            assert!(error.contains(key) && error.contains(value), "{error}");
        }
    }

    #[test]
    fn lanes_are_for_the_cpu_without_bound_memory() {
        for other in [("providers", "cuda,cpu"), ("io_binding", "1")] {
            let take = |lanes: &str| {
                let options =
                    [other, ("lanes", lanes)].map(|(key, value)| (key.to_owned(), value.to_owned()));
                Setup::take(&mut HashMap::from(options), &Setup::default())
            };
            assert!(take("2").unwrap_err().to_string().contains("lanes"), "{other:?}");
            assert!(!take("auto").unwrap().divides() && take("1").is_ok(), "{other:?}");
        }
        assert!(Setup::new("cuda,cpu", None, "2").is_err());
        assert!(Setup::new("cpu", None, "2").unwrap().divides());
    }
}
