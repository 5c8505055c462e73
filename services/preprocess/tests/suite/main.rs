//! The preprocess service against what transformers, compel, diffusers, Pillow and libjpeg-turbo gave.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod golden;
mod images;
mod jpegs;
mod prompts;
mod service;
mod support;
mod triggers;
