//! The numerics against diffusers and torch, and what holds for any input.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod common;
mod golden;
mod golden_inputs;
mod golden_schedulers;
mod golden_solvers;
mod golden_trajectories;
mod properties;
mod samplers;
mod specs;
mod trajectories;
