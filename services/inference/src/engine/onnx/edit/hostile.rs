//! Files that somebody made to break an edit, or that a disk broke: every edit ends, without a panic and with bounded memory.

use std::path::Path;

use proptest::prelude::*;

use super::graph::{
    GRAPH_INITIALIZER, GRAPH_NODE, GRAPH_OUTPUT, TENSOR_DIMS, TENSOR_NAME, TENSOR_TYPE, VALUE_NAME, node,
};
use super::*;

fn file(path: &str) -> Vec<u8> {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
    std::fs::read(models.join(path)).unwrap()
}

const FILES: [&str; 6] = [
    "sd15/text_encoder/model.onnx",
    "sd15/vae_decoder/model.onnx",
    "sd15-fp16/text_encoder/model.onnx",
    "sd15-fp16/vae_decoder/model.onnx",
    "sd15-extdata/unet/model.onnx",
    "sd15-legacy/text_encoder/model.onnx",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_change_of_a_models_bytes_is_edited_or_refused(
        which in 0..FILES.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..24),
        cut in prop::option::weighted(0.3, any::<prop::sample::Index>()),
    ) {
        let mut model = file(FILES[which]);
        for (place, byte) in changes {
            let place = place.index(model.len());
            model[place] = byte;
        }
        if let Some(cut) = cut {
            model.truncate(cut.index(model.len()));
        }
        every(&model, Path::new("/nonexistent"));
    }

    #[test]
    fn changes_near_the_names_and_numbers_of_a_graph_are_edited_or_refused(
        which in 0..FILES.len(),
        at in any::<prop::sample::Index>(),
        bytes in prop::collection::vec(any::<u8>(), 1..12),
        insert in any::<bool>(),
    ) {
        // Weights are at the end of a file; its structure is in the first part.
        let mut model = file(FILES[which]);
        let at = at.index(model.len().min(40_000));
        let end = if insert { at } else { (at + bytes.len()).min(model.len()) };
        model.splice(at..end, bytes);
        every(&model, Path::new("/nonexistent"));
    }

    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        every(&bytes, Path::new("/nonexistent"));
    }
}

#[test]
fn the_first_files_for_fuzzing_have_something_for_every_edit_and_are_edited_or_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/onnx_edit");
    let mut made: Vec<(String, &str)> = Vec::new();
    for seed in std::fs::read_dir(&folder).unwrap() {
        let path = seed.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let file = std::fs::read(path).unwrap();
        let edits = every(&file, Path::new("/nonexistent")).into_iter();
        made.extend(edits.filter_map(|(edit, made)| made.is_ok().then(|| (name.clone(), edit))));
        // Cut anywhere, it is refused or edited too.
        for end in (0..file.len()).step_by(7) {
            every(&file[..end], Path::new("/nonexistent"));
        }
    }
    let has = |seed: &str, edit| made.iter().any(|(name, made)| name == seed && *made == edit);
    for (seed, edit) in [
        ("timestep", "batched"),
        ("timestep-whole", "batched"),
        ("timestep-whole", "real"),
        ("timestep-rows", "real"),
        ("text", "extended"),
        ("text", "tapped"),
        ("half", "float32"),
        ("half", "external"),
        ("upsample", "folded"),
        ("norm", "fused"),
        ("pictures", "once_a_picture"),
    ] {
        assert!(has(seed, edit), "{seed} {edit}: {made:?}");
    }
    for (seed, edit) in [
        ("outside", "external"),
        ("absurd", "float32"),
        ("nested", "float32"),
        ("cycle", "extended"),
    ] {
        assert!(!has(seed, edit), "{seed} {edit}");
    }
}

fn model(fields: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let (mut graph, mut out) = (Vec::new(), Vec::new());
    for (number, content) in fields {
        wire::put_bytes(&mut graph, *number, content);
    }
    wire::put_bytes(&mut out, graph::MODEL_GRAPH, &graph);
    out
}

fn value(name: &str) -> Vec<u8> {
    let mut value = Vec::new();
    wire::put_bytes(&mut value, VALUE_NAME, name.as_bytes());
    value
}

