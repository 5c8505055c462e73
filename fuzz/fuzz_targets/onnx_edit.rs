//! Any file of a network: a graph that can be read again from every edit, or a refusal.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mobula_inference::fuzz::onnx_edit;

fuzz_target!(|data: &[u8]| onnx_edit(data));
