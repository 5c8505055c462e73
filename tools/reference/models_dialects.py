"""Rewrites Optimum exports into the dialects of other exporters. Not run by itself; tiny_models.py is the program."""

from pathlib import Path

import onnx
from models_base import each_part, optimum_export, save_torch
from onnx import TensorProto, helper, numpy_helper


def external(target: Path, location: str, part: str) -> None:
    """Moves a part's weights of 64 bytes and more into a file beside it."""
    path = target / part / "model.onnx"
    model = onnx.load(path)
    onnx.save_model(
        model,
        path,
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=location,
        size_threshold=64,
        convert_attribute=False,
    )
    (path.parent / location).chmod(0o644)


def rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Renames a graph input or output everywhere."""
    for value in [*graph.input, *graph.output]:
        if value.name == old:
            value.name = new
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]


def sampled(graph: onnx.GraphProto) -> None:
    """Makes a VAE encoder draw from its posterior itself, as the conversion script's does: no seed reaches it."""
    (output,) = graph.output
    parameters = output.name
    constant = {"low": -30.0, "high": 20.0, "half": 0.5}
    for name, value in constant.items():
        graph.initializer.append(helper.make_tensor(f"posterior_{name}", TensorProto.FLOAT, [], [value]))
    graph.node.extend(
        [
            helper.make_node("Split", [parameters], ["mean", "logvar"], axis=1, num_outputs=2),
            helper.make_node("Clip", ["logvar", "posterior_low", "posterior_high"], ["clipped"]),
            helper.make_node("Mul", ["clipped", "posterior_half"], ["halved"]),
            helper.make_node("Exp", ["halved"], ["deviation"]),
            helper.make_node("RandomNormalLike", ["mean"], ["noise"], dtype=TensorProto.FLOAT),
            helper.make_node("Mul", ["deviation", "noise"], ["drawn"]),
            helper.make_node("Add", ["mean", "drawn"], ["latent_sample"]),
        ]
    )
    output.name = "latent_sample"
    output.type.tensor_type.shape.dim[1].dim_value = 4


def legacy(target: Path) -> None:
    """Rewrites the I/O: int32 ids, int64 timestep with a dimension, the demo's names, weights.pb."""
    path = target / "text_encoder" / "model.onnx"
    model = onnx.load(path)
    (ids,) = model.graph.input
    ids.type.tensor_type.elem_type = TensorProto.INT32
    for node in model.graph.node:
        node.input[:] = ["input_ids_int64" if name == "input_ids" else name for name in node.input]
    model.graph.node.insert(0, helper.make_node("Cast", ["input_ids"], ["input_ids_int64"], to=TensorProto.INT64))
    rename(model.graph, "last_hidden_state", "text_embeddings")
    onnx.save(model, path)

    path = target / "unet" / "model.onnx"
    model = onnx.load(path)
    graph = model.graph
    timestep = next(i for i in graph.input if i.name == "timestep")
    (consumer,) = [n for n in graph.node if "timestep" in n.input]
    assert consumer.op_type == "Unsqueeze", consumer.op_type
    timestep.type.tensor_type.elem_type = TensorProto.INT64
    timestep.type.tensor_type.shape.dim.add().dim_param = "steps"
    cast = helper.make_node("Cast", ["timestep"], [consumer.output[0]], to=TensorProto.FLOAT)
    index = list(graph.node).index(consumer)
    graph.node.remove(consumer)
    graph.node.insert(index, cast)
    rename(graph, "out_sample", "latent")
    onnx.save(model, path)
    external(target, "weights.pb", "unet")

    path = target / "vae_decoder" / "model.onnx"
    model = onnx.load(path)
    rename(model.graph, "latent_sample", "latent")
    rename(model.graph, "sample", "images")
    onnx.save(model, path)

    path = target / "vae_encoder" / "model.onnx"
    model = onnx.load(path)
    sampled(model.graph)
    onnx.save(model, path)


def converted(tensor: onnx.TensorProto, dtype: str) -> onnx.TensorProto:
    """A tensor in another precision, clipped to what half precision holds."""
    value = numpy_helper.to_array(tensor).clip(-65504, 65504)
    return numpy_helper.from_array(value.astype(dtype), tensor.name)


def half(target: Path) -> None:
    """Turns weights, inputs and outputs to float16; ids stay integers."""
    for _, path in each_part(target):
        model = onnx.load(path)
        graph = model.graph
        # Resize wants float32 scales whatever its input is.
        scales = {name for node in graph.node if node.op_type == "Resize" for name in node.input[1:3]}
        for tensor in graph.initializer:
            if tensor.data_type == TensorProto.FLOAT and tensor.name not in scales:
                tensor.CopyFrom(converted(tensor, "float16"))
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                    attribute.i = TensorProto.FLOAT16
                is_float = attribute.HasField("t") and attribute.t.data_type == TensorProto.FLOAT
                if is_float and not scales & set(node.output):
                    attribute.t.CopyFrom(converted(attribute.t, "float16"))
        del graph.value_info[:]
        for value in [*graph.input, *graph.output]:
            if value.type.tensor_type.elem_type == TensorProto.FLOAT:
                value.type.tensor_type.elem_type = TensorProto.FLOAT16
        onnx.save(model, path)


def overflow(source: Path, kept: Path, target: Path) -> None:
    """Exports `source` with a VAE decoder whose first convolution is 60000 times as strong; keeps it as torch weights.

    The next group normalization undoes that, so float32 draws a picture as good as any; float16 ends at 65504.
    Weights are rounded to float16 first, so that float32 arithmetic with the exported weights gives the same picture.
    """
    import torch
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(source, safety_checker=None)
    decoder = pipe.vae.decoder
    with torch.no_grad():
        decoder.conv_in.weight *= 60000.0
        for parameter in pipe.vae.parameters():
            parameter.copy_(parameter.half().float())
        sample = torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(1))
        decoder.conv_out.weight *= 0.6 / pipe.vae.decode(sample / pipe.vae.config.scaling_factor).sample.std()
        decoder.conv_out.weight.copy_(decoder.conv_out.weight.half().float())
    optimum_export(save_torch(pipe, kept), target)
