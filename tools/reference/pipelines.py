#!/usr/bin/env python3
"""Draws reference pictures with diffusers' pipelines (float32, torch's CPU generator, one thread).

    pipelines.py --torch DIR --models services/inference/tests/models --out services/inference/tests/golden
                 [--only FAMILY ...] [--shake 1e-6]

`--torch` is what tiny_models.py wrote, `--models` has the embeddings of models_embeddings.py. The output is one PNG per
picture and, per family, a list that says for each what was asked for, token ids included, so that a test needs no
tokenizer:

  first        cases.json: prompts to pictures with sd15 and sd21 and seven schedulers; fields as written below
  text         clip skip, guidance rescale, long prompts, textual inversion, several seeds
  half         pictures that models in float16 should come near to
  schedulers   every kind of scheduler and schedule that the pipeline runs
  image        pictures to pictures, inpainting with 4 and 9 channels
  xl           Stable Diffusion XL, base, refiner, inpainting, hand-over
  fast         latent consistency models, turbo models

Of all but `first`: cases_FAMILY.json, format in pipelines_base.py. `--shake` changes all weights by that much at random
and says which pictures differ by more than one level from those in `--out`, writing nothing there: a case that such a
change moves is no measure for an implementation.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import pipelines_fast
import pipelines_image
import pipelines_text
import pipelines_xl
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
)
from PIL import Image
from pipelines_base import Studio

FAMILIES = {
    "text": pipelines_text.text,
    "half": pipelines_text.half,
    "schedulers": pipelines_text.schedulers,
    "image": pipelines_image.image,
    "xl": pipelines_xl.xl,
    "fast": pipelines_fast.fast,
}
SCHEDULERS = {
    "pndm": (PNDMScheduler, {}),
    "ddim": (DDIMScheduler, {}),
    "euler": (EulerDiscreteScheduler, {"use_karras_sigmas": False}),
    "euler_a": (EulerAncestralDiscreteScheduler, {}),
    "dpmpp_2m": (DPMSolverMultistepScheduler, {"use_karras_sigmas": False}),
    "euler_karras": (EulerDiscreteScheduler, {"use_karras_sigmas": True}),
    "dpmpp_2m_karras": (DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
}
# prompt, negative prompt, width, height, steps, guidance scale, seed
REQUESTS = [
    ("a red circle on a blue background", "a square", 32, 32, 8, 7.5, 7),
    ("the big bicycle", "", 48, 32, 5, 3.0, 4_294_967_301),
    ("red", "", 32, 64, 6, 1.0, 12345),
]


def first(weights: Path, target: Path) -> None:
    """The family that was there before the others."""
    target.mkdir(parents=True, exist_ok=True)
    cases = []
    for model in ("sd15", "sd21"):
        pipe = StableDiffusionPipeline.from_pretrained(weights / model, torch_dtype=torch.float32)
        pipe.set_progress_bar_config(disable=True)
        own = pipe.scheduler.config

        def ids(text: str) -> list[int]:
            return pipe.tokenizer(text, padding="max_length", max_length=77, truncation=True).input_ids

        for name, (scheduler, overrides) in SCHEDULERS.items():
            pipe.scheduler = scheduler.from_config(own, **overrides)
            for prompt, negative, width, height, steps, guidance, seed in REQUESTS:
                picture = pipe(
                    prompt,
                    negative_prompt=negative,
                    width=width,
                    height=height,
                    num_inference_steps=steps,
                    guidance_scale=guidance,
                    generator=torch.Generator("cpu").manual_seed(seed),
                ).images[0]
                file = f"{model}-{name}-{width}x{height}.png"
                picture.save(target / file)
                cases.append(
                    {
                        "model": model,
                        "scheduler": name,
                        "prompt": prompt,
                        "prompt_ids": ids(prompt),
                        "negative_prompt_ids": ids(negative),
                        "width": width,
                        "height": height,
                        "steps": steps,
                        "guidance_scale": guidance,
                        "seed": seed,
                        "file": file,
                    }
                )
    with open(target / "cases.json", "w", encoding="utf-8") as out:
        out.write("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")


def family(arguments: argparse.Namespace, name: str, out: Path) -> None:
    """Draws one family into `out`."""
    if name == "first":
        first(arguments.torch, out)
        return
    studio = Studio(arguments.torch, arguments.models, out, name, arguments.shake)
    studio.clear()
    FAMILIES[name](studio)
    studio.write()


def moved(name: str, kept: Path, shaken: Path) -> None:
    """Says which pictures of a family differ."""
    cases = json.loads((kept / f"cases_{name}.json").read_text(encoding="utf-8"))["cases"]
    worst = 0
    for file in [file for case in cases for file in case.get("files", ())]:
        a, b = (np.asarray(Image.open(folder / file), dtype=int) for folder in (kept, shaken))
        difference = abs(a - b).max()
        worst = max(worst, difference)
        if difference > 1:
            print(f"{file}: {difference} levels")
    print(f"{name}: {len(cases)} cases, at most {worst} levels")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", type=Path, required=True, help="folder that tiny_models.py wrote with --torch")
    parser.add_argument("--models", type=Path, required=True, help="folder with embeddings/")
    parser.add_argument("--out", type=Path, required=True, help="folder for pictures and lists")
    parser.add_argument("--only", nargs="+", choices=("first", *FAMILIES), default=("first", *FAMILIES))
    parser.add_argument("--shake", type=float, default=0.0, help="relative change of all weights")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.only:
        if not arguments.shake:
            family(arguments, name, arguments.out)
        elif name != "first":
            with tempfile.TemporaryDirectory() as scratch:
                family(arguments, name, Path(scratch))
                moved(name, arguments.out, Path(scratch))


if __name__ == "__main__":
    main()
