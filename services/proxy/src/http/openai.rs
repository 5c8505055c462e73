//! OpenAI's Images API: pictures from prompts, from pictures and into pictures, at once or as they come, and the list of
//! models; with the fields of diffusion models beside OpenAI's. As the `openai` package speaks it.
//!
//! `/v1/...` at the root chooses the application by `model`; below an application's own prefix it is that application's.
//! What OpenAI's fields promise and cannot be kept here (transparency, other formats than PNG) is refused by the field's
//! name; hints (`quality`, `style`) and what is said of users are read and have no effect.

mod answer;
mod body;
mod door;
mod error;
mod fields;
mod form;
mod format;
mod kept;
mod limits;
mod link;
mod models;
mod path;
mod pieces;
mod policy;
mod sse;
mod story;
mod translate;

pub(crate) use self::door::Door;
pub(super) use self::{
    body::whole as read,
    door::{answer, refuse},
    error::Failure,
    path::{Ask, FILES},
    sse::Told,
};
