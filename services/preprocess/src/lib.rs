//! The preprocess service: prompts to tokens.
