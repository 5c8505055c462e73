//! The prompts: windows of the right length, ids that the model has, weights that are numbers, and not too much of anything.

use std::collections::HashSet;
use std::sync::Arc;

use mobula_proto::common::v1 as common;
use mobula_proto::inference::v1::GenerateRequest;

use super::{Model, Violations};
use crate::engine::Info;
use crate::runner::{Emphasis, Prompt, Stretch, Variant, Window};

/// Stretches of a prompt at most: one for every step that a schedule can have.
const MAX_STRETCHES: usize = 1000;
/// Texts in a mixture at most: the whole and one without each of fifteen words.
const MAX_VARIANTS: usize = 16;
/// Windows in both prompts at most, over all stretches and variants; each costs a run of the text encoder.
pub(super) const MAX_WINDOWS: usize = 2048;
/// Memory of a request's text states at most: a prompt that is another one at each of 100 steps of Stable Diffusion XL.
const MAX_STATE_BYTES: usize = 128 << 20;
/// Largest weight; the states are noise to a UNet long before.
const MAX_WEIGHT: f32 = 1000.0;

/// The prompt, and the negative one when there are two rows; `None` when something is wrong.
pub(super) fn check(
    wrong: &mut Violations,
    request: &GenerateRequest,
    model: &Model<'_>,
    guided: bool,
) -> Option<(Prompt, Option<Prompt>)> {
    let before = wrong.0.len();
    let prompt = prompt(wrong, "prompt", request.prompt.as_ref(), model.info);
    let negative = if guided {
        prompt_of_negative(wrong, request, model.info)
    } else {
        Some(None)
    };
    let (prompt, negative) = (prompt?, negative?);
    let windows = prompt.windows();
    let max = model.max_windows;
    wrong.expect(windows <= max, "prompt", || {
        format!("{windows} windows of text, expected at most {max}")
    });
    let uneven = |prompt: &Prompt| {
        prompt
            .stretches
            .iter()
            .flat_map(|stretch| &stretch.variants)
            .any(|variant| variant.windows.len() != windows)
    };
    wrong.expect(!uneven(&prompt), "prompt", || {
        format!("its texts do not all have the {windows} windows of the first")
    });
    wrong.expect(!negative.as_ref().is_some_and(uneven), "negative_prompt", || {
        format!("its texts do not all have the {windows} windows of the prompt")
    });
    let all = prompt.ids().count() + negative.as_ref().map_or(0, |negative| negative.ids().count());
    wrong.expect(all <= MAX_WINDOWS, "prompt", || {
        format!("{all} windows in all, expected at most {MAX_WINDOWS}")
    });
    let states: usize = std::iter::once(&prompt)
        .chain(&negative)
        .map(|prompt| state_bytes(prompt, model.info))
        .sum();
    wrong.expect(states <= MAX_STATE_BYTES, "prompt", || {
        format!("its different texts take {states} bytes of states, expected at most {MAX_STATE_BYTES}")
    });
    (wrong.0.len() == before).then_some((prompt, negative))
}

/// Bytes that a prompt's states take: of every different window as it is encoded, and of every different stretch.
fn state_bytes(prompt: &Prompt, info: &Info) -> usize {
    let ids: HashSet<_> = prompt.ids().collect();
    let mut stretches: Vec<&[Variant]> = Vec::new();
    for stretch in &prompt.stretches {
        if !stretches.contains(&&stretch.variants[..]) {
            stretches.push(&stretch.variants);
        }
    }
    let windows = ids.len() + stretches.len() * prompt.windows();
    windows * info.states() * size_of::<f32>()
}

fn prompt_of_negative(
    wrong: &mut Violations,
    request: &GenerateRequest,
    info: &Info,
) -> Option<Option<Prompt>> {
    prompt(wrong, "negative_prompt", request.negative_prompt.as_ref(), info).map(Some)
}

