use super::*;

fn found(triggers: &[&str], text: &str, case: Case) -> Vec<(String, u32)> {
    let mut known = Triggers::default();
    for (trigger, id) in triggers.iter().zip(0..) {
        known.add(trigger, id..id + 1);
    }
    let found = known.find(text, case).into_iter();
    found.map(|(at, ids)| (text[at].to_owned(), ids.start)).collect()
}

#[test]
fn a_trigger_counts_as_a_word_of_its_own() {
    let triggers = ["bad", "bad-hands-5", "<cat-toy>", "猫"];
    let seen = found(
        &triggers,
        "bad, bad-hands-5, bad-hands-55, badly, a<cat-toy>b 猫 犬猫",
        Case::Counts,
    );
    let names: Vec<&str> = seen.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["bad", "bad-hands-5", "bad", "<cat-toy>", "猫"]);
}

#[test]
fn letters_count_for_diffusers_and_not_for_automatic1111() {
    assert!(found(&["EasyNegative"], "easynegative", Case::Counts).is_empty());
    assert_eq!(found(&["EasyNegative"], "x easyNEGATIVE", Case::Ignored).len(), 1);
}

#[test]
fn text_beside_triggers_that_begin_alike_is_no_trouble() {
    assert!(found(&["é", "abc"], "ab e\u{301} ABX ééé", Case::Ignored).is_empty());
}

/// A model folder with a tiny vocabulary in the given tokenizers, and the second one's padding named.
fn folder(tokenizers: &[(&str, &str)], index: &str) -> tempfile::TempDir {
    let model = tempfile::tempdir().unwrap();
    for (name, pad) in tokenizers {
        let folder = model.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        let vocabulary = r#"{"!": 0, "a</w>": 1, "<|startoftext|>": 2, "<|endoftext|>": 3}"#;
        std::fs::write(folder.join("vocab.json"), vocabulary).unwrap();
        std::fs::write(folder.join("merges.txt"), "#version: 0.2\n").unwrap();
        let config = format!(r#"{{"pad_token": "{pad}", "model_max_length": 8}}"#);
        std::fs::write(folder.join("tokenizer_config.json"), config).unwrap();
    }
    std::fs::write(model.path().join("model_index.json"), index).unwrap();
    model
}

#[test]
fn model_index_json_says_which_encoders_there_are() {
    let both = [("tokenizer", "<|endoftext|>"), ("tokenizer_2", "!")];
    let clip = r#"["transformers", "CLIPTokenizer"]"#;
    let pads = |index: &str| {
        let model = Model::load(folder(&both, index).path()).unwrap();
        (
            model.first.frame().pad,
            model.second.map(|second| second.frame().pad),
        )
    };
    assert_eq!(pads("{}"), (3, Some(0)));
    assert_eq!(
        pads(&format!(r#"{{"tokenizer": {clip}, "tokenizer_2": {clip}}}"#)),
        (3, Some(0))
    );
    assert_eq!(
        pads(&format!(
            r#"{{"tokenizer": [null, null], "tokenizer_2": {clip}}}"#
        )),
        (0, None)
    );
    assert_eq!(
        pads(&format!(
            r#"{{"tokenizer": {clip}, "tokenizer_2": [null, null]}}"#
        )),
        (3, None)
    );
}

#[test]
fn windows_of_different_lengths_are_refused() {
    let model = folder(&[("tokenizer", "!"), ("tokenizer_2", "!")], "{}");
    std::fs::write(model.path().join("tokenizer_2/tokenizer_config.json"), "{}").unwrap();
    let why = Model::load(model.path()).unwrap_err().to_string();
    assert!(why.contains("is 77, but tokenizer has 8"), "{why}");
}
