"""The domain of the demo model: what a picture can show, and how scenes are drawn at random.

A scene is one flat shape on a flat background: colours, shape, size and position. Everything else (pixels,
captions, scoring) is derived from a `Scene`, so this file is the single place that defines the words.
It renders nothing and writes no captions (`render.py`, `captions.py`).

Invariants: every shape lies wholly inside the picture, and shape and background colour always differ.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

PICTURE_SIZE = 128  # pixels per side; the autoencoder divides by 8, so the latents are 16 x 16

# sRGB, 8 bits. The smallest distance between two of them is about 100 levels, so a picture can be
# scored by the nearest colour without ambiguity.
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 25, 30),
    "green": (30, 160, 55),
    "blue": (30, 65, 225),
    "yellow": (252, 225, 40),
    "orange": (250, 130, 10),
    "purple": (130, 35, 185),
    "pink": (255, 135, 195),
    "cyan": (45, 215, 230),
    "white": (250, 250, 250),
    "black": (12, 12, 12),
}

# Extents of a shape of radius 1 around its centre: (half width, half height). The factors give the four
# shapes about the same visual weight at the same radius.
SHAPES: dict[str, tuple[float, float]] = {
    "circle": (1.0, 1.0),
    "square": (0.9, 0.9),
    "triangle": (1.1, 0.9526),
    "star": (1.141, 1.0854),
}

# Radius in pixels of a 128-pixel picture. One value per word: what is left to learn is which shape, not how many.
SIZES: dict[str, float] = {"small": 20.0, "medium": 30.0, "large": 40.0}
SIZE_SHARES = {"small": 0.25, "medium": 0.45, "large": 0.30}

# Direction of each position word: (x, y), y downwards.
POSITIONS: dict[str, tuple[int, int]] = {
    "center": (0, 0),
    "left": (-1, 0),
    "right": (1, 0),
    "top": (0, -1),
    "bottom": (0, 1),
    "top left": (-1, -1),
    "top right": (1, -1),
    "bottom left": (-1, 1),
    "bottom right": (1, 1),
}
CENTER_SHARE = 0.5  # the other half is spread evenly over the eight directions

EDGE_MARGIN = 3.0  # pixels left free between a shape and the picture's edge
# Shapes move in whole cells of the latent grid, and a position word names one place for each size. A shape then has
# the same latents wherever it stands, which a network of convolutions learns many times faster than edges at every
# fraction of a cell.
GRID = 8


@dataclass(frozen=True)
class Scene:
    """One picture's content. `x`, `y` (centre of the bounding box) and `radius` are in pixels."""

    shape: str
    colour: str
    background: str
    size: str
    position: str
    x: float
    y: float
    radius: float


def _coordinate(direction: int, reach: float) -> float:
    """The middle of the picture, or as many whole cells from it as `reach` pixels allow."""
    return PICTURE_SIZE / 2 + direction * (reach // GRID) * GRID


def random_scene(rng: random.Random) -> Scene:
    """Draws one scene from the distribution that the model is trained on."""
    shape = rng.choice(list(SHAPES))
    colour, background = rng.sample(list(COLOURS), 2)
    size = rng.choices(list(SIZE_SHARES), weights=list(SIZE_SHARES.values()))[0]
    radius = SIZES[size]
    if rng.random() < CENTER_SHARE:
        position = "center"
    else:
        position = rng.choice([name for name in POSITIONS if name != "center"])
    half_width, half_height = (extent * radius for extent in SHAPES[shape])
    dx, dy = POSITIONS[position]
    return Scene(
        shape=shape,
        colour=colour,
        background=background,
        size=size,
        position=position,
        x=_coordinate(dx, PICTURE_SIZE / 2 - EDGE_MARGIN - half_width),
        y=_coordinate(dy, PICTURE_SIZE / 2 - EDGE_MARGIN - half_height),
        radius=radius,
    )
