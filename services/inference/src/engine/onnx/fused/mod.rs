//! Operators of our own for what ONNX Runtime walks the memory for again and again: each reads its input once from afar and writes
//! its result once. [`super::edit::fused`] puts them into a graph.
//!
//! They compute on the CPU in float32 and refuse everything else. Invariant: what a row gives depends on that row alone: not on the
//! other rows of a call, not on the number of threads, not on how the work is divided among them.

mod geglu;
mod math;
mod norm;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use ort::operator::{ComputeContext, OperatorDomain, ShapeInferenceContext};
use ort::value::{ValueRef, ValueType};

/// The domain that nodes of these operators are in.
pub(super) const DOMAIN: &str = "mobula";
/// Its version in a file.
pub(super) const VERSION: u64 = 1;
/// Values below which the calling thread computes all: less than another takes to wake up.
const ALONE: usize = 16 << 10;

/// The operators, for one session.
///
/// # Errors
/// When ONNX Runtime takes none.
pub(super) fn domain() -> ort::Result<OperatorDomain> {
    OperatorDomain::new(DOMAIN)?
        .add(norm::GroupNorm)?
        .add(geglu::GegluBias)
}

/// Declares the output to have the first input's shape, with the last side divided by `part`, when so many sides are known to be there.
///
/// ONNX Runtime takes no side without a number or a name, so one that has neither gets a name that no other side has.
fn declare(context: &mut ShapeInferenceContext, ranks: impl Fn(usize) -> bool, part: i64) -> ort::Result<()> {
    static NAMES: AtomicU64 = AtomicU64::new(0);
    let Some(ValueType::Tensor {
        ty,
        mut shape,
        dimension_symbols,
    }) = context.inputs().into_iter().next()
    else {
        return Ok(());
    };
    // An unknown shape looks like one without sides.
    if !ranks(shape.len()) {
        return Ok(());
    }
    if let Some(last) = shape.last_mut().filter(|_| part > 1) {
        if *last <= 0 {
            return Ok(());
        }
        *last /= part;
    }
    let names = shape.iter().zip(dimension_symbols.iter());
    let dimension_symbols = names
        .map(|(side, name)| match (*side < 0, name.is_empty()) {
            (true, true) => format!("mobula_side_{}", NAMES.fetch_add(1, Ordering::Relaxed)),
            // What was divided is a number, and has no name any more.
            (false, _) => String::new(),
            (true, false) => name.clone(),
        })
        .collect();
    let output = ValueType::Tensor {
        ty,
        shape,
        dimension_symbols,
    };
    context.set_output(0, &output)
}

fn wrong(why: String) -> ort::Error {
    ort::Error::new(why)
}

/// An input that must be there.
fn input(context: &ComputeContext, index: usize) -> ort::Result<ValueRef<'_>> {
    context
        .input(index)?
        .ok_or_else(|| wrong(format!("input {index} is missing")))
}

/// Has `task` write `out` in parts of `size` values, the last one may have fewer, on the threads of the session.
fn divide(
    context: &ComputeContext,
    out: &mut [f32],
    size: usize,
    task: impl Fn(usize, &mut [f32]) + Send + Sync,
) -> ort::Result<()> {
    if out.len() <= ALONE {
        for (index, part) in out.chunks_mut(size.max(1)).enumerate() {
            task(index, part);
        }
        return Ok(());
    }
    // Each lock is taken once: it hands a part to whichever thread comes for it.
    let parts: Vec<Mutex<&mut [f32]>> = out.chunks_mut(size.max(1)).map(Mutex::new).collect();
    context.par_for(parts.len(), 0, |index| {
        if let Some(part) = parts.get(index) {
            task(index, &mut part.lock().unwrap_or_else(PoisonError::into_inner));
        }
    })
}
