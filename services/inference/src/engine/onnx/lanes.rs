//! A call's rows divided among sessions of one network, each on its own part of the threads: lanes.
//!
//! One pool of threads divides every operator, and small operators do not divide well: threads wait for each other hundreds of
//! times a call. Lanes wait once, at the end of it. They cost memory, although they have their weights in common, and one row goes
//! no faster in them, so a call has them only where that was measured to pay.
//!
//! Rows are independent, but kernels may be chosen by the number of threads: the first call of every shape is made both ways, and
//! a shape whose bytes differ stays with the pool. Invariant: whether there are lanes changes no byte of an output.

use std::ops::Range;
use std::thread::ScopedJoinHandle;

use super::super::Error;
use super::session::{Input, Network, Output};

/// Lanes at most: calls have 16 rows where nothing else was asked for, and a lane without a row helps nobody.
pub(crate) const MAX: usize = 16;
/// Memory that all lanes of a network may take where they are chosen by measuring, by the size of its weights, bytes. Networks
/// beyond it have operators that divide well: 512 MiB are two copies of a network of 64 million float32 parameters.
pub(crate) const MEMORY: u64 = 512 << 20;
/// Shapes of which it is known whether lanes give the same bytes; one that was forgotten is found out again.
const MAX_SHAPES: usize = 64;

/// How cores are divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// As it goes fastest.
    Auto,
    /// So many lanes; one is none, but the pool.
    Fixed(usize),
}

/// Lanes of one network.
pub(super) struct Lanes {
    networks: Vec<Network>,
    /// What the pool takes for some rows of a call in the time that lanes take for all of them: 1.3 is a third faster.
    gain: f64,
    /// Outputs of all lanes but the first, kept for their memory.
    outputs: Vec<Vec<f32>>,
    /// Dimensions of all inputs but their rows, and whether lanes give the pool's bytes; the one found out last is the last.
    shapes: Vec<(Vec<usize>, bool)>,
}

/// The most lanes that a network may be tried with: as many as divide the threads evenly and fit the memory. One is none.
pub(super) fn most(threads: usize, weights: u64, memory: u64) -> usize {
    let fit = usize::try_from(memory / weights.max(1)).unwrap_or(usize::MAX);
    let most = threads.min(fit).min(MAX);
    (1..=most)
        .rev()
        .find(|lanes| threads.is_multiple_of(*lanes))
        .unwrap_or(1)
}

/// Whether lanes are faster for so many rows: the last ones of a call may leave some lanes without work.
fn pays(lanes: usize, gain: f64, rows: usize) -> bool {
    let rounds = rows.div_ceil(lanes.max(1)) * lanes;
    rows > 1 && rounds as f64 <= rows as f64 * gain
}

/// The rows of each lane: as even as can be, none without any.
fn shares(rows: usize, lanes: usize) -> impl Iterator<Item = Range<usize>> {
    let lanes = lanes.min(rows).max(1);
    (0..lanes).map(move |lane| lane * rows / lanes..(lane + 1) * rows / lanes)
}

