//! Any text in any syntax: windows of the right length with finite weights, or an error.

#![no_main]

use std::{path::Path, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use mobula_preprocess::{
    Model,
    prompt::{Ask, Limits, Syntax, tokenize},
};

static MODEL: LazyLock<Model> = LazyLock::new(|| Model::load(Path::new("fake")).expect("it needs no files"));

fuzz_target!(|input: (u8, u16, String)| {
    let (syntax, steps, text) = input;
    let syntax = [Syntax::Plain, Syntax::A1111, Syntax::Compel][usize::from(syntax % 3)];
    let ask = Ask {
        texts: &[text],
        syntax,
        steps: steps.into(),
        limits: Limits::default(),
    };
    for text in tokenize(&MODEL, ask).unwrap_or_default() {
        let spans = text.prompt.into_iter().flat_map(|prompt| prompt.spans);
        for variant in spans.flat_map(|span| span.variants) {
            assert!(variant.weight.is_finite() && !variant.windows.is_empty());
            for window in variant.windows {
                assert_eq!(window.ids.len(), 77);
                assert!(window.weights.iter().all(|weight| weight.is_finite()));
            }
        }
    }
});
