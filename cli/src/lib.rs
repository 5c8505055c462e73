//! The `mobula` command: start a mesh, say what it shall run, draw pictures, look at its state and ask why.
//!
//! One folder per command; what they share is how they talk to the mesh (`remote`), how they write for people
//! (`human`, `paint`), how they are interrupted, and how they fail (`error`). Nothing here draws, places or routes:
//! the command is a client like any other, and `mobula up` only starts the services and keeps them alive.

mod args;
mod control;
mod error;
mod human;
mod imagine;
mod interrupt;
mod key;
mod paint;
mod prepare;
mod remote;
mod status;
mod up;

pub use args::Cli;
pub use error::{EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, Error};
