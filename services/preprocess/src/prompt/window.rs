//! Texts to windows: the whole way, for the one or two text encoders of a model.
//!
//! Refuses calls with more windows than the limits. Invariant: windows of both encoders stand side by side, where one of
//! them needs more the other gets empty ones.

use mobula_proto::{
    common::v1::{Emphasis, Prompt, PromptSpan, PromptVariant, PromptWindow},
    preprocess::v1::TokenizedText,
};

use super::{
    Ask, Refused, Script, Syntax, Version,
    chunk::{self, Chunk, Failed},
};
use crate::{Error, Model, model::Reader, tokenizer::Frame};

/// Turns texts into windows for a model's text encoders.
///
/// # Errors
///
/// [`Error::Invalid`] names the text by its place and says what is not served or which limit is broken;
/// [`Error::Tokenizer`].
pub fn tokenize(model: &Model, ask: Ask<'_>) -> Result<Vec<TokenizedText>, Error> {
    let mut texts = Vec::with_capacity(ask.texts.len());
    let mut total = 0;
    for (at, text) in ask.texts.iter().enumerate() {
        let done = match ask.syntax {
            Syntax::Plain => plain(model, text).map_err(Failed::Error),
            Syntax::A1111 | Syntax::Compel => written(model, text, &ask, &mut total),
        };
        texts.push(done.map_err(|failed| match failed {
            Failed::Error(error) => error,
            Failed::Refused(Refused(why)) => Error::Invalid {
                field: format!("texts[{at}]"),
                why,
            },
        })?);
    }
    level(model, &mut texts, &ask)?;
    Ok(texts)
}

/// One window, as diffusers makes it; each encoder cuts off what does not fit its own.
fn plain(model: &Model, text: &str) -> Result<TokenizedText, Error> {
    let first = model.first.window(text)?;
    let second = model
        .second
        .as_ref()
        .map(|reader| reader.window(text))
        .transpose()?;
    let window = PromptWindow {
        ids: first.ids,
        ids_2: second.map(|sequence| sequence.ids).unwrap_or_default(),
        ..PromptWindow::default()
    };
    let variant = PromptVariant {
        weight: 1.0,
        windows: vec![window],
    };
    let span = PromptSpan {
        until_step: 0,
        variants: vec![variant],
    };
    Ok(TokenizedText {
        prompt: Some(Prompt {
            spans: vec![span],
            is_empty: text.is_empty(),
            ..Prompt::default()
        }),
        token_count: count(first.token_count),
        truncated_count: count(first.truncated_count),
        truncated_text: first.truncated_text,
    })
}

/// A text with syntax.
fn written(model: &Model, text: &str, ask: &Ask<'_>, total: &mut usize) -> Result<TokenizedText, Failed> {
    let script = Script::read(text, ask.syntax, ask.steps, &ask.limits)?;
    let mut prompt = Prompt {
        is_empty: text.is_empty(),
        ..Prompt::default()
    };
    let mut token_count = 0;
    for (until_step, versions) in script.spans {
        let mut variants = Vec::with_capacity(versions.len());
        for version in versions {
            let (variant, tokens) = variant(model, &version, ask)?;
            *total += variant.windows.len();
            if *total > ask.limits.total {
                return Err(too_many(*total, ask).into());
            }
            if prompt.spans.is_empty() && variants.is_empty() {
                token_count = tokens;
            }
            variants.push(variant);
        }
        prompt.spans.push(PromptSpan { until_step, variants });
    }
    if windows(&prompt).any(|window| !window.weights.is_empty() || !window.weights_2.is_empty()) {
        prompt.set_emphasis(match ask.syntax {
            Syntax::Plain => Emphasis::Unspecified,
            Syntax::A1111 => Emphasis::Mean,
            Syntax::Compel => Emphasis::Empty,
        });
        if ask.syntax == Syntax::Compel {
            prompt.empty = Some(empty(model));
        }
    }
    Ok(TokenizedText {
        prompt: Some(prompt),
        token_count: count(token_count),
        ..TokenizedText::default()
    })
}

