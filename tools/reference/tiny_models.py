#!/usr/bin/env python3
"""Makes tiny Stable Diffusion models with random weights, in every dialect that exporters write.

    tiny_models.py --onnx services/inference/tests/models --torch DIR

`--torch` receives the same weights as diffusers pipelines, for pipelines.py, which draws reference pictures with them.

  sd15          SD 1.5 shaped, exported by Optimum: scalar timestep, int64 ids, one file per part
  sd15-legacy   the same weights with the I/O of the diffusers conversion script and of the onnxruntime demo: int32 ids,
                int64 timestep [steps], weights in weights.pb, `text_embeddings`, `latent`, `images`
  sd15-extdata  the same weights with model.onnx_data beside model.onnx, as Optimum writes models above 2 GB
  sd15-fp16     the same weights and inputs and outputs in float16
  sd21          SD 2.1 shaped (v-prediction, linear projections, padding with "!"), exported by Optimum

Everything is seeded: the same versions of the libraries give the same files.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import onnx
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from onnx import TensorProto, helper, numpy_helper
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

WIDTH = 16
PARTS = ("text_encoder", "unet", "vae_decoder", "vae_encoder")


def bytes_to_unicode() -> list[str]:
    """CLIP's printable stand-ins for the 256 bytes, in its order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + n) for n in range(len(rest))]


def tokenizer(folder: Path, pad: str) -> CLIPTokenizer:
    """A CLIP tokenizer that knows single bytes and a few merges; "!" is id 0, as in the real one."""
    letters = bytes_to_unicode()
    merges = ["r e", "re d</w>", "c i", "b l", "s q", "u a", "t h", "th e</w>"]
    tokens = letters + [c + "</w>" for c in letters] + [m.replace(" ", "") for m in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    return CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), pad_token=pad, model_max_length=77
    )


def pipeline(kind: str, scratch: Path) -> StableDiffusionPipeline:
    """Builds one pipeline with random weights, scaled so that prompts and steps visibly change the picture."""
    torch.manual_seed({"sd15": 15, "sd21": 21}[kind])
    sd21 = kind == "sd21"
    tokens = tokenizer(scratch / f"{kind}-tokenizer", "!" if sd21 else "<|endoftext|>")
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokens),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=77,
            hidden_act="gelu" if sd21 else "quick_gelu",
            bos_token_id=len(tokens) - 2,
            eos_token_id=len(tokens) - 1,
            pad_token_id=0 if sd21 else len(tokens) - 1,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=[2, 4] if sd21 else 4,
        use_linear_projection=sd21,
        norm_num_groups=4,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
    )
    common = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1)
    if sd21:
        scheduler = DDIMScheduler(**common, prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False)
    else:
        scheduler = PNDMScheduler(**common, skip_prk_steps=True)
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if "attn2" in name and "weight" in name:
                parameter *= 4.0
        sample, states = torch.randn(8, 4, 8, 8), text(torch.randint(0, 500, (8, 77))).last_hidden_state
        unet.conv_out.weight *= 0.9 / unet(sample, 500, states).sample.std()
        vae.decoder.conv_out.weight *= 0.6 / vae.decode(sample / vae.config.scaling_factor).sample.std()
    return StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=text.eval(),
        tokenizer=tokens,
        unet=unet.eval(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def optimum_export(source: Path, target: Path) -> None:
    """Exports as `optimum-cli export onnx` does, less what serving does not read."""
    from optimum.exporters.onnx import main_export

    main_export(str(source), output=target, task="text-to-image", do_validation=False, no_post_process=True)
    shutil.rmtree(target / "vae_encoder")
    for part in ("text_encoder", "unet", "vae_decoder"):
        path = target / part / "model.onnx"
        model = onnx.load(path)
        for node in model.graph.node:
            node.ClearField("doc_string")
            del node.metadata_props[:]
        onnx.save(model, path)
    forget_paths(target)


def forget_paths(target: Path) -> None:
    """Takes out where the model was made, so that the files do not depend on it."""
    for path in target.rglob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and content.keys() & {"_name_or_path", "name_or_path"}:
            content = {key: value for key, value in content.items() if not key.endswith("name_or_path")}
            path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def each_part(target: Path):
    for part in PARTS:
        if (target / part / "model.onnx").exists():
            yield part, target / part / "model.onnx"


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnx", type=Path, required=True, help="folder for the ONNX models; each is replaced")
    parser.add_argument("--torch", type=Path, required=True, help="folder for the same pipelines as torch weights")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for kind in ("sd15", "sd21"):
            pipe = pipeline(kind, Path(scratch))
            shutil.rmtree(arguments.torch / kind, ignore_errors=True)
            pipe.save_pretrained(arguments.torch / kind)
            shutil.rmtree(arguments.onnx / kind, ignore_errors=True)
            optimum_export(arguments.torch / kind, arguments.onnx / kind)
    source = arguments.onnx / "sd15"
    for dialect in ("legacy", "extdata", "fp16"):
        target = arguments.onnx / f"sd15-{dialect}"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
        if dialect == "legacy":
            legacy(target)
        elif dialect == "extdata":
            for part, _ in list(each_part(target)):
                external(target, "model.onnx_data", part)
        else:
            half(target)


if __name__ == "__main__":
    main()
