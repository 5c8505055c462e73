use mobula_proto::common::v1::{PromptSpan, PromptVariant, PromptWindow, Tensor};

use super::*;

fn prompt(ids: &[u32], empty: Option<u32>) -> Option<Prompt> {
    let window = |id: &u32| PromptWindow {
        ids: vec![*id; 77],
        weights: vec![*id as f32; 77],
        ..PromptWindow::default()
    };
    let variant = PromptVariant {
        weight: 1.0,
        windows: ids.iter().map(window).collect(),
    };
    let span = PromptSpan {
        until_step: 0,
        variants: vec![variant],
    };
    Some(Prompt {
        spans: vec![span.clone(), span],
        empty: empty.as_ref().map(window),
        ..Prompt::default()
    })
}

#[test]
fn every_window_is_encoded_once_for_each_number_of_layers_that_are_left_out() {
    let mut request = GenerateRequest {
        prompt: prompt(&[1, 2, 1], Some(9)),
        negative_prompt: prompt(&[2, 3], Some(9)),
        ..GenerateRequest::default()
    };
    let of = |request: &GenerateRequest| -> Vec<(u32, u32)> {
        let windows = windows(request);
        windows
            .iter()
            .map(|window| (window.ids[0], window.clip_skip))
            .collect()
    };
    assert_eq!(of(&request), [(1, 0), (2, 0), (9, 0), (3, 0)]);
    request.clip_skip = 2;
    assert_eq!(of(&request), [(1, 2), (2, 2), (9, 2), (2, 0), (3, 0), (9, 0)]);
    request.negative_prompt = None;
    assert_eq!(of(&request), [(1, 2), (2, 2), (9, 2)]);
}

#[test]
fn more_than_a_message_carries_is_refused_with_how_much_it_is() {
    let text = |bytes: usize| EncodedText {
        states: Some(Tensor {
            data: vec![0; bytes].into(),
            ..Tensor::default()
        }),
        ..EncodedText::default()
    };
    let encoded = |bytes: &[usize]| Encoded {
        texts: bytes.iter().map(|bytes| text(*bytes)).collect(),
        moments: None,
        digest: String::new(),
    };
    assert!(encoded(&[MAX_ENCODED / 2; 2]).check().is_ok());
    let error = encoded(&[MAX_ENCODED / 2, MAX_ENCODED / 2 + 1])
        .check()
        .unwrap_err();
    assert_eq!(error.violations()[0].0, "prompt");
    assert!(error.violations()[0].1.contains("2 different windows"), "{error}");
}

#[test]
fn what_a_stage_refuses_is_told_by_the_callers_field() {
    let status = mobula_kit::status::invalid("windows", "has id 7");
    let error = named(Error::Worker(Box::new(status)), |_| "prompt");
    assert_eq!(error.violations(), [("prompt".to_owned(), "has id 7".to_owned())]);
    let error = named(Error::DeadlinePassed, |_| "prompt");
    assert!(matches!(error, Error::DeadlinePassed));
}