/// One text of a mixture, and how many tokens the first encoder sees in it, start and end tokens among them.
fn variant(model: &Model, version: &Version, ask: &Ask<'_>) -> Result<(PromptVariant, usize), Failed> {
    let chunks = |reader: &Reader| match ask.syntax {
        Syntax::Compel => chunk::compel(reader, &version.parts, &ask.limits),
        Syntax::Plain | Syntax::A1111 => chunk::a1111(reader, &version.parts, &ask.limits),
    };
    let first = chunks(&model.first)?;
    let second = model.second.as_ref().map(chunks).transpose()?.unwrap_or_default();
    let tokens = first.iter().map(|chunk| chunk.ids.len() + 2).sum();
    let (none, cuts) = (Chunk::default(), ask.syntax == Syntax::A1111);
    let mut windows = Vec::with_capacity(first.len().max(second.len()));
    for at in 0..first.len().max(second.len()) {
        let (ids, weights) = framed(model.first.frame(), first.get(at).unwrap_or(&none), cuts);
        let mut window = PromptWindow {
            ids,
            weights,
            ..PromptWindow::default()
        };
        if let Some(reader) = &model.second {
            let chunk = second.get(at).unwrap_or(&none);
            (window.ids_2, window.weights_2) = framed(reader.frame(), chunk, cuts);
        }
        windows.push(window);
    }
    let variant = PromptVariant {
        weight: version.share,
        windows,
    };
    Ok((variant, tokens))
}

/// A window's ids and weights; the weights are empty where all are 1. Padding is behind the text whatever the tokenizer says,
/// as AUTOMATIC1111 and compel have it.
///
/// `cuts`: an end token in the text ends it where padding is another token (`process_tokens` of
/// modules/sd_hijack_clip.py).
fn framed(frame: Frame, chunk: &Chunk, cuts: bool) -> (Vec<u32>, Vec<f32>) {
    let mut ids = Vec::with_capacity(frame.window);
    ids.push(frame.bos);
    ids.extend(&chunk.ids);
    ids.push(frame.eos);
    ids.resize(frame.window, frame.pad);
    if cuts
        && frame.pad != frame.eos
        && let Some(end) = ids.iter().position(|id| *id == frame.eos)
    {
        ids[end + 1..].fill(frame.pad);
    }
    if chunk.weights.iter().all(|weight| *weight == 1.0) {
        return (ids, Vec::new());
    }
    let mut weights = vec![1.0];
    weights.extend(&chunk.weights);
    weights.resize(frame.window, 1.0);
    (ids, weights)
}

/// The window of an empty text.
fn empty(model: &Model) -> PromptWindow {
    let ids = |reader: &Reader| framed(reader.frame(), &Chunk::default(), false).0;
    PromptWindow {
        ids: ids(&model.first),
        ids_2: model.second.as_ref().map(ids).unwrap_or_default(),
        ..PromptWindow::default()
    }
}

/// Gives all texts as many windows as the longest has.
fn level(model: &Model, texts: &mut [TokenizedText], ask: &Ask<'_>) -> Result<(), Error> {
    let variants = |text: &TokenizedText| {
        let spans = text.prompt.iter().flat_map(|prompt| &prompt.spans);
        spans
            .flat_map(|span| &span.variants)
            .map(|variant| variant.windows.len())
            .collect::<Vec<_>>()
    };
    let lengths: Vec<usize> = texts.iter().flat_map(variants).collect();
    let longest = lengths.iter().copied().max().unwrap_or_default();
    let needed = lengths.len() * longest;
    if needed > ask.limits.total {
        return Err(Error::Invalid {
            field: "texts".into(),
            why: too_many(needed, ask).0,
        });
    }
    let empty = empty(model);
    for text in texts {
        let spans = text.prompt.iter_mut().flat_map(|prompt| &mut prompt.spans);
        for variant in spans.flat_map(|span| &mut span.variants) {
            variant.windows.resize(longest, empty.clone());
        }
    }
    Ok(())
}

fn windows(prompt: &Prompt) -> impl Iterator<Item = &PromptWindow> {
    let variants = prompt.spans.iter().flat_map(|span| &span.variants);
    variants.flat_map(|variant| &variant.windows)
}

/// `needed` were counted when the limit was passed.
fn too_many(needed: usize, ask: &Ask<'_>) -> Refused {
    Refused(format!(
        "needs at least {needed} windows of tokens in all spans and variants of the call, more than {}",
        ask.limits.total
    ))
}

/// A number of tokens; a text of 64 KiB has fewer than there are numbers.
fn count(tokens: usize) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}
