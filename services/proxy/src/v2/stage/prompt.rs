//! Prompts as a denoiser takes them: windows of tokens, what encoders made of them, and the weights of their words. Pure.
//!
//! Compel's weights move states away from those of the empty prompt, which are a window of their own beside the prompt's.
//! Invariant: weights of 1 are no weights, so that a prompt without any is what it is in the whole pipeline.

use bytes::Bytes;
use mobula_proto::{
    common::v1::{Emphasis, Prompt, PromptSpan, PromptVariant, PromptWindow},
    inference::v1::{EncodedText, TextWindow},
};

use super::{
    super::given::Given,
    text::{Windows, floats, numbers, windows},
};
use crate::problem::Rule;

/// What weights of words do, by the names that they have in tensors' company.
pub(super) const EMPHASES: [(&str, Emphasis); 2] = [("mean", Emphasis::Mean), ("empty", Emphasis::Empty)];

/// One prompt: what its windows are, and what encoders made of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Encoded {
    pub(super) prompt: Prompt,
    pub(super) texts: Vec<EncodedText>,
}

/// Names of one prompt's tensors.
pub(super) struct Names {
    text: TextNames,
    weights: [&'static str; 2],
    is_empty: &'static str,
    /// Of the empty prompt beside it.
    empty: TextNames,
}

/// Names of a text's windows and of what encoders made of them.
struct TextNames {
    ids: [&'static str; 2],
    states: &'static str,
    pooled: &'static str,
}

pub(super) const PROMPT: Names = Names {
    text: TextNames {
        ids: ["input_ids", "input_ids_2"],
        states: "hidden_states",
        pooled: "pooled",
    },
    weights: ["weights", "weights_2"],
    is_empty: "is_empty",
    empty: TextNames {
        ids: ["empty_input_ids", "empty_input_ids_2"],
        states: "empty_hidden_states",
        pooled: "empty_pooled",
    },
};

pub(super) const NEGATIVE: Names = Names {
    text: TextNames {
        ids: ["negative_input_ids", "negative_input_ids_2"],
        states: "negative_hidden_states",
        pooled: "negative_pooled",
    },
    weights: ["negative_weights", "negative_weights_2"],
    is_empty: "negative_is_empty",
    empty: TextNames {
        ids: ["negative_empty_input_ids", "negative_empty_input_ids_2"],
        states: "negative_empty_hidden_states",
        pooled: "negative_empty_pooled",
    },
};

impl Names {
    /// A request has such a prompt.
    pub(super) fn is_in(&self, given: &Given) -> bool {
        self.text.is_in(given)
    }
}

impl TextNames {
    fn is_in(&self, given: &Given) -> bool {
        given.has(self.ids[0]) || given.has(self.states)
    }
}

/// What weights do in a request.
pub(super) fn emphasis(given: &mut Given) -> Emphasis {
    match given.word("emphasis", &[("none", 1), ("mean", 2), ("empty", 3)]) {
        2 => Emphasis::Mean,
        3 => Emphasis::Empty,
        _ => Emphasis::Unspecified,
    }
}

/// Reads one prompt; what is wrong with it is complained of.
pub(super) fn encoded(given: &mut Given, names: &Names, (emphasis, clip_skip): (Emphasis, u32)) -> Encoded {
    let texts = texts(given, &names.text, clip_skip);
    let weights = names.weights.map(|name| (name, floats(given, name, 2)));
    let is_empty = given.flag(names.is_empty);
    let has_empty = names.empty.is_in(given);
    let Some(mut texts) = texts else {
        return Encoded::default();
    };
    let Some(windows) = weighted(given, &texts, weights) else {
        return Encoded::default();
    };
    let is_weighted = windows
        .iter()
        .any(|window| !window.weights.is_empty() || !window.weights_2.is_empty());
    let emphasis = if is_weighted {
        emphasis
    } else {
        Emphasis::Unspecified
    };
    let mut empty = None;
    if emphasis == Emphasis::Empty {
        let found = self::texts(given, &names.empty, clip_skip);
        match found.as_deref() {
            Some([one]) => empty = one.window.as_ref().map(of),
            Some(several) => {
                let why = format!("has {} windows, and the empty prompt is one", several.len());
                given.wrong(names.empty.ids[0], why);
            }
            None => {}
        }
        texts.extend(found.unwrap_or_default());
    } else if has_empty && is_weighted {
        given.wrong(names.empty.ids[0], "is for weights of which emphasis is empty");
    }
    let variant = PromptVariant { weight: 1.0, windows };
    Encoded {
        prompt: Prompt {
            spans: vec![PromptSpan {
                until_step: 0,
                variants: vec![variant],
            }],
            emphasis: emphasis.into(),
            empty,
            is_empty,
        },
        texts,
    }
}

/// Reads the windows of a text with what encoders made of them; none where they do not go together.
fn texts(given: &mut Given, names: &TextNames, clip_skip: u32) -> Option<Vec<EncodedText>> {
    let Windows { windows, .. } = windows(given, (names.ids[0], names.ids[1]), clip_skip);
    let count = windows.len() as u64;
    let states = floats(given, names.states, 3);
    let pooled = floats(given, names.pooled, 2);
    let tokens = windows.first()?.ids.len() as u64;
    let Some((shape, data)) = states else {
        given.complain(names.states, Rule::Missing);
        return None;
    };
    if shape[..2] != [count, tokens] {
        let why = format!(
            "has the shape {shape:?}, and {} are {count} windows of {tokens} tokens",
            names.ids[0]
        );
        given.wrong(names.states, why);
        return None;
    }
    if let Some((shape, _)) = &pooled
        && shape[0] != count
    {
        given.wrong(names.pooled, format!("has {} rows for {count} windows", shape[0]));
        return None;
    }
    let row = |(shape, data): &(Vec<u64>, Bytes), nth: usize| {
        let size = data.len() / shape[0] as usize;
        numbers(shape[1..].to_vec(), data.slice(nth * size..(nth + 1) * size))
    };
    let states = (shape, data);
    let texts = windows.into_iter().enumerate().map(|(nth, window)| EncodedText {
        window: Some(window),
        states: Some(row(&states, nth)),
        pooled: pooled.as_ref().map(|pooled| row(pooled, nth)),
    });
    Some(texts.collect())
}

/// A tensor of weights, if there is one, by its name.
type Weights = (&'static str, Option<(Vec<u64>, Bytes)>);

/// The windows of a text with the weights of their words; none where they do not go together.
fn weighted(given: &mut Given, texts: &[EncodedText], weights: [Weights; 2]) -> Option<Vec<PromptWindow>> {
    let mut windows: Vec<_> = texts
        .iter()
        .filter_map(|text| text.window.as_ref())
        .map(of)
        .collect();
    let sides = [windows.len(), windows.first()?.ids.len()].map(|side| side as u64);
    for (nth, (name, weights)) in weights.into_iter().enumerate() {
        let Some((shape, data)) = weights else { continue };
        if shape != sides {
            let why = format!("has the shape {shape:?} and must have {sides:?}");
            given.wrong(name, why);
            return None;
        }
        let values: Vec<f32> = data
            .as_chunks()
            .0
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect();
        for (window, weights) in windows.iter_mut().zip(values.chunks(sides[1] as usize)) {
            if weights.iter().all(|weight| *weight == 1.0) {
                continue;
            }
            match nth {
                0 => window.weights = weights.to_vec(),
                _ => window.weights_2 = weights.to_vec(),
            }
        }
    }
    Some(windows)
}

fn of(window: &TextWindow) -> PromptWindow {
    PromptWindow {
        ids: window.ids.clone(),
        ids_2: window.ids_2.clone(),
        ..PromptWindow::default()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::super::{ask::Value, datatype::Datatype, tensor::Tensor},
        *,
    };

    fn ids(name: &str, ids: &[i64]) -> Tensor {
        let data = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        Tensor::of(name, Datatype::Int64, vec![1, ids.len() as i64], data)
    }

    fn floats(name: &str, shape: &[i64], value: f32) -> Tensor {
        let count: i64 = shape.iter().product();
        let data = value.to_le_bytes().repeat(count as usize);
        Tensor::of(name, Datatype::Fp32, shape.to_vec(), data.into())
    }

    /// A prompt of two tokens, both of this weight, and the empty one beside it.
    fn read(weight: f32, emphasis: &str, change: impl FnOnce(&mut Vec<Tensor>)) -> (Encoded, Vec<String>) {
        let mut tensors = vec![
            ids("input_ids", &[1, 2]),
            floats("hidden_states", &[1, 2, 4], 0.5),
            floats("weights", &[1, 2], weight),
            ids("empty_input_ids", &[7, 7]),
            floats("empty_hidden_states", &[1, 2, 4], 0.25),
        ];
        change(&mut tensors);
        let parameters = [("emphasis".to_owned(), Value::Text(emphasis.to_owned()))];
        let mut given = Given::new(tensors, parameters.into());
        let emphasis = super::emphasis(&mut given);
        let read = encoded(&mut given, &PROMPT, (emphasis, 1));
        let told = given.problems.iter().map(|p| format!("{} {}", p.field, p.rule));
        (read, told.collect())
    }

    #[test]
    fn weights_of_compels_bring_the_empty_prompt() {
        let (read, told) = read(1.5, "empty", |_| ());
        assert!(told.is_empty(), "{told:?}");
        assert_eq!(read.prompt.emphasis(), Emphasis::Empty);
        assert_eq!(read.prompt.empty.unwrap().ids, [7, 7]);
        let windows = &read.prompt.spans[0].variants[0].windows;
        assert_eq!(windows[0].weights, [1.5, 1.5]);
        let texts: Vec<_> = read
            .texts
            .iter()
            .map(|text| text.window.clone().unwrap())
            .collect();
        assert_eq!(
            (texts.len(), &texts[1].ids[..], texts[1].clip_skip),
            (2, &[7, 7][..], 1)
        );
    }

    #[test]
    fn weights_of_one_are_none() {
        for emphasis in ["none", "mean", "empty"] {
            let (read, told) = read(1.0, emphasis, |_| ());
            assert!(told.is_empty(), "{told:?}");
            assert_eq!(read.prompt.emphasis(), Emphasis::Unspecified);
            assert!(read.prompt.empty.is_none() && read.texts.len() == 1);
            assert!(read.prompt.spans[0].variants[0].windows[0].weights.is_empty());
        }
    }

    #[test]
    fn an_empty_prompt_that_does_not_belong_there_is_told_by_name() {
        type Change = fn(&mut Vec<Tensor>);
        let changes: [(&str, Change, &str); 4] = [
            ("empty", |t| drop(t.drain(3..)), "empty_input_ids is required"),
            ("empty", |t| drop(t.remove(4)), "empty_hidden_states is required"),
            (
                "empty",
                |t| {
                    t[3] = ids("empty_input_ids", &[7, 7]);
                    t[3].shape = vec![2, 1];
                    t[4] = floats("empty_hidden_states", &[2, 1, 4], 0.0);
                },
                "empty_input_ids has 2 windows, and the empty prompt is one",
            ),
            (
                "mean",
                |_| (),
                "empty_input_ids is for weights of which emphasis is empty",
            ),
        ];
        for (emphasis, change, start) in changes {
            let (_, told) = read(0.5, emphasis, change);
            assert!(
                told.iter().any(|said| said.starts_with(start)),
                "{told:?} / {start}"
            );
        }
    }
}
