//! Schedulers: how noise becomes a picture in a number of model calls, computed as diffusers 0.39.0 computes it.
//!
//! A [`Config`] is a model's scheduler_config.json, an [`Ask`] is what a request wants (a [`Kind`], a [`Schedule`], a step count, a
//! [`Span`] of the whole), and a [`Sampler`] is what both come to: timesteps, sigmas and every coefficient, computed once and
//! shared. A solver is a table of coefficients with a step over plain slices; it keeps nothing of a trajectory. To add one: a file
//! beside these with `Settings`, a `build` and a `Solver`, and its lines in `class`, `kind`, `settings` and `sampler`.
//!
//! Invariant: a [`Sampler`] that was made has only finite coefficients, and its number of model calls is fixed.

mod alphas;
mod ask;
mod beta;
mod brownian;
mod choice;
mod class;
mod config;
mod ddim;
mod ddpm;
mod deis;
mod distilled;
mod dpm_multistep;
mod dpm_sde;
mod dpm_singlestep;
mod edm;
mod euler;
mod euler_ancestral;
mod flow;
mod heun;
mod kdpm2;
mod keys;
mod kind;
mod ladder;
mod lcm;
mod levels;
mod lms;
mod pairs;
mod pndm;
mod sampler;
mod schedule;
mod settings;
mod solver;
mod spacing;
mod span;
mod stairs;
mod tcd;
mod threshold;
mod unipc;

pub use ask::{Ask, Options};
pub use choice::Choice;
pub use class::Class;
pub use config::{Config, Prediction};
pub use kind::Kind;
pub use sampler::{MAX_STEPS, Sampler};
pub use schedule::Schedule;
pub use span::Span;

pub(crate) use solver::{Mix, Step};
pub(crate) use span::decimal;
