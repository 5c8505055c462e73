//! What nodes must look like to be folded, by ONNX's specification of their operators. An attribute that is not known here may mean
//! anything, so a node that has one is another.

use super::super::graph::{
    ATTRIBUTE_NAME, ATTRIBUTE_NUMBER, ATTRIBUTE_NUMBERS, ATTRIBUTE_TEXT, FLOAT, NODE_DOMAIN, Node, attribute,
    attributes, number, numbers, text,
};
use super::super::wire::Malformed;

/// Whether a node's operator is one of ONNX itself.
pub(super) fn is_standard(node: &Node<'_>) -> bool {
    matches!(text(node.bytes, NODE_DOMAIN), "" | "ai.onnx")
}

/// Whether a node casts one value to float32.
pub(super) fn casts_to_float(node: &Node<'_>) -> bool {
    let to = attribute(node.bytes, "to").map(|to| number(to, ATTRIBUTE_NUMBER));
    node.op == "Cast" && is_standard(node) && to == Some(FLOAT) && node.inputs.len() == 1
}

/// Whether a node is a convolution of 3 by 3 that keeps the size and does nothing more.
pub(super) fn is_plain(conv: &Node<'_>) -> Result<bool, Malformed> {
    if conv.op != "Conv" || !is_standard(conv) {
        return Ok(false);
    }
    // Without the attribute there is no padding.
    let mut padded = false;
    for attribute in attributes(conv.bytes) {
        let is = |expected: &[u64]| Ok(numbers(attribute, ATTRIBUTE_NUMBERS)? == expected);
        let plain = match text(attribute, ATTRIBUTE_NAME) {
            "auto_pad" => text(attribute, ATTRIBUTE_TEXT) == "NOTSET",
            "kernel_shape" => is(&[3, 3])?,
            "strides" | "dilations" => is(&[1, 1])?,
            "group" => number(attribute, ATTRIBUTE_NUMBER) == 1,
            "pads" => {
                padded = true;
                is(&[1, 1, 1, 1])?
            }
            _ => false,
        };
        if !plain {
            return Ok(false);
        }
    }
    Ok(padded)
}

/// Whether a node that doubles sizes takes for pixels 2i and 2i+1 the pixel i, whatever the size: ONNX's Resize, versions 11 to 19,
/// or 10, or Upsample (`old`).
pub(super) fn repeats(node: &Node<'_>, old: bool) -> bool {
    // As the specification says for what is not said.
    let (mut mode, mut place, mut nearest) = ("nearest", "half_pixel", "round_prefer_floor");
    for attribute in attributes(node.bytes) {
        let said = text(attribute, ATTRIBUTE_TEXT);
        match text(attribute, ATTRIBUTE_NAME) {
            "mode" => mode = said,
            "coordinate_transformation_mode" if !old => place = said,
            "nearest_mode" if !old => nearest = said,
            // About other modes, or about sizes.
            "cubic_coeff_a" | "exclude_outside" | "extrapolation_value" | "keep_aspect_ratio_policy"
                if !old => {}
            "antialias" if !old && number(attribute, ATTRIBUTE_NUMBER) == 0 => {}
            _ => return false,
        }
    }
    let rounds = matches!(nearest, "round_prefer_floor" | "round_prefer_ceil");
    let exact = match place {
        // i - 1/4 and i + 1/4. The symmetric one differs where sizes are rounded, which a doubling never needs.
        "half_pixel" | "half_pixel_symmetric" | "pytorch_half_pixel" => rounds,
        // i and i + 1/2.
        "asymmetric" => matches!(nearest, "floor" | "round_prefer_floor"),
        // i + 1/4 and i + 3/4.
        "tf_half_pixel_for_nn" => nearest == "floor",
        // Aligned corners would, but come near halves in large pictures, where float32 decides.
        _ => false,
    };
    is_standard(node) && mode == "nearest" && (old || exact)
}
