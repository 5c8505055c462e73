"""Draws scenes as tensors: anti-aliased flat shapes by signed distance functions, vectorised over a batch.

Values are RGB in [-1, 1], the range of a diffusers autoencoder. Distances are in pixels and negative inside;
coverage is `clamp(0.5 - distance, 0, 1)`, a one-pixel ramp on the edge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from scenes import COLOURS, PICTURE_SIZE, SHAPES, Scene

SHAPE_NAMES = list(SHAPES)
STAR_INNER = 0.45  # inner radius of the star as a share of the outer one
STAR_OUTER = 1.2
STAR_POINTS = 5


def _circle(x: torch.Tensor, y: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    return torch.hypot(x, y) - r


def _square(x: torch.Tensor, y: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    return torch.maximum(x.abs(), y.abs()) - 0.9 * r


def _triangle(x: torch.Tensor, y: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    # Equilateral, side 2.2 r, point up; (x, y) is relative to the middle of its bounding box.
    half_height = 1.1 * math.sqrt(3) / 2 * r
    sides = (math.sqrt(3) * x.abs() - (y + half_height)) * 0.5
    return torch.maximum(sides, y - half_height)


def _star(x: torch.Tensor, y: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    # The bounding box of a five-pointed star is not centred on its circle: its top is at -R, its feet at
    # R cos 36 degrees, so the middle of the box is 0.0955 R above the centre.
    outer = STAR_OUTER * r
    y = y - outer * (1 - math.cos(math.pi / STAR_POINTS)) / 2
    angle = torch.atan2(x, -y)
    sector = 2 * math.pi / STAR_POINTS
    folded = (angle - sector * torch.round(angle / sector)).abs()
    length = torch.hypot(x, y)
    px, py = length * torch.cos(folded), length * torch.sin(folded)
    # One edge from the tip (R, 0) to the notch (inner R at 36 degrees); outside is to its left.
    nx, ny = STAR_INNER * math.cos(math.pi / STAR_POINTS), STAR_INNER * math.sin(math.pi / STAR_POINTS)
    ex, ey = nx - 1.0, ny
    norm = math.hypot(ex, ey)
    return ((px - outer) * ey - py * ex) / norm


_DISTANCES = {"circle": _circle, "square": _square, "triangle": _triangle, "star": _star}


def coverage(
    shape: str, x: torch.Tensor, y: torch.Tensor, radius: torch.Tensor, size: int = PICTURE_SIZE
) -> torch.Tensor:
    """Coverage [n, size, size] of shapes of one kind; `x`, `y`, `radius` are [n] in 128-pixel units.

    `size` renders the same scene at another resolution with equally sharp (one pixel) edges.
    """
    scale = size / PICTURE_SIZE
    grid = torch.arange(size, dtype=torch.float32) + 0.5
    px = grid[None, None, :] - x[:, None, None] * scale
    py = grid[None, :, None] - y[:, None, None] * scale
    px, py = torch.broadcast_tensors(px, py)
    return (0.5 - _DISTANCES[shape](px, py, radius[:, None, None] * scale)).clamp(0, 1)


def colour_tensor(names: Sequence[str]) -> torch.Tensor:
    """RGB [n, 3] in [-1, 1] of named colours."""
    return torch.tensor([COLOURS[name] for name in names], dtype=torch.float32) / 127.5 - 1


def render(scenes: Sequence[Scene], size: int = PICTURE_SIZE) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures [n, 3, size, size] in [-1, 1] and the coverage masks [n, 1, size, size]."""
    mask = torch.empty(len(scenes), size, size)
    for shape in SHAPE_NAMES:
        rows = [i for i, scene in enumerate(scenes) if scene.shape == shape]
        if rows:
            values = torch.tensor([[scenes[i].x, scenes[i].y, scenes[i].radius] for i in rows])
            mask[rows] = coverage(shape, values[:, 0], values[:, 1], values[:, 2], size)
    mask = mask[:, None]
    front = colour_tensor([scene.colour for scene in scenes])[:, :, None, None]
    back = colour_tensor([scene.background for scene in scenes])[:, :, None, None]
    return back + (front - back) * mask, mask


def to_bytes(pictures: torch.Tensor) -> torch.Tensor:
    """[-1, 1] float pictures [n, 3, h, w] as 8-bit pixels [n, h, w, 3]."""
    return ((pictures.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)
