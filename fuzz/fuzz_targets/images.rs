//! Any file: pixels in the size that was asked for, or an error.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mobula_preprocess::image::{Ask, Kind, Limits, prepare};

fuzz_target!(|data: &[u8]| {
    let limits = Limits {
        // Small, so that a run spends its time on headers.
        pixels: 1 << 20,
        memory: 16 << 20,
        ..Limits::default()
    };
    for kind in [Kind::Mask, Kind::Transparency] {
        let ask = Ask {
            data,
            width: 24,
            height: 16,
            kind,
            limits,
        };
        if let Ok(raster) = prepare(ask) {
            assert_eq!(raster.data.len(), 24 * 16);
        }
    }
});
