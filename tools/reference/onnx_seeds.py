#!/usr/bin/env python3
"""Writes the first files for fuzzing the edits of ONNX graphs.

    onnx_seeds.py --out fuzz/seeds/onnx_edit

Each is a graph of a few nodes in the form that one edit looks for (services/inference/src/engine/onnx/edit), or in one that
it must refuse. They need not run: edits look at names, operators and types only.
"""

import argparse
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

FLOAT, HALF, WHOLE = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64
# The table that the fuzz target asks for: tokens and their width.
VOCABULARY, WIDTH = 6, 4


def value(name: str, kind: int, *dims: int | str):
    return helper.make_tensor_value_info(name, kind, list(dims))


def node(op: str, inputs: str, output: str, **attributes):
    return helper.make_node(op, inputs.split(), [output], **attributes)


def constant(name: str, values: np.ndarray):
    return numpy_helper.from_array(values, name)


def model(inputs, nodes, outputs, constants=()) -> ModelProto:
    graph = helper.make_graph(list(nodes), "seed", list(inputs), list(outputs), list(constants))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def unet(kind: int = FLOAT, rank: int = 0) -> ModelProto:
    """A timestep that goes through one Unsqueeze and an Expand to the batch, as Optimum exports it."""
    dims = ["steps"] * rank
    return model(
        [value("sample", FLOAT, "batch_size", 4, "height", "width"), value("timestep", kind, *dims)],
        [
            node("Unsqueeze", "timestep axes", "one"),
            node("Shape", "sample", "shape"),
            node("Gather", "shape zero", "batch"),
            node("Expand", "one batch", "all"),
            node("Cast", "all", "real", to=FLOAT),
            node("Add", "sample real", "out_sample"),
        ],
        [value("out_sample", FLOAT, "batch_size", 4, "height", "width")],
        [constant("axes", np.array([0])), constant("zero", np.array([0]))],
    )


def text_encoder(layers: int = 2) -> ModelProto:
    """Embeddings, layers of two additions each, and a final norm."""
    nodes = [node("Gather", "table input_ids", "x0")]
    for at in range(2 * layers):
        nodes.append(node("Sigmoid", f"x{at}", f"y{at}"))
        nodes.append(node("Add", f"x{at} y{at}", f"x{at + 1}"))
    nodes.append(node("LayerNormalization", f"x{2 * layers} scale", "last_hidden_state"))
    return model(
        [value("input_ids", WHOLE, "batch_size", 77)],
        nodes,
        [value("last_hidden_state", FLOAT, "batch_size", 77, WIDTH)],
        [
            constant("table", np.ones((VOCABULARY, WIDTH), np.float32)),
            constant("scale", np.ones(WIDTH, np.float32)),
        ],
    )


def half() -> ModelProto:
    """Constants, casts, inputs and a nested graph in float16."""
    inner = helper.make_graph(
        [node("Constant", "", "c", value=constant("v", np.ones(2, np.float16)))],
        "then",
        [],
        [value("c", HALF, 2)],
    )
    return model(
        [value("latent_sample", HALF, "batch", 4, "h", "w")],
        [
            node("Cast", "latent_sample", "wide", to=FLOAT),
            node("Cast", "wide", "narrow", to=HALF),
            node("If", "always", "chosen", then_branch=inner, else_branch=inner),
            node("Mul", "narrow weights", "sample"),
        ],
        [value("sample", HALF, "batch", 4, "h", "w")],
        [
            constant("weights", np.arange(8, dtype=np.float16)),
            constant("always", np.array(True)),
            # Values in the field for numbers instead of raw bytes.
            helper.make_tensor("numbers", HALF, [2], [1.0, 2.0]),
        ],
    )


def upsample() -> ModelProto:
    """A doubling of pixels and a convolution of constants behind it, once in float32 and once in float16 with a cast."""
    kernels = np.linspace(-1, 1, 36).reshape(2, 2, 3, 3)
    resize = {"coordinate_transformation_mode": "asymmetric", "mode": "nearest", "nearest_mode": "floor"}
    conv = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    return model(
        [value("latent_sample", FLOAT, "batch", 2, "h", "w")],
        [
            node("Constant", "", "scales", value=constant("v", np.array([1, 1, 2, 2], np.float32))),
            helper.make_node("Resize", ["latent_sample", "", "scales"], ["doubled"], **resize),
            node("Conv", "doubled kernels bias", "once", **conv),
            node("Cast", "half", "cast", to=FLOAT),
            helper.make_node("Resize", ["once", "", "scales"], ["again"], **resize),
            node("Conv", "again cast", "sample", **conv),
        ],
        [value("sample", FLOAT, "batch", 2, "4*h", "4*w")],
        [
            constant("kernels", kernels.astype(np.float32)),
            constant("bias", np.ones(2, np.float32)),
            constant("half", kernels.astype(np.float16)),
        ],
    )


