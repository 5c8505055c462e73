#!/usr/bin/env python3
"""Makes tiny Stable Diffusion models with random weights, in every dialect that exporters write.

    tiny_models.py --onnx services/inference/tests/models --torch DIR [--only NAME ...]

`--torch` receives the same weights as diffusers pipelines, for pipelines.py, which draws reference pictures with them.
`--only` makes only these models; dialects of sd15 need sd15 in `--onnx`.

  sd15            SD 1.5 shaped, exported by Optimum: scalar timestep, int64 ids, one file per part
  sd15-legacy     the same weights with the I/O of the diffusers conversion script and of the onnxruntime demo: int32
                  ids, int64 timestep [steps], weights in weights.pb, `text_embeddings`, `latent`, `images`, and a VAE
                  encoder that draws from its posterior itself
  sd15-extdata    the same weights with model.onnx_data beside model.onnx, as Optimum writes models above 2 GB
  sd15-fp16       the same weights and inputs and outputs in float16
  sd15-hidden     the same weights, the text encoder exported with its hidden states, for clip skip
  sd15-inpaint    SD 1.5 inpainting: the UNet takes 9 channels
  sd21            SD 2.1 shaped (v-prediction, linear projections, padding with "!"), exported by Optimum
  sdxl            SDXL base shaped: two text encoders, sizes as conditions
  sdxl-refiner    SDXL refiner shaped: only the second text encoder, aesthetic scores as conditions
  sdxl-inpaint    SDXL base shaped, the UNet takes 9 channels
  lcm             SD 1.5 shaped latent consistency model: the UNet takes the guidance scale as `timestep_cond`
  sd15-fp16-overflow   sd15-fp16 with a VAE decoder whose activations are too large for float16 and right in float32

Everything is seeded: the same versions of the libraries give the same files. Embeddings: models_embeddings.py.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import models_sd
import models_xl
import torch
from models_base import each_part, optimum_export, save_torch
from models_dialects import external, half, legacy, overflow

TASKS = {"sd15-inpaint": "inpainting", "sdxl-inpaint": "inpainting", "sdxl-refiner": "image-to-image"}
DIALECTS = ("sd15-legacy", "sd15-extdata", "sd15-fp16", "sd15-hidden", "sd15-fp16-overflow")


def make(kind: str, onnx: Path, weights: Path) -> None:
    """Builds and exports one model."""
    maker = models_xl if kind in models_xl.SEEDS else models_sd
    with tempfile.TemporaryDirectory() as scratch:
        source = save_torch(maker.pipeline(kind, Path(scratch)), weights / kind)
    optimum_export(source, onnx / kind, TASKS.get(kind, "text-to-image"))


def dialect(kind: str, onnx: Path, weights: Path) -> None:
    """Makes one variant of sd15."""
    target = onnx / kind
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(onnx / "sd15", target)
    if kind == "sd15-legacy":
        legacy(target)
    elif kind == "sd15-extdata":
        for part, _ in list(each_part(target)):
            external(target, "model.onnx_data", part)
    elif kind == "sd15-fp16":
        half(target)
    elif kind == "sd15-hidden":
        models_sd.hidden(weights / "sd15", target)
    else:
        overflow(weights / "sd15", weights / kind, target)
        half(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnx", type=Path, required=True, help="folder for the ONNX models; each is replaced")
    parser.add_argument("--torch", type=Path, required=True, help="folder for the same pipelines as torch weights")
    kinds = (*models_sd.SEEDS, *models_xl.SEEDS)
    parser.add_argument("--only", nargs="+", choices=(*kinds, *DIALECTS), default=(*kinds, *DIALECTS))
    arguments = parser.parse_args()
    # Sums depend on how many threads share them, in the last bit.
    torch.set_num_threads(1)
    for kind in kinds:
        if kind in arguments.only:
            make(kind, arguments.onnx, arguments.torch)
    for kind in DIALECTS:
        if kind in arguments.only:
            dialect(kind, arguments.onnx, arguments.torch)


if __name__ == "__main__":
    main()
