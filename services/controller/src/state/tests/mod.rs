//! The state against simulated workers, with a clock that the test sets.

mod adoption;
mod check;
mod devices;
mod failure;
mod gangs;
mod gauges;
mod groups;
mod health;
mod intend;
mod intents;
mod permanent;
mod placing;
mod property;
mod restrained;
mod rollout;
mod samples;
mod scaling;
mod simulation;
mod world;