#[test]
fn absurd_dimensions_reserve_nothing() {
    let mut tensor = Vec::new();
    for side in [u64::MAX, u64::MAX] {
        wire::put_number(&mut tensor, TENSOR_DIMS, side);
    }
    wire::put_number(&mut tensor, TENSOR_TYPE, graph::FLOAT16);
    wire::put_bytes(&mut tensor, TENSOR_NAME, b"weights");
    let absurd = model(&[(GRAPH_INITIALIZER, tensor.clone())]);
    let error = float32(&absurd, Path::new("/")).unwrap_err().to_string();
    assert!(error.contains("weights") && error.contains("absurd"), "{error}");
    let mut tensor = Vec::new();
    wire::put_number(&mut tensor, TENSOR_DIMS, 1 << 40);
    wire::put_number(&mut tensor, TENSOR_TYPE, graph::FLOAT16);
    let error = float32(&model(&[(GRAPH_INITIALIZER, tensor)]), Path::new("/")).unwrap_err();
    assert!(error.to_string().contains("has 0 values"), "{error}");
}

#[test]
fn cycles_long_chains_and_deep_nesting_end() {
    // Values that are made of each other.
    let cycle = model(&[
        (GRAPH_INPUT, value("input_ids")),
        (GRAPH_NODE, node("Add", &["input_ids", "b"], "a")),
        (GRAPH_NODE, node("Add", &["a", "input_ids"], "b")),
        (GRAPH_NODE, node("Cast", &["c"], "c")),
        (GRAPH_NODE, node("Add", &["b", "c"], "last_hidden_state")),
        (GRAPH_OUTPUT, value("last_hidden_state")),
    ]);
    every(&cycle, Path::new("/"));
    // A stream of many thousand additions.
    let mut fields = vec![
        (GRAPH_INPUT, value("input_ids")),
        (GRAPH_NODE, node("Cast", &["input_ids"], "x0")),
    ];
    for n in 0..5_000 {
        let (from, side, to) = (format!("x{n}"), format!("y{n}"), format!("x{}", n + 1));
        fields.push((GRAPH_NODE, node("Sigmoid", &[&from], &side)));
        fields.push((GRAPH_NODE, node("Add", &[&from, &side], &to)));
    }
    fields.push((
        GRAPH_NODE,
        node("LayerNormalization", &["x5000", "w"], "last_hidden_state"),
    ));
    fields.push((GRAPH_OUTPUT, value("last_hidden_state")));
    let refused = tapped(&model(&fields), "last_hidden_state", Tap::Normed, None).unwrap_err();
    assert!(refused.to_string().contains("more than 256 layers"), "{refused}");
    // Graphs inside graphs.
    let mut inner = Vec::new();
    for _ in 0..2_000 {
        let (mut attribute, mut body) = (Vec::new(), node("If", &[], "x"));
        wire::put_bytes(&mut attribute, graph::ATTRIBUTE_GRAPH, &inner);
        wire::put_bytes(&mut body, graph::NODE_ATTRIBUTE, &attribute);
        inner.clear();
        wire::put_bytes(&mut inner, GRAPH_NODE, &body);
    }
    let mut deep = Vec::new();
    wire::put_bytes(&mut deep, graph::MODEL_GRAPH, &inner);
    assert!(
        float32(&deep, Path::new("/"))
            .unwrap_err()
            .to_string()
            .contains("nested")
    );
    let size = deep.len() as u64;
    let refused = check_external(std::io::Cursor::new(deep), size).unwrap_err();
    assert!(refused.to_string().contains("nested"));
}

#[test]
fn an_edit_of_a_whole_model_is_what_it_says() {
    let tapped = tapped(&file(FILES[0]), "last_hidden_state", Tap::Normed, Some(2)).unwrap();
    assert_eq!(tapped.names, ["mobula_skip_1", "mobula_skip_2"]);
    assert!(super::tapped(&file(FILES[0]), "last_hidden_state", Tap::Normed, Some(3)).is_err());
    assert!(super::tapped(&file(FILES[0]), "elsewhere", Tap::Raw, None).is_err());
    let refused = extended(&file(FILES[0]), "input_ids", 523, 16, &[0.0; 16])
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("[522, 16]") && refused.contains("523"),
        "{refused}"
    );
    // What has norms is edited once.
    let own = fused(&file("sd15-extdata/unet/model.onnx")).unwrap().unwrap();
    assert_eq!(
        (fused(&own).unwrap(), fused(&file(FILES[0])).unwrap()),
        (None, None)
    );
    // Nothing of float16 is left: another pass changes nothing.
    let wide = float32(&file(FILES[3]), Path::new("/")).unwrap();
    assert_eq!(float32(&wide, Path::new("/")).unwrap(), wide);
}
