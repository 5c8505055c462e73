#!/usr/bin/env python3
"""Scores how well pictures obey their prompts, by measuring pixels.

examples:
  %(prog)s --renderings 1000                              the training renderings themselves: what the score can see
  %(prog)s --model models/demo --count 200 --seed 9000    pictures made here, at the model's default settings
  %(prog)s --model models/demo --varied                   the same with every wording of the captions
  %(prog)s --images out/prompts.jsonl                     pictures made elsewhere: lines of {"prompt", "file"}
  %(prog)s --images out                                   a folder of PNG files with a text field "prompt"

Each part that a prompt asks for counts by itself; "all" counts prompts of which every part is right.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from captions import caption, prompt_with
from measure import measure
from render import render, to_bytes
from sample import Sampler
from scenes import random_scene
from wanted import Wanted, wanted

SIZE_SHARE = 0.4  # of the benchmark's prompts that name a size
POSITION_SHARE = 0.4  # and a position
PARTS = [field.name for field in fields(Wanted)]


def benchmark_prompts(count: int, seed: int, varied: bool) -> list[str]:
    """Random prompts; the reference wording, or any wording that asks for something."""
    rng = random.Random(f"prompts {seed}")
    prompts: list[str] = []
    while len(prompts) < count:
        scene = random_scene(rng)
        if varied:
            text = caption(scene, rng)
            if any(asdict(wanted(text)).values()):
                prompts.append(text)
        else:
            prompts.append(prompt_with(scene, rng.random() < SIZE_SHARE, rng.random() < POSITION_SHARE))
    return prompts


def score(prompts: Iterable[str], pictures: Iterable[np.ndarray]) -> tuple[dict[str, tuple[int, int]], list[str]]:
    """Right and asked per part, and one line for each picture with something wrong."""
    tally = {part: [0, 0] for part in [*PARTS, "all"]}
    wrong: list[str] = []
    for number, (prompt, pixels) in enumerate(zip(prompts, pictures, strict=True)):
        asked, shown = asdict(wanted(prompt)), measure(pixels)
        missed = [part for part in PARTS if asked[part] and asked[part] != getattr(shown, part)]
        for part in PARTS:
            if asked[part]:
                tally[part][0] += part not in missed
                tally[part][1] += 1
        tally["all"][0] += not missed
        tally["all"][1] += 1
        if missed:
            details = ", ".join(f"{part} {getattr(shown, part)}" for part in missed)
            wrong.append(f"{number:4d} {prompt!r}: {details} (overlap {shown.overlap:.2f}, radius {shown.radius:.1f})")
    return {part: (right, total) for part, (right, total) in tally.items()}, wrong


def sheet(pictures: np.ndarray, columns: int) -> Image.Image:
    """Pictures side by side, row by row."""
    rows = [np.concatenate(list(pictures[i : i + columns]), axis=1) for i in range(0, len(pictures), columns)]
    width = rows[0].shape[1]
    return Image.fromarray(np.concatenate([np.pad(r, ((0, 0), (0, width - r.shape[1]), (0, 0))) for r in rows]))


def _from_elsewhere(source: Path) -> tuple[list[str], list[np.ndarray]]:
    if source.is_dir():
        files = sorted(source.glob("*.png"))
        prompts = [Image.open(file).text["prompt"] for file in files]
    else:
        lines = [json.loads(line) for line in source.read_text().splitlines() if line.strip()]
        files, prompts = [source.parent / line["file"] for line in lines], [line["prompt"] for line in lines]
    return prompts, [np.array(Image.open(file).convert("RGB")) for file in files]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--renderings", type=int, metavar="N", help="score N training renderings")
    source.add_argument("--model", type=Path, metavar="DIR", help="score pictures sampled from an exported model")
    source.add_argument("--images", type=Path, metavar="PATH", help="score a JSONL file of prompts and files, or a folder")
    parser.add_argument("--count", type=int, default=200, help="prompts for --model (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=9000, help="of prompts and pictures (default: %(default)s)")
    parser.add_argument("--varied", action="store_true", help="prompts in every wording of the captions")
    parser.add_argument("--steps", type=int, help="instead of the model's default")
    parser.add_argument("--guidance", type=float, help="instead of the model's default")
    parser.add_argument("--negative", default="", help="negative prompt (default: empty)")
    parser.add_argument("--scheduler", help="a diffusers class, such as EulerDiscreteScheduler, instead of the model's")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="also write the pictures as one contact sheet")
    parser.add_argument("--columns", type=int, default=20, help="of the contact sheet (default: %(default)s)")
    parser.add_argument("--wrong", action="store_true", help="list the pictures with something wrong")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    if options.renderings:
        rng = random.Random(f"renderings {options.seed}")
        scenes = [random_scene(rng) for _ in range(options.renderings)]
        prompts = [prompt_with(scene, True, True) for scene in scenes]
        pictures = to_bytes(render(scenes)[0]).numpy()
    elif options.model:
        prompts = benchmark_prompts(options.count, options.seed, options.varied)
        seeds = [options.seed + number for number in range(options.count)]
        sampler = Sampler(options.model, options.threads)
        settings = (options.steps, options.guidance, options.negative, options.scheduler)
        pictures = sampler.pictures(prompts, seeds, *settings)
    else:
        prompts, pictures = _from_elsewhere(options.images)
    tally, wrong = score(prompts, tqdm(pictures, unit="picture", desc="measuring", leave=False))
    if options.wrong:
        print("\n".join(wrong))
    for part, (right, total) in tally.items():
        print(f"{part:11s} {right:5d} / {total:<5d} {100 * right / max(1, total):6.2f} %")
    if options.sheet:
        sheet(np.stack(list(pictures)), options.columns).save(options.sheet, optimize=True)


if __name__ == "__main__":
    main()
