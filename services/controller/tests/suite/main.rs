//! The controller on real sockets and with real processes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

mod hostile;
mod kept;
mod ledger;
mod mesh;
mod process;
mod support;
mod tokens;
mod updates;
