//! The mesh as a whole, under test: in one process ([`Mesh`]) and as processes ([`Up`]).
//!
//! This crate only builds meshes and looks at them; what must hold is said in `tests/`. Nothing here sleeps for a fixed
//! time where something can be waited for, every wait is bounded and says what it waited for, and every port is 0.

mod client;
mod doors;
pub mod exposition;
mod foreign;
mod http;
mod listening;
mod load;
mod mesh;
mod model;
mod otlp;
mod part;
mod picture;
mod process;
mod proxies;
mod steer;
mod wait;
mod ways;

pub use client::{Drawn, Picture, draw, prompt, was_cut};
pub use doors::Doors;
pub use foreign::Check;
pub use http::{Answer, get, send};
pub use load::{Load, Report};
pub use mesh::{Builder, Mesh};
pub use model::{copy_model, demo_model, tiny_model};
pub use otlp::{Collector, Id, Span};
pub use part::Part;
pub use picture::{Png, decode};
pub use process::{Process, Up};
pub use proxies::Proxies;
pub use wait::{PATIENCE, until};
pub use ways::Way;
