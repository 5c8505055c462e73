#!/usr/bin/env python3
"""Draws reference pictures with diffusers' StableDiffusionPipeline (float32, torch's CPU generator).

    pipelines.py --torch DIR --out services/inference/tests/golden

`--torch` is what tiny_models.py wrote. The output is one PNG per picture and cases.json, which says for each what was
asked for, token ids included, so that a test needs no tokenizer.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
)

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", type=Path, required=True, help="folder that tiny_models.py wrote with --torch")
    parser.add_argument("--out", type=Path, required=True, help="folder for pictures and cases.json; replaced")
    arguments = parser.parse_args()
    shutil.rmtree(arguments.out, ignore_errors=True)
    arguments.out.mkdir(parents=True)
    cases = []
    for model in ("sd15", "sd21"):
        pipe = StableDiffusionPipeline.from_pretrained(arguments.torch / model, torch_dtype=torch.float32)
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
                picture.save(arguments.out / file)
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
    with open(arguments.out / "cases.json", "w", encoding="utf-8") as out:
        out.write("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")


if __name__ == "__main__":
    main()
