//! Any file of an embedding: finite vectors, or an error.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mobula_embeddings::Entry;

fuzz_target!(|data: &[u8]| {
    if let Ok(entry) = Entry::parse("word", data) {
        for matrix in [entry.vectors_1, entry.vectors_2].into_iter().flatten() {
            assert_eq!(matrix.values.len(), matrix.rows * matrix.width);
            assert!(matrix.values.iter().all(|value| value.is_finite()));
        }
    }
});