fn prompt(
    wrong: &mut Violations,
    field: &str,
    prompt: Option<&common::Prompt>,
    info: &Info,
) -> Option<Prompt> {
    let before = wrong.0.len();
    let Some(prompt) = prompt else {
        wrong.expect(false, field, || "is missing".into());
        return None;
    };
    let spans = &prompt.spans;
    wrong.expect((1..=MAX_STRETCHES).contains(&spans.len()), field, || {
        format!("{} spans, expected 1 to {MAX_STRETCHES}", spans.len())
    });
    let falls = spans.windows(2).any(|pair| {
        pair[0].until_step == 0 || (pair[1].until_step != 0 && pair[1].until_step <= pair[0].until_step)
    });
    wrong.expect(!falls, field, || {
        "spans are not in the order of their steps".into()
    });
    let variants = spans.iter().map(|span| span.variants.len());
    let (fewest, most) = variants.fold((usize::MAX, 0), |(low, high), n| (low.min(n), high.max(n)));
    wrong.expect(
        spans.is_empty() || (fewest >= 1 && most <= MAX_VARIANTS),
        field,
        || format!("a span has {most} variants, expected 1 to {MAX_VARIANTS}"),
    );
    let emphasis = emphasis(wrong, field, prompt, info);
    let stretches = spans
        .iter()
        .take(MAX_STRETCHES)
        .map(|span| Stretch {
            until: (span.until_step > 0).then_some(span.until_step),
            variants: span
                .variants
                .iter()
                .take(MAX_VARIANTS)
                .map(|one| variant(wrong, field, one, info))
                .collect(),
        })
        .collect();
    (wrong.0.len() == before).then_some(Prompt {
        stretches,
        emphasis: emphasis?,
        is_empty: prompt.is_empty,
    })
}

fn emphasis(wrong: &mut Violations, field: &str, prompt: &common::Prompt, info: &Info) -> Option<Emphasis> {
    const NAMES: &[&str] = &["EMPHASIS_MEAN", "EMPHASIS_EMPTY"];
    match wrong.choice(&format!("{field}.emphasis"), prompt.emphasis, NAMES) {
        common::Emphasis::Unspecified => Some(Emphasis::None),
        common::Emphasis::Mean => Some(Emphasis::Mean),
        common::Emphasis::Empty => {
            wrong.expect(prompt.empty.is_some(), field, || {
                "EMPHASIS_EMPTY needs the window of the empty prompt".into()
            });
            let window = window(wrong, field, prompt.empty.as_ref()?, info);
            Some(Emphasis::Empty(window.ids))
        }
    }
}

fn variant(wrong: &mut Violations, field: &str, variant: &common::PromptVariant, info: &Info) -> Variant {
    let share = variant.weight;
    wrong.expect(share.is_finite() && share > 0.0, field, || {
        format!("a variant's weight is {share}, expected a positive number")
    });
    wrong.expect(!variant.windows.is_empty(), field, || {
        "a variant has no window".into()
    });
    Variant {
        share,
        windows: variant
            .windows
            .iter()
            .take(MAX_WINDOWS)
            .map(|one| window(wrong, field, one, info))
            .collect(),
    }
}

pub(super) fn window(
    wrong: &mut Violations,
    field: &str,
    window: &common::PromptWindow,
    info: &Info,
) -> Window {
    let parts = [
        (&window.ids, &window.weights, "ids"),
        (&window.ids_2, &window.weights_2, "ids_2"),
    ];
    let mut ids = Vec::with_capacity(info.ids());
    let mut weights = Vec::new();
    let weighted = parts.iter().any(|(_, weights, _)| !weights.is_empty());
    for (n, (part, their, name)) in parts.into_iter().enumerate() {
        let Some(encoder) = info.encoders.get(n) else {
            wrong.expect(part.is_empty() && their.is_empty(), field, || {
                format!(
                    "{name} is given, but the model has {} text encoder",
                    info.encoders.len()
                )
            });
            continue;
        };
        wrong.expect(part.len() == info.window, field, || {
            format!("{name} has {} ids, expected {}", part.len(), info.window)
        });
        let above = part.iter().find(|id| **id >= encoder.vocabulary);
        wrong.expect(above.is_none(), field, || {
            let id = above.copied().unwrap_or_default();
            format!("{name} has id {id}, which is not below {}", encoder.vocabulary)
        });
        wrong.expect(their.is_empty() || their.len() == info.window, field, || {
            format!(
                "{name} has {} weights, expected {} or none",
                their.len(),
                info.window
            )
        });
        let bad = their
            .iter()
            .find(|weight| weight.is_nan() || weight.abs() > MAX_WEIGHT);
        wrong.expect(bad.is_none(), field, || {
            let weight = bad.copied().unwrap_or_default();
            format!("a weight is {weight}, expected -{MAX_WEIGHT} to {MAX_WEIGHT}")
        });
        ids.extend_from_slice(part);
        if weighted {
            if their.is_empty() {
                weights.resize(weights.len() + info.window, 1.0);
            } else {
                weights.extend_from_slice(their);
            }
        }
    }
    Window {
        ids: ids.into(),
        weights: weighted.then(|| Arc::from(weights)),
    }
}
