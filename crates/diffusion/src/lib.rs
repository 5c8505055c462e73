//! The numerics of a diffusion model's sampling loop: noise, schedulers, guidance, previews and the last step to 8-bit pixels.
//!
//! Everything here is pure: no model, no socket, no clock, no thread. A [`Sampler`] is the schedule of one (scheduler
//! configuration, scheduler, step count) and is shared; a [`Trajectory`] is one image on its way and owns all that changes.
//! The reference is diffusers 0.39.0 on torch's CPU generator: the same seed means the same picture.

mod error;
pub mod image;
pub mod preview;
pub mod random;
pub mod scheduler;
pub mod trajectory;

pub use error::{Code, Error};
pub use scheduler::{Config, Kind, Sampler};
pub use trajectory::{Spec, Trajectory};
