//! The numerics of a diffusion model's sampling loop: noise, schedulers, starts, guidance, prompt weights, previews, and pictures on
//! their way to and from a VAE.
//!
//! Everything here is pure: no model, no socket, no clock, no thread. A [`Sampler`] is the schedule of one (scheduler
//! configuration, [`Ask`]) and is shared; a [`Trajectory`] is one image on its way and owns all that changes. The reference is
//! diffusers 0.39.0 on torch's CPU generator: the same seed means the same picture. torch's CUDA generator can be asked for.

pub mod embedding;
pub mod emphasis;
mod error;
pub mod image;
pub mod preview;
pub mod random;
pub mod scheduler;
pub mod trajectory;

pub use error::{Code, Error};
pub use scheduler::{Ask, Choice, Config, Kind, Options, Sampler, Schedule, Span};
pub use trajectory::{Guidance, Mask, Posterior, Spec, Start, Trajectory, is_finite};
