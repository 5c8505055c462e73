//! Tokens of prompts as tensors. Pure.

use bytes::Bytes;
use mobula_proto::{common::v1::PromptWindow, preprocess::v1::TokenizedText};

use super::{
    super::{
        ask::{Answer, Parameters, Value},
        datatype::Datatype,
        given::Given,
        tensor::{Tensor, wrong},
    },
    prompt::EMPHASES,
};
use crate::{Error, words};

/// What is to be tokenized.
#[derive(Debug)]
pub(super) struct Texts {
    pub(super) texts: Vec<String>,
    pub(super) syntax: i32,
}

/// Reads a request; `max_texts` prompts at most.
pub(super) fn read(given: &mut Given, max_texts: u32) -> Texts {
    let texts = given.texts("prompt");
    if texts.is_empty() {
        given.wrong("prompt", "must have one element at least");
    } else if texts.len() > max_texts as usize {
        let why = format!("has {} elements and may have at most {max_texts}", texts.len());
        given.wrong("prompt", why);
    }
    Texts {
        texts,
        syntax: given.word("prompt_syntax", words::SYNTAXES),
    }
}

/// The only windows of a text: those of a prompt that is the same for all steps and mixes nothing.
fn windows(text: &TokenizedText) -> Option<&[PromptWindow]> {
    let prompt = text.prompt.as_ref()?;
    match &prompt.spans[..] {
        [span] => match &span.variants[..] {
            [variant] => Some(&variant.windows),
            _ => None,
        },
        _ => None,
    }
}

/// Writes the answer.
pub(super) fn write(texts: &[TokenizedText]) -> Result<Answer, Error> {
    let all: Option<Vec<_>> = texts.iter().map(windows).collect();
    let Some(all) = all else {
        let why = "changes with the steps or mixes texts, which only the whole pipeline draws";
        return Err(Error::Invalid(vec![wrong("prompt", why)]));
    };
    let emphasis = texts
        .iter()
        .filter_map(|text| text.prompt.as_ref())
        .map(|prompt| prompt.emphasis());
    let emphasis = emphasis
        .max_by_key(|emphasis| i32::from(*emphasis))
        .unwrap_or_default();
    let first = all.first().and_then(|windows| windows.first());
    let tokens = first.map_or(0, |window| window.ids.len());
    let shape = [
        texts.len(),
        all.first().map_or(0, |windows| windows.len()),
        tokens,
    ]
    .map(|side| side as i64);
    let each = || all.iter().copied().flatten();
    let has_second = first.is_some_and(|window| !window.ids_2.is_empty());
    let even =
        |ids: &[u32], weights: &[f32]| ids.len() == tokens && (weights.is_empty() || weights.len() == tokens);
    let is_even = all.iter().all(|windows| windows.len() as i64 == shape[1])
        && each().all(|window| {
            even(&window.ids, &window.weights) && (!has_second || even(&window.ids_2, &window.weights_2))
        });
    if !is_even {
        return Err(Error::Answer("tokenize gave windows of several sizes"));
    }
    let mut outputs = vec![
        ids("input_ids", &shape, each().flat_map(|window| &window.ids)),
        weights(
            "weights",
            &shape,
            each().map(|window| &window.weights[..]),
            tokens,
        ),
    ];
    if has_second {
        outputs.push(ids(
            "input_ids_2",
            &shape,
            each().flat_map(|window| &window.ids_2),
        ));
        outputs.push(weights(
            "weights_2",
            &shape,
            each().map(|window| &window.weights_2[..]),
            tokens,
        ));
    }
    // The same beside each prompt that has weights.
    let mut empties = texts
        .iter()
        .filter_map(|text| text.prompt.as_ref()?.empty.as_ref());
    if let Some(empty) = empties.next() {
        let shape = [1, empty.ids.len() as i64];
        outputs.push(ids("empty_input_ids", &shape, empty.ids.iter()));
        if has_second {
            outputs.push(ids("empty_input_ids_2", &shape, empty.ids_2.iter()));
        }
    }
    let count = vec![texts.len() as i64];
    let empty = texts
        .iter()
        .map(|text| text.prompt.as_ref().is_some_and(|prompt| prompt.is_empty).into());
    outputs.push(Tensor::of(
        "is_empty",
        Datatype::Bool,
        count.clone(),
        empty.collect(),
    ));
    let truncated: Bytes = texts
        .iter()
        .flat_map(|text| text.truncated_count.to_le_bytes())
        .collect();
    outputs.push(Tensor::of("truncated_count", Datatype::Uint32, count, truncated));
    let mut parameters = Parameters::new();
    if let Some((name, _)) = EMPHASES.iter().find(|(_, known)| *known == emphasis) {
        parameters.insert("emphasis".to_owned(), Value::Text((*name).to_owned()));
    }
    Ok(Answer { parameters, outputs })
}

