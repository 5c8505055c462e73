#!/usr/bin/env python3
"""Trains the demo model in phases; every phase has a time budget, saves often and can be continued.

examples:
  %(prog)s vae --minutes 12 --work build/demo        the autoencoder, on pictures rendered on the fly
  %(prog)s denoiser --minutes 80 --work build/demo   the UNet and the text encoder, on latents of the autoencoder
  %(prog)s decoder --minutes 8 --work build/demo     the decoder again, alone; the denoiser stays valid
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from train_denoiser import Plan, train_denoiser
from train_vae import train_vae


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phase", choices=["vae", "denoiser", "decoder"])
    parser.add_argument("--work", type=Path, default=Path("build/demo"), help="folder of checkpoints (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=12, help="time budget of the phase (default: %(default)s)")
    parser.add_argument("--batch", type=int, help="pictures per step (default: 24 for denoiser, otherwise 16)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of scenes and weights (default: %(default)s)")
    parser.add_argument("--peak-rate", type=float, default=1e-3, help="learning rate of the denoiser (default: %(default)s)")
    parser.add_argument(
        "--decay-share", type=float, default=0.5, help="share of the time in which that rate falls to zero (default: %(default)s)"
    )
    parser.add_argument("--float32", action="store_true", help="no bfloat16; for CPUs without avx512_bf16 or amx")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    bfloat16 = not options.float32
    if options.phase == "denoiser":
        plan = Plan(
            options.minutes, options.batch or 24, options.seed, bfloat16, options.peak_rate, options.decay_share
        )
        train_denoiser(options.work, plan)
    else:
        polish = options.phase == "decoder"
        train_vae(options.work, options.minutes, options.batch or 16, options.seed, bfloat16, polish)


if __name__ == "__main__":
    main()
