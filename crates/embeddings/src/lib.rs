//! Textual inversions (Gal et al. 2022, arXiv 2208.01618): files of learnt vectors, each with a word that stands for them.
//!
//! [`Embeddings::open`] reads a folder of safetensors files; [`Embeddings::rows`] says which token ids their words get in
//! one text encoder. The preprocess service puts these ids into prompts and the inference service puts the vectors behind
//! the encoder's own ones, so both call the same function and need not talk to each other. Refuses files that are too large,
//! broken, or of no known form. Invariant: vectors are finite numbers, all of one file's matrix as long as each other.

mod encoder;
mod error;
mod file;
mod folder;
mod matrix;

pub use self::{
    encoder::{Encoder, Vocabulary},
    error::Error,
    file::Entry,
    folder::{Embeddings, Row},
    matrix::Matrix,
};
