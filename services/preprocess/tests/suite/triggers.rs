//! Embeddings in prompts, and prompts of any kind.

use std::{fs, path::Path};

use crate::support::{GOLDEN, model, one};
use mobula_preprocess::{
    Error, Model,
    prompt::{Ask, Limits, Syntax, tokenize},
};

/// A safetensors file with one float32 tensor per name, of these shapes, all of ones.
fn embedding(tensors: &[(&str, [usize; 2])]) -> Vec<u8> {
    use safetensors::{Dtype, serialize, tensor::TensorView};
    let data: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, [rows, width])| 1.0_f32.to_le_bytes().repeat(rows * width))
        .collect();
    let views = tensors.iter().zip(&data).map(|((name, shape), data)| {
        let view = TensorView::new(Dtype::F32, shape.to_vec(), data).unwrap();
        (*name, view)
    });
    serialize(views, None).unwrap()
}

/// A model folder with two encoders, whose vocabularies end at 5000 and 6000, and the given embeddings.
fn with_embeddings(files: &[(&str, Vec<u8>)]) -> Result<Model, Error> {
    let folder = tempfile::tempdir().unwrap();
    for (number, size, width) in [("", 5000, 4), ("_2", 6000, 6)] {
        let tokenizer = folder.path().join(format!("tokenizer{number}"));
        fs::create_dir(&tokenizer).unwrap();
        for name in ["vocab.json", "merges.txt"] {
            fs::copy(Path::new(GOLDEN).join(name), tokenizer.join(name)).unwrap();
        }
        let encoder = folder.path().join(format!("text_encoder{number}"));
        fs::create_dir(&encoder).unwrap();
        let config = format!(r#"{{"vocab_size": {size}, "hidden_size": {width}}}"#);
        fs::write(encoder.join("config.json"), config).unwrap();
    }
    fs::create_dir(folder.path().join("embeddings")).unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join("embeddings").join(name), bytes).unwrap();
    }
    Model::load(folder.path())
}

#[test]
fn triggers_become_the_ids_behind_the_vocabulary_in_every_syntax() {
    let model = with_embeddings(&[
        (
            "Style.safetensors",
            embedding(&[("clip_l", [2, 4]), ("clip_g", [3, 6])]),
        ),
        ("cat.safetensors", embedding(&[("<cat-toy>", [1, 4])])),
    ])
    .unwrap();
    let window = |text: &str, syntax| {
        let prompt = one(&model, text, syntax, 1).unwrap().prompt.unwrap();
        prompt.spans[0].variants[0].windows[0].clone()
    };
    let large = |ids: &[u32]| ids.iter().copied().filter(|id| *id >= 5000).collect::<Vec<_>>();
    for (text, syntax) in [
        ("a <cat-toy> in Style", Syntax::Plain),
        ("a <cat-toy> in (Style:1.3)", Syntax::A1111),
        ("a <CAT-TOY> in [style::5]", Syntax::A1111),
        ("a <cat-toy> in (Style)1.3", Syntax::Compel),
    ] {
        let window = window(text, syntax);
        assert_eq!(large(&window.ids), [5002, 5000, 5001], "{text}");
        // Only Style is for both encoders.
        assert_eq!(large(&window.ids_2), [6000, 6001, 6002], "{text}");
        if syntax == Syntax::A1111 && text.contains("1.3") {
            let at = window.ids.iter().position(|id| *id == 5000).unwrap();
            assert_eq!(window.weights[at - 1..at + 3], [1.0, 1.3, 1.3, 1.0]);
        }
    }
    // Where letters count, another word is only a word.
    assert!(large(&window("a <CAT-TOY> in style", Syntax::Plain).ids).is_empty());
    assert!(large(&window("Styled", Syntax::A1111).ids).is_empty());
}

