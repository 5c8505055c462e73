//! The state against simulated workers, with a clock that the test sets.

mod adoption;
mod failure;
mod placing;
mod property;
mod world;
