//! The HTTP door: the Ray sample's `GET /imagine` below every application's route prefix, Ray Serve's own pages
//! `/-/healthz` and `/-/routes`, and OpenAI's Images API ([`openai`]) and the Open Inference Protocol ([`v2`]) with their own answers. Of the others, those that Ray or
//! FastAPI give are given in their words, and all else is JSON with `{"error": {"code", "reason", "message", "violations"}}`.
//!
//! Where it differs from the sample on purpose: an empty prompt and a bad size are 422 (there 500), and so are query
//! fields that it does not know (there ignored).

mod answer;
mod caller;
mod door;
mod fastapi;
mod gate;
mod openai;
mod query;
mod read;
mod serve;
mod v2;

pub(crate) use self::{openai::Door as OpenAi, serve::serve};