def outside() -> ModelProto:
    """Weights in a file that is not inside the model's folder."""
    made = half()
    weights = made.graph.initializer[0]
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    for key, text in (("location", "../weights"), ("offset", "8"), ("length", "16")):
        weights.external_data.add(key=key, value=text)
    return made


def pictures() -> ModelProto:
    """A network of a picture's sample and timestep before the prompt comes in, with a size that is computed from it."""
    return model(
        [
            value("sample", FLOAT, "batch", 2, "h", "w"),
            value("timestep", FLOAT, "batch"),
            value("encoder_hidden_states", FLOAT, "batch", 2, 1, 1),
        ],
        [
            node("Conv", "sample kernels", "drawn", kernel_shape=[1, 1]),
            node("Reshape", "timestep column", "time"),
            node("Add", "drawn time", "timed"),
            node("Shape", "timed", "shape"),
            node("Mul", "timed encoder_hidden_states", "mixed"),
            node("Reshape", "mixed shape", "out_sample"),
        ],
        [value("out_sample", FLOAT, "batch", 2, "h", "w")],
        [
            constant("kernels", np.ones((2, 2, 1, 1), np.float32)),
            constant("column", np.array([-1, 1, 1, 1])),
        ],
    )


def norm() -> ModelProto:
    """A group norm with its activation, and a gate whose halves are slices with computed ends."""
    return model(
        [value("sample", FLOAT, "batch", 4, "h", "w"), value("x", FLOAT, "batch", "line", 3)],
        [
            node("Reshape", "sample groups", "folded"),
            node("InstanceNormalization", "folded ones zeros", "normed", epsilon=1e-5),
            node("Shape", "sample", "shape"),
            node("Reshape", "normed shape", "unfolded"),
            node("Mul", "unfolded scale", "scaled"),
            node("Add", "scaled shift", "shifted"),
            node("Sigmoid", "shifted", "sigmoid"),
            node("Mul", "shifted sigmoid", "out_sample"),
            node("MatMul", "x weights", "product"),
            node("Cast", "half_bias", "bias", to=FLOAT),
            node("Add", "bias product", "both"),
            node("Shape", "both", "sizes"),
            node("Gather", "sizes last", "width"),
            node("Div", "width two", "middle"),
            node("Mul", "middle two", "end"),
            node("Slice", "both zero middle last", "first"),
            node("Slice", "both middle end last", "second"),
            node("Div", "second root", "over"),
            node("Erf", "over", "erf"),
            node("Add", "erf one", "more"),
            node("Mul", "second more", "twice"),
            node("Mul", "twice half", "gelu"),
            node("Mul", "first gelu", "y"),
        ],
        [value("out_sample", FLOAT, "batch", 4, "h", "w"), value("y", FLOAT, "batch", "line", 4)],
        [
            constant("groups", np.array([0, 2, -1])),
            constant("ones", np.ones(2, np.float32)),
            constant("zeros", np.zeros(2, np.float32)),
            constant("scale", np.ones((4, 1, 1), np.float32)),
            constant("shift", np.ones((4, 1, 1), np.float32)),
            constant("weights", np.ones((3, 8), np.float32)),
            constant("half_bias", np.ones(8, np.float16)),
            constant("last", np.array([-1])),
            constant("two", np.array([2])),
            constant("zero", np.array([0])),
            constant("root", np.array(2**0.5, np.float32)),
            constant("one", np.array(1, np.float32)),
            constant("half", np.array(0.5, np.float32)),
        ],
    )


def cycle() -> ModelProto:
    made = text_encoder()
    made.graph.node[0].input[1] = "x4"
    return made


def absurd() -> ModelProto:
    made = half()
    made.graph.initializer[0].dims[:] = [1 << 62, 1 << 62]
    return made


def nested(depth: int = 20) -> ModelProto:
    inner = helper.make_graph([], "leaf", [], [])
    for _ in range(depth):
        inner = helper.make_graph([helper.make_node("If", [], ["x"], then_branch=inner)], "g", [], [])
    return helper.make_model(inner)


SEEDS = {
    "timestep": unet(),
    "timestep-whole": unet(WHOLE),
    "timestep-rows": unet(WHOLE, rank=1),
    "text": text_encoder(),
    "half": half(),
    "upsample": upsample(),
    "norm": norm(),
    "pictures": pictures(),
    "outside": outside(),
    "cycle": cycle(),
    "absurd": absurd(),
    "nested": nested(),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name, seed in SEEDS.items():
        (out / f"{name}.onnx").write_bytes(seed.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
