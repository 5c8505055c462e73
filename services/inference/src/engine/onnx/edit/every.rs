//! Every edit of one file, one after the other: what hostile files and fuzzing are run through.
//!
//! Invariant: an edit ends with a file that can be read again and is not larger than its original allows, or with a refusal.

use std::io::Cursor;
use std::path::Path;

use super::{
    Refused, Tap, batched, check_external, extended, float32, folded, fused, once_a_picture, real, tapped,
    weights, with_graph,
};

/// Vocabularies that are lengthened: tokens and width. Those of the tiny models and of the first files for fuzzing.
const TABLES: [(usize, usize); 2] = [(522, 16), (6, 4)];

/// What every edit makes of a file, by its name; weights in other files are looked for in `folder`.
///
/// # Panics
/// When an edit breaks the invariant.
pub(crate) fn every(model: &[u8], folder: &Path) -> Vec<(&'static str, Result<Vec<u8>, Refused>)> {
    let mut all = vec![
        ("batched", batched(model, "timestep", "sample")),
        ("real", real(model, "timestep")),
        ("float32", float32(model, folder)),
        ("once_a_picture", once_a_picture(model, "sample", "timestep")),
    ];
    if let Some(fused) = fused(model).transpose() {
        all.push(("fused", fused));
    }
    for (before, width) in TABLES {
        let rows = vec![0.5; 2 * width];
        all.push(("extended", extended(model, "input_ids", before, width, &rows)));
    }
    for (tap, layers) in [(Tap::Normed, None), (Tap::Raw, Some(2))] {
        for output in ["last_hidden_state", "text_embeddings"] {
            let tapped = tapped(model, output, tap, layers).map(|tapped| tapped.model);
            all.push(("tapped", tapped));
        }
    }
    // A graph with nothing to fold stays as it is.
    all.extend(folded(model).transpose().map(|folded| ("folded", folded)));
    let limit = 16 * model.len() + (64 << 10);
    for (name, edited) in &all {
        let Ok(edited) = edited else { continue };
        assert!(
            edited.len() <= limit,
            "{name} makes {} bytes of {}",
            edited.len(),
            model.len()
        );
        let again = with_graph(edited, |graph| Ok(graph.to_vec()));
        assert!(again.is_ok(), "what {name} made cannot be read: {again:?}");
    }
    let stream = || Cursor::new(model);
    let size = model.len() as u64;
    all.push(("external", check_external(stream(), size).map(|()| Vec::new())));
    all.push(("weights", weights(stream(), size).map(|_| Vec::new())));
    all
}
