//! Schedulers: how noise becomes a picture in a number of model calls, computed as diffusers 0.39.0 computes it.
//!
//! A [`Config`] is a model's scheduler_config.json, a [`Kind`] is the name a user gives, and a [`Sampler`] is what both and a step
//! count come to: timesteps, sigmas and every coefficient, computed once and shared. A solver is a table of coefficients with a
//! step over plain slices; it keeps nothing of a trajectory. To add one: a file beside these with a `Solver`, a `Kind`, a `Class`.
//!
//! Invariant: a [`Sampler`] that was made has only finite coefficients, and its number of model calls is fixed.

mod alphas;
mod config;
mod ddim;
mod dpm_multistep;
mod euler;
mod euler_ancestral;
mod karras;
mod keys;
mod kind;
mod pndm;
mod sampler;
mod solver;
mod spacing;
mod threshold;

pub use config::{Class, Config, Prediction};
pub use kind::Kind;
pub use sampler::{MAX_STEPS, Sampler};

pub(crate) use solver::{Solve, Step};

use solver::Solver;
