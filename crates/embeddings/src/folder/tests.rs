use std::collections::BTreeMap;

use half::{bf16, f16};
use proptest::prelude::*;
use safetensors::{Dtype, serialize, tensor::TensorView};

use super::*;

const VOCABULARY: Vocabulary = Vocabulary { size: 1000, width: 4 };

/// A file with float32 tensors of the given shapes, numbered from 0.
fn file(tensors: &[(&str, &[usize])]) -> Vec<u8> {
    let data: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, shape)| {
            let count = shape.iter().product::<usize>();
            (0..count)
                .flat_map(|number| (number as f32).to_le_bytes())
                .collect()
        })
        .collect();
    let views: BTreeMap<String, TensorView<'_>> = tensors
        .iter()
        .zip(&data)
        .map(|((name, shape), data)| {
            let view = TensorView::new(Dtype::F32, shape.to_vec(), data).unwrap();
            ((*name).to_owned(), view)
        })
        .collect();
    serialize(views, None).unwrap()
}

fn folder(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

#[test]
fn every_form_is_read_and_ids_follow_the_order_of_triggers() {
    let folder = folder(&[
        (
            "zebra.safetensors",
            file(&[("clip_l", &[2, 4]), ("clip_g", &[3, 6])]),
        ),
        ("bad-hands-5.safetensors", file(&[("emb_params", &[3, 4])])),
        ("cat.safetensors", file(&[("<cat-toy>", &[4])])),
        ("notes.txt", b"not one".to_vec()),
    ]);
    let embeddings = Embeddings::open(folder.path()).unwrap();
    let rows = embeddings.rows(Encoder::First, VOCABULARY).unwrap();
    let seen: Vec<_> = rows
        .iter()
        .map(|row| (row.entry.trigger.as_str(), row.ids.clone()))
        .collect();
    assert_eq!(
        seen,
        [
            ("bad-hands-5", 1000..1003),
            ("cat", 1003..1004),
            ("zebra", 1004..1006)
        ]
    );
    assert_eq!(rows[1].entry.alias.as_deref(), Some("<cat-toy>"));
    assert_eq!(rows[0].vectors.row(2), Some(&[8.0, 9.0, 10.0, 11.0][..]));
    assert_eq!(rows[0].vectors.row(3), None);

    let second = Vocabulary { size: 50, width: 6 };
    let rows = embeddings.rows(Encoder::Second, second).unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(
        (rows[0].entry.trigger.as_str(), rows[0].ids.clone()),
        ("zebra", 50..53)
    );
}

#[test]
fn halves_become_the_same_numbers_in_single_precision() {
    let numbers = [0.5_f32, -1.25, 3.0, 0.0078125];
    let halves: Vec<u8> = numbers
        .iter()
        .flat_map(|n| f16::from_f32(*n).to_le_bytes())
        .collect();
    let brains: Vec<u8> = numbers
        .iter()
        .flat_map(|n| bf16::from_f32(*n).to_le_bytes())
        .collect();
    for (dtype, data) in [(Dtype::F16, halves), (Dtype::BF16, brains)] {
        let view = TensorView::new(dtype, vec![2, 2], &data).unwrap();
        let bytes = serialize([("emb_params", view)], None).unwrap();
        let entry = Entry::parse("x", &bytes).unwrap();
        assert_eq!(entry.vectors_1.unwrap().values, numbers);
    }
}

#[test]
fn no_folder_is_no_embedding() {
    assert!(
        Embeddings::open(Path::new("/nowhere/embeddings"))
            .unwrap()
            .is_empty()
    );
}

#[test]
fn another_models_embedding_is_refused_with_both_widths() {
    let folder = folder(&[("wide.safetensors", file(&[("emb_params", &[1, 6])]))]);
    let embeddings = Embeddings::open(folder.path()).unwrap();
    let why = embeddings
        .rows(Encoder::First, VOCABULARY)
        .unwrap_err()
        .to_string();
    assert!(
        why.contains("\"wide\"") && why.contains("6 numbers") && why.contains("takes 4"),
        "{why}"
    );
}

#[test]
fn two_files_with_one_trigger_are_named() {
    let one = file(&[("emb_params", &[4])]);
    let folder = folder(&[
        ("cat.safetensors", one),
        ("dog.safetensors", file(&[("cat", &[4])])),
    ]);
    let why = Embeddings::open(folder.path()).unwrap_err().to_string();
    assert!(
        why.contains("cat.safetensors") && why.contains("dog.safetensors"),
        "{why}"
    );
}

#[test]
fn hostile_files_are_errors_that_name_the_file() {
    let good = file(&[("emb_params", &[2, 4])]);
    let header = |length: u64, text: &str| [&length.to_le_bytes()[..], text.as_bytes()].concat();
    let lying = r#"{"emb_params":{"dtype":"F32","shape":[18446744073709551615,4],"data_offsets":[0,16]}}"#;
    let wrong = r#"{"emb_params":{"dtype":"F32","shape":[4],"data_offsets":[0,99999999999]}}"#;
    let nan: Vec<u8> = [f32::NAN, 1.0].iter().flat_map(|n| n.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, vec![2], &nan).unwrap();
    let integers = TensorView::new(Dtype::I64, vec![1], &[0; 8]).unwrap();
    for (bytes, part) in [
        (Vec::new(), ""),
        (good[..5].to_vec(), ""),
        (good[..good.len() - 1].to_vec(), ""),
        (header(u64::MAX, "{}"), ""),
        (header(2, "{}"), "0 tensors"),
        (header(lying.len() as u64, lying), ""),
        (header(wrong.len() as u64, wrong), ""),
        (header(4, "\u{7b}\u{7b}\u{7b}\u{7b}"), ""),
        (file(&[("a", &[4]), ("b", &[4])]), "2 tensors"),
        (file(&[("emb_params", &[76, 4])]), "76 vectors"),
        (file(&[("emb_params", &[0, 4])]), "0 vectors"),
        (file(&[("emb_params", &[1, 9000])]), "9000 numbers"),
        (file(&[("clip_l", &[1, 1, 4])]), "[1, 1, 4]"),
        (file(&[(" ", &[4])]), "tensor's name"),
        (serialize([("emb_params", view)], None).unwrap(), "NaN"),
        (serialize([("emb_params", integers)], None).unwrap(), "I64"),
        (vec![0; (8 << 20) + 1], "8388608 bytes"),
    ] {
        let folder = folder(&[("cat.safetensors", bytes)]);
        let why = Embeddings::open(folder.path()).unwrap_err().to_string();
        assert!(why.contains("cat.safetensors") && why.contains(part), "{why}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_an_embedding_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = Entry::parse("x", &bytes);
    }

    #[test]
    fn a_damaged_file_is_an_embedding_or_an_error(at in 0usize..120, byte in any::<u8>(), end in 0usize..200) {
        let mut bytes = file(&[("clip_l", &[2, 4]), ("clip_g", &[1, 6])]);
        let last = bytes.len() - 1;
        bytes[at.min(last)] = byte;
        bytes.truncate(end.max(1));
        if let Ok(entry) = Entry::parse("x", &bytes) {
            for matrix in [entry.vectors_1, entry.vectors_2].into_iter().flatten() {
                prop_assert_eq!(matrix.values.len(), matrix.rows * matrix.width);
                prop_assert!(matrix.values.iter().all(|value| value.is_finite()));
            }
        }
    }
}
