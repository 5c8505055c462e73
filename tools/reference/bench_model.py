#!/usr/bin/env python3
"""Writes the graphs of a narrow Stable Diffusion 1.5 for the benchmark, without its weights.

    bench_model.py --out services/inference/benches/model [--check FOLDER]

The architecture is SD 1.5's (UNet of four levels with cross-attention in three, two layers a block, 8 heads; text encoder of
12 layers and 12 heads; VAE of four levels), with a tenth of its channels, so that it runs on two cores. Exported by Optimum.
Kept are the graphs, with short names for nodes and values, and `weights.tsv` beside each: for each tensor that was taken out its
name, offset and length in values, mean and deviation. The benchmark fills `model.onnx_data` from it: value i of tensor t (counted
in the table) is `mean + deviation * sqrt(3) * (2 u - 1)` with u the upper 24 bits of splitmix64(t * 2^32 + i) over 2^24. Means and
deviations are those of the layers' usual beginnings (by fan-in), so that the output is finite and of the input's size.

With `--check` the weights are filled into FOLDER by the same rule and every part is run once in ONNX Runtime.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from models_base import BETAS, each_part, optimum_export, scale_decoder, text_config, tokenizer
from transformers import CLIPTextModel

DATA = "model.onnx_data"
TABLE = "weights.tsv"
# Smaller ones stay in the graph: they are constants, not weights.
SMALLEST = 16
CHANNELS = (32, 64, 128, 128)
TEXT = 96
VOCABULARY = 49408
SEED = 1500


def pipeline(scratch: Path) -> StableDiffusionPipeline:
    """The pipeline with random weights, its output scaled to the size of its input."""
    torch.manual_seed(SEED)
    tokens = tokenizer(scratch / "tokenizer", "<|endoftext|>")
    ids = dict(bos_token_id=VOCABULARY - 2, eos_token_id=VOCABULARY - 1, pad_token_id=VOCABULARY - 1)
    shape = dict(num_hidden_layers=12, num_attention_heads=12, intermediate_size=4 * TEXT, vocab_size=VOCABULARY)
    text = CLIPTextModel(text_config(tokens, TEXT, hidden_act="quick_gelu", **shape, **ids))
    unet = UNet2DConditionModel(
        sample_size=32,
        block_out_channels=CHANNELS,
        layers_per_block=2,
        cross_attention_dim=TEXT,
        attention_head_dim=8,
        norm_num_groups=32,
    )
    vae = AutoencoderKL(
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=16,
        sample_size=256,
    )
    with torch.no_grad():
        sample, states = torch.randn(2, 4, 32, 32), text(torch.randint(0, 500, (2, 77))).last_hidden_state
        unet.conv_out.weight *= 0.9 / unet(sample, 500, states).sample.std()
        scale_decoder(vae, sample[:1, :, :16, :16])
    return StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=text.eval(),
        tokenizer=tokens,
        unet=unet.eval(),
        scheduler=PNDMScheduler(**BETAS, skip_prk_steps=True),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def shorten(graph: onnx.GraphProto) -> None:
    """Gives nodes no names and inner values short ones; inputs, outputs and initializers keep theirs."""
    kept = {value.name for value in [*graph.input, *graph.output, *graph.initializer]}
    names: dict[str, str] = {}
    for node in graph.node:
        assert all(a.type not in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute)
        node.ClearField("name")
        for place, name in enumerate(node.output):
            if name and name not in kept:
                node.output[place] = names.setdefault(name, f"v{len(names)}")
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = names.get(name, name)
    del graph.value_info[:]


def strip(path: Path) -> int:
    """Takes the weights out of a model: leaves where they are to be, and the table. Gives how many values."""
    model = onnx.load(path)
    shorten(model.graph)
    rows, offset = [], 0
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < SMALLEST:
            continue
        rows.append(f"{tensor.name}\t{offset}\t{values.size}\t{values.mean():.6g}\t{values.std():.6g}\n")
        tensor.ClearField("raw_data")
        tensor.ClearField("float_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        place = {"location": DATA, "offset": 4 * offset, "length": 4 * values.size}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
        offset += values.size
    path.write_bytes(model.SerializeToString())
    (path.parent / TABLE).write_text("".join(rows), encoding="utf-8")
    return offset


def splitmix(state: np.ndarray) -> np.ndarray:
    """splitmix64 of each number (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014)."""
    with np.errstate(over="ignore"):
        z = state + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def fill(part: Path) -> None:
    """Fills a part's weights from its table, as the benchmark does."""
    with (part / DATA).open("wb") as out:
        for number, row in enumerate((part / TABLE).read_text().splitlines()):
            _, _, count, mean, deviation = row.split("\t")
            state = np.arange(int(count), dtype=np.uint64) + np.uint64(number << 32)
            u = (splitmix(state) >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)
            spread = np.float32(float(deviation) * 3**0.5)
            out.write((np.float32(mean) + spread * (np.float32(2) * u - np.float32(1))).tobytes())


def check(model: Path, folder: Path) -> None:
    """Fills the weights into a copy and runs every part once; says how large the outputs are."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(model, folder)
    rng, options = np.random.default_rng(1), onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    feeds = {
        "text_encoder": {"input_ids": np.array([[VOCABULARY - 2, *range(300, 320), *[VOCABULARY - 1] * 56]], np.int32)},
        "unet": {
            "sample": rng.standard_normal((2, 4, 32, 32), np.float32),
            "timestep": np.array(500, np.int64),
            "encoder_hidden_states": rng.standard_normal((2, 77, TEXT), np.float32),
        },
        "vae_decoder": {"latent_sample": rng.standard_normal((1, 4, 32, 32), np.float32)},
        "vae_encoder": {"sample": rng.standard_normal((1, 3, 256, 256), np.float32)},
    }
    for part, path in each_part(folder):
        fill(path.parent)
        session = onnxruntime.InferenceSession(path, options)
        kinds = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(float)": np.float32}
        feed = {i.name: feeds[part][i.name].astype(kinds[i.type]) for i in session.get_inputs()}
        for name, out in zip([o.name for o in session.get_outputs()], session.run(None, feed)):
            assert np.isfinite(out).all(), (part, name)
            print(f"{part:14} {name:20} {out.shape} mean {out.mean():.3f} deviation {out.std():.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--check", type=Path, help="a folder for a copy with weights")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        torch_folder = Path(scratch) / "torch"
        pipeline(Path(scratch)).save_pretrained(torch_folder)
        optimum_export(torch_folder, arguments.out)
    shutil.rmtree(arguments.out / "tokenizer", ignore_errors=True)
    for part, path in each_part(arguments.out):
        count = strip(path)
        print(f"{part:14} {count:9} values of weights, graph of {path.stat().st_size:7} bytes")
    index = json.loads((arguments.out / "model_index.json").read_text())
    (arguments.out / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    if arguments.check:
        check(arguments.out, arguments.check)


if __name__ == "__main__":
    main()