#[test]
fn the_vectors_of_one_embedding_stay_in_one_window_and_cut_ones_are_named() {
    let model = with_embeddings(&[("long.safetensors", embedding(&[("emb_params", [20, 4])]))]).unwrap();
    let text = format!("{}long", "a ".repeat(60));
    let prompt = one(&model, &text, Syntax::A1111, 1).unwrap().prompt.unwrap();
    let windows = &prompt.spans[0].variants[0].windows;
    assert_eq!(windows.len(), 2);
    assert_eq!(windows[1].ids[1..21], (5000..5020).collect::<Vec<_>>());
    let plain = one(&model, &format!("{}long b", "a ".repeat(60)), Syntax::Plain, 1).unwrap();
    assert_eq!(
        (plain.truncated_count, plain.truncated_text.as_str()),
        (6, "long b")
    );
}

#[test]
fn an_embedding_that_does_not_fit_is_named_when_the_model_is_loaded() {
    let wide = with_embeddings(&[("wide.safetensors", embedding(&[("emb_params", [1, 9])]))]);
    let why = wide.unwrap_err().to_string();
    assert!(why.contains("\"wide\"") && why.contains("9 numbers"), "{why}");
    let broken = with_embeddings(&[("broken.safetensors", b"x".to_vec())]);
    assert!(broken.unwrap_err().to_string().contains("broken.safetensors"));
}

mod properties {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    static MODELS: LazyLock<Vec<Model>> = LazyLock::new(|| {
        let style = embedding(&[("clip_l", [2, 4]), ("clip_g", [3, 6])]);
        vec![
            model(&[("tokenizer", "sd2")]),
            model(&[("tokenizer", "sides")]),
            with_embeddings(&[("Style.safetensors", style)]).unwrap(),
            Model::load(Path::new("fake")).unwrap(),
        ]
    });

    /// Any text, and text that is full of syntax.
    fn text() -> impl Strategy<Value = String> {
        let pieces = "[()\\[\\]:|\"\\\\+.,=-]{1,3}|BREAK| |[a-z]{1,6}|:[0-9.]{1,4}[)\\]]|[(]?Style[)]?|[0-9.]{1,3}|\\.attend[(]";
        prop_oneof![
            any::<String>(),
            prop::collection::vec(pieces, 0..60).prop_map(|pieces| pieces.concat()),
            (any::<char>(), 0..300_usize).prop_map(|(char, times)| char.to_string().repeat(times)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn any_text_makes_full_windows_with_finite_weights_or_an_error_that_names_it(
            texts in prop::collection::vec(text(), 1..4),
            steps in 0_u32..40,
        ) {
            for (model, syntax) in MODELS.iter().flat_map(|model| {
                [Syntax::Plain, Syntax::A1111, Syntax::Compel].map(|syntax| (model, syntax))
            }) {
                let ask = Ask { texts: &texts, syntax, steps, limits: Limits::default() };
                let done = match tokenize(model, ask) {
                    Ok(done) => done,
                    Err(Error::Invalid { field, .. }) => {
                        prop_assert!(field.starts_with("texts") && syntax != Syntax::Plain);
                        continue;
                    }
                    Err(other) => return Err(TestCaseError::fail(other.to_string())),
                };
                prop_assert_eq!(done.len(), texts.len());
                let length = model.first.frame().window;
                let mut counts = Vec::new();
                for prompt in done.into_iter().map(|text| text.prompt.unwrap()) {
                    let mut until = 0;
                    for (at, span) in prompt.spans.iter().enumerate() {
                        let is_last = at + 1 == prompt.spans.len();
                        prop_assert!(is_last == (span.until_step == 0));
                        prop_assert!(is_last || span.until_step > until);
                        until = span.until_step;
                        prop_assert!(!span.variants.is_empty());
                    }
                    for variant in prompt.spans.iter().flat_map(|span| &span.variants) {
                        prop_assert!(variant.weight.is_finite() && variant.weight > 0.0);
                        counts.push(variant.windows.len());
                        for window in &variant.windows {
                            prop_assert_eq!(window.ids.len(), length);
                            prop_assert_eq!(window.ids_2.len(), if model.second.is_some() { length } else { 0 });
                            for weights in [&window.weights, &window.weights_2] {
                                prop_assert!(weights.is_empty() || weights.len() == length);
                                prop_assert!(weights.iter().all(|weight| weight.is_finite()));
                            }
                        }
                    }
                }
                counts.dedup();
                prop_assert_eq!(counts.len(), 1);
            }
        }
    }
}
