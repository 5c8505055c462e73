#!/usr/bin/env python3
"""Exports the trained networks as ONNX files in the layout of diffusers and Optimum, with Mobula's manifest.

The UNet's `timestep` input is made `[batch_size]`, so that rows at different steps share one call, and its weights are
stored as float16. The manifest
mobula.json holds the generation defaults and the linear map from latents to colours that previews use.

examples:
  %(prog)s --work build/demo --out models/demo
  %(prog)s --work build/demo --out models/demo --guidance 3.0 --scheduler dpmpp_2m
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, PNDMScheduler
from diffusers import StableDiffusionPipeline
from optimum.exporters.onnx import main_export

from networks import autoencoder, denoiser, text_encoder
from render import render
from scenes import random_scene
from tokenizer import load_tokenizer
from train_denoiser import SCHEDULE

OPSET = 18
HALVED_FROM = 1024  # values; smaller weights (biases, norms) stay float32
PREVIEW_SAMPLES = 256  # pictures behind the least-squares map from latents to colours
SCHEDULERS = {
    "ddim": (DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": False, "timestep_spacing": "trailing"}),
    "pndm": (PNDMScheduler, {"skip_prk_steps": True, "set_alpha_to_one": False}),
    "euler": (EulerDiscreteScheduler, {"timestep_spacing": "trailing"}),
    "dpmpp_2m": (DPMSolverMultistepScheduler, {"timestep_spacing": "trailing"}),
}


def scheduler(name: str) -> object:
    """A diffusers scheduler on the schedule that the denoiser was trained on."""
    kind, extra = SCHEDULERS[name]
    # Stable Diffusion checkpoints use an offset of 1; it matters for schedulers with leading timesteps only.
    return kind(**SCHEDULE, prediction_type="v_prediction", steps_offset=1, **extra)


def pipeline(work: Path, scheduler_name: str) -> StableDiffusionPipeline:
    """The trained networks (averaged weights) as a diffusers pipeline."""
    saved = torch.load(work / "denoiser.pt")
    tokenizer = load_tokenizer(work / "tokenizer")
    vae, unet = autoencoder(), denoiser()
    text = text_encoder(len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id)
    vae.load_state_dict(torch.load(work / "vae.pt"))
    torch.nn.ModuleDict({"unet": unet, "text": text}).load_state_dict(saved["average"])
    return StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=text.eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=scheduler(scheduler_name),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def batch_timestep(path: Path) -> None:
    """Gives the UNet's rank-0 `timestep` the batch dimension: drops the Unsqueeze that is its only reader."""
    model = onnx.load(path)
    graph = model.graph
    entry = next(value for value in graph.input if value.name == "timestep")
    if len(entry.type.tensor_type.shape.dim) == 1:
        return
    readers = [node for node in graph.node if "timestep" in node.input]
    if len(readers) != 1 or readers[0].op_type != "Unsqueeze":
        raise ValueError(f"timestep is read by {[node.op_type for node in readers]}, expected one Unsqueeze")
    axes, result = readers[0].input[1], readers[0].output[0]
    graph.node.remove(readers[0])
    for node in graph.node:
        for slot, name in enumerate(node.input):
            if name == result:
                node.input[slot] = "timestep"
    if not any(axes in node.input for node in graph.node):
        for store in (graph.initializer, graph.node):
            for item in [i for i in store if getattr(i, "name", "") == axes or axes in getattr(i, "output", [])]:
                store.remove(item)
    batch = next(value for value in graph.input if value.name == "sample").type.tensor_type.shape.dim[0].dim_param
    entry.type.tensor_type.shape.dim.add().dim_param = batch
    onnx.checker.check_model(model)
    onnx.save(model, path)


def halve_weights(path: Path) -> None:
    """Stores the large float32 weights as float16 behind a Cast; inputs, outputs and computing stay float32.

    ONNX Runtime folds the casts when it loads the file, so only the file is smaller.
    """
    model = onnx.load(path)
    graph, casts = model.graph, []
    for weight in list(graph.initializer):
        values = onnx.numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.size < HALVED_FROM:
            continue
        stored = onnx.numpy_helper.from_array(values.astype(np.float16), f"{weight.name}_f16")
        casts.append(onnx.helper.make_node("Cast", [stored.name], [weight.name], to=onnx.TensorProto.FLOAT))
        graph.initializer.remove(weight)
        graph.initializer.append(stored)
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def tidy(folder: Path) -> None:
    """Drops from the JSON files what is no JSON (infinities; readers then use the defaults) or names this machine."""
    for file in [folder / "model_index.json", *folder.glob("*/*config.json")]:
        values = json.loads(file.read_text())
        kept = {
            key: value
            for key, value in values.items()
            if key != "_name_or_path" and not (isinstance(value, float) and not math.isfinite(value))
        }
        file.write_text(json.dumps(kept, indent=2) + "\n")


def preview_map(pipe: StableDiffusionPipeline) -> dict[str, list]:
    """Least-squares map from a UNet-space latent pixel to the RGB in [-1, 1] of the 8 x 8 pixels it stands for."""
    rng = random.Random(0)
    pictures, _ = render([random_scene(rng) for _ in range(PREVIEW_SAMPLES)])
    with torch.no_grad():
        latents = pipe.vae.encode(pictures).latent_dist.mean * pipe.vae.config.scaling_factor
    inputs = latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1])
    colours = F.avg_pool2d(pictures, 8).permute(0, 2, 3, 1).reshape(-1, 3)
    solution = torch.linalg.lstsq(torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1), colours).solution
    rows = [[round(float(value), 5) for value in row] for row in solution]
    return {"weights": rows[:-1], "bias": rows[-1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/demo"), help="folder of checkpoints (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("models/demo"), help="folder to write (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="default number of steps (default: %(default)s)")
    parser.add_argument("--guidance", type=float, default=3.0, help="default guidance scale (default: %(default)s)")
    parser.add_argument("--scheduler", choices=sorted(SCHEDULERS), default="dpmpp_2m", help="(default: %(default)s)")
    options = parser.parse_args()
    pipe = pipeline(options.work, options.scheduler)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "torch", Path(folder) / "onnx"
        pipe.save_pretrained(source)
        main_export(str(source), target, task="text-to-image", opset=OPSET, do_validation=False, device="cpu")
        batch_timestep(target / "unet" / "model.onnx")
        halve_weights(target / "unet" / "model.onnx")
        tidy(target)
        for part in target.iterdir():
            place = options.out / part.name
            if part.is_dir():
                shutil.rmtree(place, ignore_errors=True)
                shutil.copytree(part, place)
            else:
                shutil.copy(part, place)
    manifest = {
        "defaults": {"steps": options.steps, "guidance_scale": options.guidance, "scheduler": options.scheduler},
        "latent_rgb": preview_map(pipe),
    }
    (options.out / "mobula.json").write_text(json.dumps(manifest, indent=2) + "\n")
    size = sum(file.stat().st_size for file in options.out.rglob("*") if file.is_file())
    print(f"{options.out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