fn ids<'a>(name: &str, shape: &[i64], ids: impl Iterator<Item = &'a u32>) -> Tensor {
    let data = ids.flat_map(|id| i64::from(*id).to_le_bytes()).collect();
    Tensor::of(name, Datatype::Int64, shape.to_vec(), data)
}

fn weights<'a>(name: &str, shape: &[i64], each: impl Iterator<Item = &'a [f32]>, tokens: usize) -> Tensor {
    let mut data = Vec::new();
    for weights in each {
        if weights.is_empty() {
            data.extend(std::iter::repeat_n(1f32.to_le_bytes(), tokens).flatten());
        }
        data.extend(weights.iter().flat_map(|weight| weight.to_le_bytes()));
    }
    Tensor::of(name, Datatype::Fp32, shape.to_vec(), data.into())
}

#[cfg(test)]
mod tests {
    use mobula_proto::common::v1::{Emphasis, Prompt, PromptSpan, PromptVariant};

    use super::*;

    fn text(windows: &[(&[u32], &[f32])], variants: usize) -> TokenizedText {
        let window = |(ids, weights): &(&[u32], &[f32])| PromptWindow {
            ids: ids.to_vec(),
            weights: weights.to_vec(),
            ..PromptWindow::default()
        };
        let variant = PromptVariant {
            weight: 1.0,
            windows: windows.iter().map(window).collect(),
        };
        let span = PromptSpan {
            until_step: 0,
            variants: vec![variant; variants],
        };
        TokenizedText {
            prompt: Some(Prompt {
                spans: vec![span],
                emphasis: Emphasis::Mean.into(),
                ..Prompt::default()
            }),
            truncated_count: 3,
            ..TokenizedText::default()
        }
    }

    #[test]
    fn texts_windows_and_tokens_are_the_sides() {
        let texts = [
            text(&[(&[1, 2], &[]), (&[3, 4], &[0.5, 2.0])], 1),
            text(&[(&[5, 6], &[]), (&[7, 8], &[])], 1),
        ];
        let answer = write(&texts).unwrap();
        let by_name = |name: &str| answer.outputs.iter().find(|tensor| tensor.name == name).unwrap();
        let ids = by_name("input_ids");
        assert_eq!(
            (&ids.shape[..], ids.integers()),
            (&[2, 2, 2][..], Some((1..=8).collect()))
        );
        let weights = by_name("weights").numbers().unwrap();
        assert_eq!(weights, [1.0, 1.0, 0.5, 2.0, 1.0, 1.0, 1.0, 1.0]);
        assert_eq!(by_name("truncated_count").integers(), Some(vec![3, 3]));
        assert_eq!(answer.parameters["emphasis"], Value::Text("mean".into()));
        assert_eq!(answer.outputs.len(), 4, "one encoder");
    }

    #[test]
    fn compels_weights_come_with_the_empty_prompt() {
        let mut weighted = text(&[(&[1, 2], &[1.5, 1.0])], 1);
        let prompt = weighted.prompt.as_mut().unwrap();
        prompt.set_emphasis(Emphasis::Empty);
        prompt.empty = Some(PromptWindow {
            ids: vec![8, 9],
            ..PromptWindow::default()
        });
        let mut plain = text(&[(&[3, 4], &[])], 1);
        plain.prompt.as_mut().unwrap().set_emphasis(Emphasis::Unspecified);
        let answer = write(&[plain, weighted]).unwrap();
        assert_eq!(answer.parameters["emphasis"], Value::Text("empty".into()));
        let empty = answer
            .outputs
            .iter()
            .find(|tensor| tensor.name == "empty_input_ids");
        let empty = empty.unwrap();
        assert_eq!(
            (&empty.shape[..], empty.integers()),
            (&[1, 2][..], Some(vec![8, 9]))
        );
    }

    #[test]
    fn what_only_the_pipeline_draws_is_refused() {
        let error = write(&[text(&[(&[1], &[])], 2)]).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("prompt: changes with the steps or mixes"),
            "{error}"
        );
        assert!(write(&[text(&[(&[1], &[])], 1), text(&[(&[1, 2], &[])], 1)]).is_err());
    }
}
