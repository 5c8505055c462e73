//! Rows a second of the service and of bare sessions, in turns.

use std::sync::Arc;

use anyhow::Result;

use crate::bare::Bare;
use crate::report::Rows;
use crate::service::{Worker, request};
use crate::{Args, median};

/// Measures each model.
pub(crate) async fn measure(args: &Args, worker: &Arc<Worker>) -> Result<Vec<Rows>> {
    let mut all = Vec::new();
    for model in &args.models {
        let name = model.name();
        worker.load(name, Some(*model), &[]).await?;
        let mut bare = Bare::start(args, *model, args.threads()).await?;
        let (rows, decoded) = bare.choice;
        println!("{name}: bare calls of {rows} rows and decodings of {decoded} pictures are the fastest");
        let template = request(name, model.size(), model.steps());
        let steps: &'static [u32] = Box::leak(Box::new([model.steps()]));
        let seconds = (args.seconds * model.patience()) as f64;
        let (mut bares, mut services, mut ratios, mut cpus) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for round in 1..=args.rounds {
            // Half of the bare side before and half after, so that a machine that changes its speed favours nobody.
            let before = bare.measure(seconds / 2.0).await?;
            let done = worker.closed(&template, steps, (args.callers, seconds)).await?;
            let after = bare.measure(seconds / 2.0).await?;
            let b = (before.rows + after.rows) / (before.seconds + after.seconds);
            let s = done.rows / done.seconds;
            let cpu = (before.cpu + after.cpu) / (before.rows + after.rows) / (done.cpu / done.rows);
            println!(
                "{name}: round {round}: bare {b:.1} rows/s, service {s:.1} rows/s ({:.2} pictures/s): {:.1} %, by processor time {:.1} %",
                done.pictures / done.seconds,
                100.0 * s / b,
                100.0 * cpu
            );
            cpus.push(cpu);
            bares.push(b);
            services.push(s);
            ratios.push(s / b);
        }
        all.push(Rows {
            model: name.to_owned(),
            size: model.size(),
            steps: model.steps(),
            callers: args.callers,
            bare: median(&bares),
            service: median(&services),
            ratio: median(&ratios),
            ratios,
            cpu: median(&cpus),
        });
    }
    Ok(all)
}
