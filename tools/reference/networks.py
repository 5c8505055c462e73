#!/usr/bin/env python3
"""Writes what the networks of the tiny models give in diffusers, for tests of the engine alone (float32, one thread).

    networks.py --torch DIR --embeddings services/inference/tests/models/embeddings --out services/inference/tests/networks.json

`--torch` is what tiny_models.py wrote with --torch. For each model: text states and pooled text for each clip_skip, as
StableDiffusion(XL)Pipeline.encode_prompt takes them; one UNet call of two rows at different timesteps; the VAE's moments
and decodings, whole and in tiles (AutoencoderKL.enable_tiling). Inputs are waves that a test computes again: value i of
wave k is sin(0.7 * i + k) in float64, cut to float32. Of each output every STRIDE-th value is kept.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from safetensors.numpy import load_file

MODELS = ("sd15", "sd21", "lcm", "sd15-inpaint", "sdxl", "sdxl-refiner", "sdxl-inpaint")
STRIDE = 37
WINDOW = 77


def wave(key: int, *shape: int) -> torch.Tensor:
    count = math.prod(shape)
    values = np.sin(0.7 * np.arange(count, dtype=np.float64) + key).astype(np.float32)
    return torch.from_numpy(values).reshape(shape)


def ids(vocabulary: int) -> torch.Tensor:
    """Two windows: start, some words, end, padding."""
    rows = []
    for row in range(2):
        words = [(row * 31 + 7 * i) % (vocabulary - 2) for i in range(9 + row)]
        rows.append([vocabulary - 2, *words] + [vocabulary - 1] * (WINDOW - 1 - len(words)))
    return torch.tensor(rows)


def kept(values: torch.Tensor) -> dict:
    flat = values.detach().to(torch.float32).flatten().tolist()
    return {"count": len(flat), "values": [float(f"{value:.8g}") for value in flat[::STRIDE]]}


def text(pipe, xl: bool) -> list[dict]:
    encoders = [e for e in (getattr(pipe, "text_encoder", None), getattr(pipe, "text_encoder_2", None)) if e]
    layers = min(e.config.num_hidden_layers for e in encoders)
    cases = []
    for skip in range(layers if xl else layers + 1):
        states, pooled = [], None
        for encoder in encoders:
            out = encoder(ids(522), output_hidden_states=True)
            if xl:
                if out[0].ndim == 2:
                    pooled = out[0]
                states.append(out.hidden_states[-(skip + 2)])
            elif skip == 0:
                states.append(out[0])
            else:
                hidden = out.hidden_states[-(skip + 1)]
                states.append(encoder.text_model.final_layer_norm(hidden))
        case = {"clip_skip": skip, "states": kept(torch.cat(states, -1))}
        if pooled is not None:
            case["pooled"] = kept(pooled)
        cases.append(case)
    return cases


def unet(pipe) -> dict:
    config = pipe.unet.config
    sample = wave(1, 2, config.in_channels, 8, 12)
    states = wave(2, 2, WINDOW, config.cross_attention_dim)
    extra, added = {}, None
    if config.addition_embed_type == "text_time":
        pooled = pipe.text_encoder_2.config.projection_dim
        count = (config.projection_class_embeddings_input_dim - pooled) // config.addition_time_embed_dim
        ids = torch.tensor([[64.0 * (row + i) for i in range(count)] for row in range(2)])
        added = {"text_embeds": wave(3, 2, pooled), "time_ids": ids}
    if config.time_cond_proj_dim is not None:
        extra["timestep_cond"] = wave(4, 2, config.time_cond_proj_dim)
    out = pipe.unet(sample, torch.tensor([900.0, 100.0]), states, added_cond_kwargs=added, **extra).sample
    return kept(out)


def vae(pipe) -> dict:
    out = {}
    for tiled in (False, True):
        if tiled:
            pipe.vae.enable_tiling()
        scaling = pipe.vae.config.scaling_factor
        latents = wave(5, 1, 4, 10, 14)
        key = "tiled" if tiled else "whole"
        moments = pipe.vae.encode(wave(6, 1, 3, 80, 112)).latent_dist
        out[key] = {
            "decoded": kept(pipe.vae.decode(latents / scaling).sample),
            "mean": kept(moments.mean),
            "deviation": kept(moments.std),
        }
        pipe.vae.disable_tiling()
    return out


def inverted(pipe, folder: Path) -> dict:
    """States of a window with the vectors of an embedding in it, put in by hand where its tokens' would be."""
    (vectors,) = load_file(folder / "three.safetensors").values()
    model = pipe.text_encoder
    table = model.get_input_embeddings()
    size = table.weight.shape[0]
    wider = torch.nn.Embedding(size + len(vectors), table.weight.shape[1])
    wider.weight.data = torch.cat([table.weight.data, torch.from_numpy(vectors).float()])
    model.set_input_embeddings(wider)
    tokens = ids(522)
    for place in range(len(vectors)):
        tokens[:, 3 + place] = size + place
    out = kept(model(tokens)[0])
    model.set_input_embeddings(table)
    return {"vectors": len(vectors), "states": out}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", type=Path, required=True, help="folder that tiny_models.py wrote with --torch")
    parser.add_argument("--embeddings", type=Path, required=True, help="folder with three.safetensors")
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    models = {}
    for name in MODELS:
        pipe = DiffusionPipeline.from_pretrained(arguments.torch / name, torch_dtype=torch.float32, local_files_only=True)
        xl = "XL" in type(pipe).__name__
        models[name] = {"text": text(pipe, xl), "unet": unet(pipe), "vae": vae(pipe)}
        if name == "sd15":
            models[name]["inverted"] = inverted(pipe, arguments.embeddings)
    arguments.out.write_text(json.dumps({"stride": STRIDE, "models": models}) + "\n")


if __name__ == "__main__":
    main()
