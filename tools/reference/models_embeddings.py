#!/usr/bin/env python3
"""Makes textual inversion embeddings for the tiny models, in the forms that are found in the wild.

    models_embeddings.py --out services/inference/tests/models/embeddings

  one.safetensors            diffusers: the token is the key; one vector, for models of the sd15 family (16 wide)
  three.safetensors          diffusers, three vectors
  flat.safetensors           diffusers, one vector without a dimension for the number of vectors, as older scripts wrote
  one-a1111.safetensors      A1111: the key is `emb_params`, the token is the file's name; one vector
  three-a1111.safetensors    A1111, three vectors
  three-a1111.pt             A1111's older pickle with `string_to_param`: to be refused or read as data, never run
  xl-one.safetensors         SDXL: `clip_l` (16 wide) and `clip_g` (24 wide), one vector
  xl-three.safetensors       SDXL, three vectors
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file


def vectors(seed: int, count: int, width: int) -> torch.Tensor:
    """Vectors ten times as large as those of the vocabulary, so that they show in the picture."""
    return 0.2 * torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    save_file({"<one>": vectors(1, 1, 16)}, out / "one.safetensors")
    save_file({"<three>": vectors(2, 3, 16)}, out / "three.safetensors")
    save_file({"<flat>": vectors(3, 1, 16)[0]}, out / "flat.safetensors")
    save_file({"emb_params": vectors(4, 1, 16)}, out / "one-a1111.safetensors")
    save_file({"emb_params": vectors(5, 3, 16)}, out / "three-a1111.safetensors")
    pickled = {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": vectors(5, 3, 16)},
        "name": "three-a1111",
        "step": 100,
        "sd_checkpoint": None,
        "sd_checkpoint_name": None,
    }
    torch.save(pickled, out / "three-a1111.pt")
    for seed, name, count in ((6, "one", 1), (7, "three", 3)):
        halves = {"clip_l": vectors(seed, count, 16), "clip_g": vectors(seed + 10, count, 24)}
        save_file(halves, out / f"xl-{name}.safetensors")
    for file in out.iterdir():
        file.chmod(0o644)


if __name__ == "__main__":
    main()
