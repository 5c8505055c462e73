"""Writes the golden values of the tests of picture files: services/preprocess/tests/golden/images.json and images.bin.

Files of every kind that Pillow writes, and what diffusers makes of them: `load_image` (EXIF orientation, RGB), then
`VaeImageProcessor.resize`, for masks also `convert("L")`. All bytes lie one behind another in images.bin.

Run: python images.py (needs Pillow, diffusers, numpy).
"""

from __future__ import annotations

import argparse
import io
import json
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils import load_image
from PIL import Image

GOLDEN = Path(__file__).parents[2] / "services/preprocess/tests/golden"
SIZES = [(64, 48), (16, 16), (53, 37), (8, 40), (1, 1), (96, 8)]


def smooth(width: int, height: int, channels: int, seed: int) -> np.ndarray:
    """Slopes and waves with a little noise, as photographs have them."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    layers = []
    for _ in range(channels):
        a, b, c, d = rng.uniform(0.02, 0.25, 4)
        layers.append(127 + 80 * np.sin(a * x + b * y) + 40 * np.cos(c * x - d * y) + rng.normal(0, 3, x.shape))
    return np.clip(np.stack(layers, -1), 0, 255).astype(np.uint8)


def noise(width: int, height: int, channels: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def file(image: Image.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def oriented(image: Image.Image, kind: str, orientation: int, **options) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return file(image, kind, exif=exif, **options)


def png16(samples: np.ndarray, colour: int) -> bytes:
    """A PNG with 16 bits a channel, which Pillow does not write in colour."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def files() -> dict[str, bytes]:
    rgb = Image.fromarray(smooth(64, 48, 3, 1))
    wild = Image.fromarray(noise(64, 48, 3, 2))
    odd = Image.fromarray(smooth(45, 31, 3, 3))
    rgba = Image.fromarray(np.concatenate([smooth(40, 30, 3, 4), noise(40, 30, 1, 5)], -1))
    grey = Image.fromarray(smooth(50, 33, 1, 6)[..., 0])
    wide = np.random.default_rng(7).integers(0, 65536, (21, 30, 4), dtype=np.uint16)
    found = {
        "rgb.png": file(rgb, "PNG"), "noise.png": file(wild, "PNG"), "rgba.png": file(rgba, "PNG"),
        "grey.png": file(grey, "PNG"), "grey_alpha.png": file(rgba.convert("LA"), "PNG"),
        "palette.png": file(rgb.quantize(40), "PNG"), "bilevel.png": file(grey.convert("1"), "PNG"),
        "palette_alpha.png": file(rgba.quantize(30), "PNG"), "two_bits.png": file(rgb.quantize(4), "PNG", bits=2),
        "transparent.png": file(odd, "PNG", transparency=(120, 100, 90)), "rgb16.png": png16(wide[..., :3], 2),
        "rgba16.png": png16(wide, 6), "grey_alpha16.png": png16(wide[..., :2], 4), "turned.png": oriented(odd, "PNG", 6),
        "best.jpg": file(rgb, "JPEG", quality=100, subsampling=0), "full.jpg": file(odd, "JPEG", quality=90, subsampling=0),
        "half.jpg": file(odd, "JPEG", quality=90, subsampling=1), "quarter.jpg": file(rgb, "JPEG", quality=75, subsampling=2),
        "odd_quarter.jpg": file(odd, "JPEG", quality=85, subsampling=2), "grey.jpg": file(grey, "JPEG", quality=80),
        "progressive.jpg": file(rgb, "JPEG", quality=85, progressive=True), "cmyk.jpg": file(rgb.convert("CMYK"), "JPEG", quality=95),
        "poor.jpg": file(rgb, "JPEG", quality=20), "lossless.webp": file(rgb, "WEBP", lossless=True),
        "alpha.webp": file(rgba, "WEBP", lossless=True, exact=True), "lossy.webp": file(rgb, "WEBP", quality=80),
        "lossy_alpha.webp": file(rgba, "WEBP", quality=80), "turned.webp": oriented(odd, "WEBP", 8, lossless=True),
    }  # fmt: skip
    for orientation in range(1, 9):
        found[f"orientation_{orientation}.jpg"] = oriented(odd, "JPEG", orientation, quality=95, subsampling=0)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=GOLDEN, help="folder to write to (default: %(default)s)")
    args = parser.parse_args()
    random.seed(0)
    processor = VaeImageProcessor()
    data = bytearray()

    def store(part: bytes) -> list[int]:
        data.extend(part)
        return [len(data) - len(part), len(part)]

    cases = []
    for number, (name, content) in enumerate(files().items()):
        loaded = load_image(Image.open(io.BytesIO(content)))
        # Every file in its own size, and in two others; masks are what the last one of them is.
        sizes = [loaded.size, SIZES[number % len(SIZES)], SIZES[(number * 5 + 2) % len(SIZES)]]
        results = []
        for width, height in sizes:
            resized = processor.resize(loaded, height=height, width=width)
            results.append({"size": [width, height], "kind": "picture", "pixels": store(resized.tobytes())})
        results.append({"size": list(resized.size), "kind": "mask", "pixels": store(resized.convert("L").tobytes())})
        cases.append({"name": name, "file": store(content), "results": results})
    (args.output / "images.bin").write_bytes(data)
    (args.output / "images.json").write_text(json.dumps({"pillow": PIL.__version__, "cases": cases}, indent=1) + "\n")
    print(f"{len(cases)} files, {len(data)} bytes")


if __name__ == "__main__":
    main()
