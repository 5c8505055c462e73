//! The HTTP door: the Ray sample's `GET /imagine` below every application's route prefix, and Ray Serve's own pages
//! `/-/healthz` and `/-/routes`. Answers that Ray or FastAPI give are given in their words; all others are JSON with
//! `{"error": {"code", "reason", "message", "violations"}}`.
//!
//! Where it differs from the sample on purpose: an empty prompt and a bad size are 422 (there 500), and so are query
//! fields that it does not know (there ignored).

mod answer;
mod door;
mod fastapi;
mod query;
mod read;
mod serve;

pub(crate) use serve::serve;
