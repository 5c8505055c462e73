//! The state against simulated workers, with a clock that the test sets.

mod adoption;
mod check;
mod failure;
mod gangs;
mod gauges;
mod groups;
mod health;
mod intend;
mod intents;
mod placing;
mod property;
mod rollout;
mod scaling;
mod simulation;
mod world;
