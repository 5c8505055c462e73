//! How cores are best divided: one pool of threads with one call after another, halves with UNet calls beside each other, or the
//! UNet on some cores and text and VAE beside it on others; the last two also with as many threads as cores in both pools. And
//! Mobula's engine with one pool, and with lanes that share the rows of each call.
//!
//! The first are bare sessions, so that nothing but the division differs. UNet calls beside each other are two processes.

use anyhow::Result;
use futures::future::try_join_all;

use crate::bare::Bare;
use crate::report::Cores;
use crate::{Args, median};

/// A division: threads of the pool, threads of a second pool for what is not the UNet, and processes beside each other.
#[derive(Debug, Clone, Copy)]
struct Division {
    threads: usize,
    aside: Option<usize>,
    processes: usize,
    /// Mobula's engine with so many lanes, where it is not bare sessions.
    lanes: Option<usize>,
}

impl Division {
    fn flags(self) -> Vec<String> {
        let mut flags = vec![format!("--pool={}", self.threads)];
        flags.extend(self.aside.map(|threads| format!("--aside={threads}")));
        flags.extend(self.lanes.map(|lanes| format!("--lanes={lanes}")));
        flags
    }

    fn name(self) -> String {
        let Self {
            threads,
            aside,
            processes,
            lanes,
        } = self;
        match (aside, processes) {
            _ if lanes == Some(1) => format!("engine: one pool of {threads}"),
            _ if lanes.is_some() => format!(
                "engine: {} lanes of {}",
                lanes.unwrap_or(1),
                threads / lanes.unwrap_or(1)
            ),
            (Some(aside), _) => format!("UNet on {threads}, text and VAE beside it on {aside}"),
            (None, 1) => format!("one pool of {threads}, calls one after another"),
            (None, _) => format!("{processes} pools of {threads}, calls beside each other"),
        }
    }
}

/// Measures each model.
pub(crate) async fn measure(args: &Args) -> Result<Vec<Cores>> {
    let threads = args.threads();
    let half = (threads / 2).max(1);
    let divisions = [
        (threads, None, 1, None),
        (half, None, 2, None),
        (threads, None, 2, None),
        (half, Some(half), 1, None),
        (threads, Some(threads), 1, None),
        (threads, None, 1, Some(1)),
        (threads, None, 1, Some(threads)),
    ];
    let divisions = divisions.map(|(threads, aside, processes, lanes)| Division {
        threads,
        aside,
        processes,
        lanes,
    });
    let mut all = Vec::new();
    for model in &args.models {
        let seconds = (args.seconds * model.patience()) as f64;
        // Each for a while and then ended: all of them together would not fit the memory of small machines.
        let choice = Bare::start(args, *model, threads).await?.choice;
        let mut sides = divisions.map(|division| (division, Vec::new()));
        for _ in 0..args.rounds {
            for (division, rates) in &mut sides {
                let mut processes = Vec::new();
                for _ in 0..division.processes {
                    processes.push(Bare::divided(args, *model, division.flags(), choice).await?);
                }
                // The first calls take memory and time.
                try_join_all(processes.iter_mut().map(|bare| bare.measure(0.5))).await?;
                let done = try_join_all(processes.iter_mut().map(|bare| bare.measure(seconds))).await?;
                rates.push(done.iter().map(|done| done.rows / done.seconds).sum::<f64>());
            }
        }
        let one = sides[0].1.clone();
        for (division, rates) in sides {
            let ratios: Vec<f64> = rates.iter().zip(&one).map(|(rate, one)| rate / one).collect();
            all.push(Cores {
                model: model.name().to_owned(),
                division: division.name(),
                pictures: median(&rates) / f64::from(2 * model.steps()),
                ratio: median(&ratios),
            });
        }
    }
    Ok(all)
}