impl Lanes {
    /// Lanes that go so many times as fast as the pool when each of them has the same number of rows.
    pub(super) fn new(networks: Vec<Network>, gain: f64) -> Self {
        let others = networks.len().saturating_sub(1);
        Self {
            networks,
            gain,
            outputs: vec![Vec::new(); others],
            shapes: Vec::new(),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.networks.len()
    }

    /// Whether calls were compared, and all of them gave the pool's bytes.
    pub(super) fn are_exact(&self) -> bool {
        !self.shapes.is_empty() && self.shapes.iter().all(|(_, same)| *same)
    }

    pub(super) fn set_gain(&mut self, gain: f64) {
        self.gain = gain;
    }

    /// Makes a call in lanes or in the pool, whichever is faster, and appends the output; returns its shape.
    pub(super) fn run(
        &mut self,
        pool: &mut Network,
        inputs: &[Input<'_>],
        output: &str,
        out: &mut Vec<f32>,
    ) -> Result<Vec<usize>, Error> {
        let rows = rows(inputs);
        if !pays(self.networks.len(), self.gain, rows) {
            return whole(pool, inputs, output, out);
        }
        match self.known(inputs) {
            Some(true) => self.divided(inputs, output, out),
            Some(false) => whole(pool, inputs, output, out),
            None => self.compared(pool, inputs, output, out),
        }
    }

    /// Makes a call both ways and remembers whether they give the same; the pool's output counts.
    fn compared(
        &mut self,
        pool: &mut Network,
        inputs: &[Input<'_>],
        output: &str,
        out: &mut Vec<f32>,
    ) -> Result<Vec<usize>, Error> {
        let start = out.len();
        let shape = whole(pool, inputs, output, out)?;
        let mut again = Vec::with_capacity(out.len() - start);
        let same = match self.divided(inputs, output, &mut again) {
            Ok(other) => other == shape && same(&out[start..], &again),
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(error) => {
                tracing::warn!(%error, "a call in lanes fails where the pool does not");
                false
            }
        };
        if !same {
            tracing::warn!(
                ?shape,
                "lanes give other bytes than the pool: calls of this shape are not divided"
            );
        }
        if self.shapes.len() == MAX_SHAPES {
            self.shapes.remove(0);
        }
        self.shapes.push((sides(inputs).collect(), same));
        Ok(shape)
    }

    /// Whether calls of this shape give the pool's bytes; none before that was found out.
    fn known(&self, inputs: &[Input<'_>]) -> Option<bool> {
        let known = self
            .shapes
            .iter()
            .find(|(known, _)| sides(inputs).eq(known.iter().copied()));
        known.map(|(_, same)| *same)
    }

    /// Makes a call in lanes; the thread that calls has the first of them.
    pub(super) fn divided(
        &mut self,
        inputs: &[Input<'_>],
        output: &str,
        out: &mut Vec<f32>,
    ) -> Result<Vec<usize>, Error> {
        let (all, start) = (rows(inputs), out.len());
        let mut shares = shares(all, self.networks.len());
        let (own, Some((first, others))) =
            (shares.next().unwrap_or_default(), self.networks.split_first_mut())
        else {
            return Ok(Vec::new());
        };
        let others = others.iter_mut().zip(&mut self.outputs).zip(shares);
        let done: Vec<Result<Vec<usize>, Error>> = std::thread::scope(|scope| {
            let beside: Vec<_> = others
                .map(|((network, kept), rows)| {
                    kept.clear();
                    let lane = std::thread::Builder::new().name("lane".to_owned());
                    lane.spawn_scoped(scope, move || part(network, inputs, rows, output, kept))
                })
                .collect();
            let first = part(first, inputs, own, output, out);
            let beside = beside.into_iter().map(|lane| match lane {
                Ok(lane) => joined(lane),
                Err(error) => Err(Error::Run {
                    part: "lane",
                    why: format!("no thread can be had: {error}"),
                }),
            });
            std::iter::once(first).chain(beside).collect()
        });
        let shape = gathered(done).inspect_err(|_| out.truncate(start))?;
        for kept in &self.outputs[..self.networks.len().min(all) - 1] {
            out.extend_from_slice(kept);
        }
        Ok(std::iter::once(all).chain(shape.into_iter().skip(1)).collect())
    }

    /// The sessions, after the memory that is kept beside them was given back.
    pub(super) fn trimmed(&mut self) -> impl Iterator<Item = &mut Network> {
        self.outputs.fill(Vec::new());
        self.networks.iter_mut()
    }
}

/// What a thread came to; its panic is the caller's.
pub(super) fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The shape of a lane's output, when no lane failed; an interruption of one is the call's.
fn gathered(done: Vec<Result<Vec<usize>, Error>>) -> Result<Vec<usize>, Error> {
    if done.iter().any(|lane| matches!(lane, Err(Error::Interrupted))) {
        return Err(Error::Interrupted);
    }
    let shapes: Vec<Vec<usize>> = done.into_iter().collect::<Result<_, _>>()?;
    Ok(shapes.into_iter().next().unwrap_or_default())
}

/// Rows of a call: its first input is a batch.
fn rows(inputs: &[Input<'_>]) -> usize {
    inputs
        .first()
        .and_then(|input| input.shape.first())
        .copied()
        .unwrap_or(0)
}

/// The dimensions of all inputs but their rows.
fn sides<'a>(inputs: &'a [Input<'_>]) -> impl Iterator<Item = usize> + 'a {
    inputs
        .iter()
        .flat_map(|input| input.shape.iter().skip(1))
        .copied()
}

/// Makes a call in one session.
fn whole(
    network: &mut Network,
    inputs: &[Input<'_>],
    output: &str,
    out: &mut Vec<f32>,
) -> Result<Vec<usize>, Error> {
    let output = Output {
        name: output,
        values: out,
    };
    let mut shapes = network.run(inputs, &mut [output])?;
    Ok(shapes.pop().unwrap_or_default())
}

/// Makes a call of some of the rows in one session. What has no dimension of rows is shared: a timestep for all of them.
fn part(
    network: &mut Network,
    inputs: &[Input<'_>],
    range: Range<usize>,
    output: &str,
    out: &mut Vec<f32>,
) -> Result<Vec<usize>, Error> {
    let all = rows(inputs);
    let has_rows = |input: &Input<'_>| input.shape.first() == Some(&all);
    let shapes: Vec<Vec<usize>> = inputs
        .iter()
        .map(|input| match input.shape.split_first() {
            Some((_, sides)) if has_rows(input) => [&[range.len()], sides].concat(),
            _ => input.shape.to_vec(),
        })
        .collect();
    let inputs: Vec<Input<'_>> = inputs
        .iter()
        .zip(&shapes)
        .map(|(input, shape)| Input {
            port: input.port,
            shape,
            values: if has_rows(input) {
                input.values.rows(all, &range)
            } else {
                input.values
            },
        })
        .collect();
    whole(network, &inputs, output, out)
}

/// Whether two outputs are the same, bit for bit; what is no number is like any other that is none.
fn same(a: &[f32], b: &[f32]) -> bool {
    let equal = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
    a.len() == b.len() && a.iter().zip(b).all(equal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lanes_divide_the_threads_evenly_and_fit_the_memory() {
        let mib = 1 << 20;
        for (threads, weights, lanes) in [
            (1, mib, 1),
            (2, mib, 2),
            (8, mib, 8),
            (8, 100 * mib, 4),
            (6, 120 * mib, 3),
            (7, 100 * mib, 1),
            (2, 300 * mib, 1),
            (2, 256 * mib, 2),
            (64, mib, 16),
            (48, 0, 16),
        ] {
            assert_eq!(
                most(threads, weights, MEMORY),
                lanes,
                "{threads} threads, {weights} bytes"
            );
        }
        assert_eq!(most(8, mib, 0), 1);
    }

    #[test]
    fn calls_whose_last_rows_leave_lanes_without_work_stay_with_the_pool_when_it_is_faster_so() {
        let calls = |lanes, gain| -> Vec<usize> { (0..=9).filter(|rows| pays(lanes, gain, *rows)).collect() };
        assert_eq!(calls(2, 1.3), [2, 4, 5, 6, 7, 8, 9]);
        assert_eq!(calls(2, 1.4), [2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(calls(4, 1.3), [4, 7, 8]);
        assert_eq!(calls(8, 1.3), [7, 8]);
        // A number of lanes that was asked for has every call that can be divided.
        assert_eq!(calls(3, f64::INFINITY), [2, 3, 4, 5, 6, 7, 8, 9]);
        assert!(calls(2, 0.9).is_empty());
    }

    #[test]
    fn one_interrupted_lane_interrupts_the_call_and_one_that_fails_fails_it() {
        let fails = || {
            Err(Error::Run {
                part: "unet",
                why: "no memory".to_owned(),
            })
        };
        assert!(matches!(
            gathered(vec![Ok(vec![1]), Err(Error::Interrupted)]),
            Err(Error::Interrupted)
        ));
        assert!(matches!(
            gathered(vec![fails(), Err(Error::Interrupted)]),
            Err(Error::Interrupted)
        ));
        assert!(matches!(
            gathered(vec![Ok(vec![1]), fails()]),
            Err(Error::Run { .. })
        ));
        assert_eq!(gathered(vec![Ok(vec![2, 4]), Ok(vec![1, 4])]).unwrap(), [2, 4]);
    }

    proptest! {
        #[test]
        fn every_row_is_in_one_lane_and_no_lane_has_two_more_than_another(rows in 1..100_usize, lanes in 1..20_usize) {
            let shares: Vec<Range<usize>> = shares(rows, lanes).collect();
            prop_assert_eq!(shares.len(), lanes.min(rows));
            prop_assert!(shares.iter().cloned().flatten().eq(0..rows));
            let lengths = || shares.iter().map(|share| share.len());
            prop_assert!(lengths().min() >= Some(1));
            prop_assert!(lengths().max().unwrap_or(0) - lengths().min().unwrap_or(0) <= 1);
        }
    }
}
