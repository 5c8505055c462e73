//! A proxy on real sockets with a controller, a preprocess worker and inference workers made of a few lines each.

mod mesh;
mod preprocess;
mod workers;

pub(crate) use mobula_hostile::{Answered, call, get, send, soon, until_ended};

pub(crate) use mesh::{Mesh, images, model, names, of, prompt};
pub(crate) use preprocess::{broken_png, encoded, pixels, png};
pub(crate) use workers::{Act, Worker, latents, picture};
