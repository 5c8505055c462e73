"""Writes the golden values of the tests of JPEG files: services/preprocess/tests/golden/jpegs.json and jpegs.bin.

Files that Pillow writes, and those of jpeg_files.py; with them the pixels that Pillow, which has libjpeg-turbo, makes of them.
All bytes lie one behind another in jpegs.bin. Sees to it that Pillow refuses files that are cut off.

Run: python jpegs.py (needs Pillow, numpy).
"""

from __future__ import annotations

import argparse
import io
import json
import random
from pathlib import Path

import jpeg_files
import numpy as np
import PIL
from images import GOLDEN, file, noise, smooth
from PIL import Image, features

SIZES = [(58, 43), (16, 16), (17, 31), (1, 1), (33, 18), (7, 3)]
QUALITIES = [75, 95, 20, 100, 1, 60]


def changed_scans(data: bytes, seed: int) -> bytes:
    """Some bytes of a progressive file's scans changed, so that none is a marker's."""
    rng = random.Random(seed)
    out = bytearray(data)
    starts = [at + 2 + data[at + 3] for at in range(len(data) - 1) if data[at : at + 2] == b"\xff\xda"]
    for start in rng.sample(starts, 3):
        at = start + rng.randrange(6)
        if 0xFF not in out[at - 1 : at + 2]:
            out[at] = rng.randrange(255)
    return bytes(out)


def files() -> dict[str, bytes]:
    found, number = {}, 0
    for subsampling, name in enumerate(["444", "422", "420"]):
        for progressive in (False, True):
            for width, height in SIZES:
                picture = Image.fromarray((smooth if number % 3 else noise)(width, height, 3, number))
                quality = QUALITIES[number % len(QUALITIES)]
                kind = "progressive" if progressive else "plain"
                found[f"{kind}_{name}_{width}x{height}_{quality}"] = file(
                    picture, "JPEG", quality=quality, subsampling=subsampling, progressive=progressive, optimize=number % 2 == 0
                )
                number += 5
    odd = Image.fromarray(smooth(50, 35, 3, 90))
    rough = Image.fromarray(noise(50, 35, 3, 91))
    for name, options in {
        "blocks": {"restart_marker_blocks": 1}, "more_blocks": {"restart_marker_blocks": 5}, "rows": {"restart_marker_rows": 1},
        "progressive_rows": {"restart_marker_rows": 1, "progressive": True},
        "progressive_blocks": {"restart_marker_blocks": 7, "progressive": True},
    }.items():  # fmt: skip
        found[f"restarts_{name}"] = file(rough if name == "rows" else odd, "JPEG", quality=80, **options)
    for name, one in {"smooth": odd, "rough": rough}.items():
        found[f"grey_{name}"] = file(one.convert("L"), "JPEG", quality=85)
        found[f"grey_progressive_{name}"] = file(one.convert("L"), "JPEG", quality=85, progressive=True)
        found[f"cmyk_{name}"] = file(one.convert("CMYK"), "JPEG", quality=90)
        found[f"cmyk_progressive_{name}"] = file(one.convert("CMYK"), "JPEG", quality=70, progressive=True)
        found[f"rgb_{name}"] = file(one, "JPEG", quality=90, keep_rgb=True)
    progressive = file(odd, "JPEG", quality=90, progressive=True)
    restarts = found["restarts_progressive_blocks"]
    for seed in range(10):
        found[f"progressive_changed_{seed}"] = changed_scans(progressive if seed % 2 else restarts, seed)
    return found | jpeg_files.files()


def pixels(content: bytes) -> Image.Image:
    with Image.open(io.BytesIO(content)) as image:
        return image.convert("RGB")


def is_taken(content: bytes) -> bool:
    try:
        pixels(content)
    except (OSError, SyntaxError):
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=GOLDEN, help="folder to write to (default: %(default)s)")
    args = parser.parse_args()
    data, cases = bytearray(), []
    for name, content in files().items():
        image = pixels(content)
        case = {"name": name, "size": list(image.size), "file": [len(data), len(content)]}
        data += content
        case["pixels"] = [len(data), len(image.tobytes())]
        data += image.tobytes()
        if len(content) < 1000 and "changed" not in name:
            # What the test of cut files relies on; without its last two bytes alone Pillow takes a file now and then.
            assert not any(is_taken(content[:length]) for length in range(len(content) - 2)), name
        cases.append(case)
    said = {"pillow": PIL.__version__, "libjpeg_turbo": features.version("libjpeg_turbo"), "cases": cases}
    (args.output / "jpegs.bin").write_bytes(data)
    (args.output / "jpegs.json").write_text(json.dumps(said, indent=None, separators=(",", ":")).replace("},{", "},\n{") + "\n")
    print(f"{len(cases)} files, {len(data)} bytes")


if __name__ == "__main__":
    main()
