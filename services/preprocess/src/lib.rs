//! The preprocess service: prompts to tokens.

mod error;
pub mod tokenizer;

pub use self::error::Error;
