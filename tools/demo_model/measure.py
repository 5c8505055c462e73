"""Says what a picture shows by measuring its pixels: colours, shape, size and position. It knows no prompt.

The background is the median colour of the picture's border. The object is the largest connected region that differs
from it; every pixel's share of the object's colour gives a soft mask, which is compared with the four shapes as
they are rendered for training, fitted to its bounding box, by intersection over union. What fits no colour or no
shape well enough is called "none", so blots do not count as whatever they resemble most.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from render import SHAPE_NAMES, coverage
from scenes import COLOURS, PICTURE_SIZE, POSITIONS, SHAPES, SIZES

BORDER = 2  # pixels
COLOUR_REACH = 60.0  # largest distance in 8-bit RGB at which a colour still has a name
OBJECT_CONTRAST = 35.0  # least distance from the background of a pixel that belongs to an object
LEAST_AREA = 60  # pixels of an object, at 128 x 128; far below the smallest star of scenes.py
LEAST_OVERLAP = 0.75  # of the best shape
POSITION_STEP = 4.0  # pixels off the middle from which a direction counts: half a cell of the grid of scenes.py
FIT_SCALES = (0.94, 0.97, 1.0, 1.03, 1.06)  # around the radius that the bounding box suggests
FIT_SHIFTS = (-1.0, 0.0, 1.0)  # pixels, per axis

_NAMES = list(COLOURS)
_PALETTE = np.array([COLOURS[name] for name in _NAMES], dtype=np.float32)
_LIMITS = [(SIZES["small"] + SIZES["medium"]) / 2, (SIZES["medium"] + SIZES["large"]) / 2]
_NO_OBJECT = "none"


@dataclass(frozen=True)
class Measured:
    """What a picture shows. `overlap` is the best shape's intersection over union; `radius` in 128-pixel units."""

    background: str
    colour: str
    shape: str
    size: str
    position: str
    overlap: float
    radius: float


def name_colour(value: np.ndarray) -> str:
    """The nearest colour's name, or "none" when even that one is far away."""
    distances = np.linalg.norm(_PALETTE - value, axis=1)
    nearest = int(distances.argmin())
    return _NAMES[nearest] if distances[nearest] <= COLOUR_REACH else _NO_OBJECT


def _fit(mask: np.ndarray) -> tuple[str, float, float]:
    """Best shape of a soft mask with its overlap and radius in pixels of the mask."""
    rows, columns = np.where(mask > 0.5)
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    x, y = (left + right) / 2, (top + bottom) / 2
    size = mask.shape[0]
    unit = PICTURE_SIZE / size
    target = torch.from_numpy(mask)
    best = (_NO_OBJECT, 0.0, 0.0)
    for shape in SHAPE_NAMES:
        half_width, half_height = SHAPES[shape]
        guess = ((right - left) / half_width + (bottom - top) / half_height) / 4
        tries = [(x + dx, y + dy, guess * s) for dx in FIT_SHIFTS for dy in FIT_SHIFTS for s in FIT_SCALES]
        values = torch.tensor(tries, dtype=torch.float32) * unit
        drawn = coverage(shape, values[:, 0], values[:, 1], values[:, 2], size)
        overlap = torch.minimum(drawn, target).sum(dim=(1, 2)) / torch.maximum(drawn, target).sum(dim=(1, 2))
        index = int(overlap.argmax())
        if float(overlap[index]) > best[1]:
            best = (shape, float(overlap[index]), tries[index][2])
    return best


def measure(pixels: np.ndarray) -> Measured:
    """Measures a square picture, uint8 [n, n, 3]."""
    size = pixels.shape[0]
    if pixels.shape != (size, size, 3):
        raise ValueError(f"expected a square RGB picture, got shape {pixels.shape}")
    unit = PICTURE_SIZE / size
    values = pixels.astype(np.float32)
    inner = np.ones((size, size), dtype=bool)
    inner[BORDER:-BORDER, BORDER:-BORDER] = False
    back = np.median(values[inner], axis=0)
    background = name_colour(back)
    nothing = Measured(background, _NO_OBJECT, _NO_OBJECT, _NO_OBJECT, _NO_OBJECT, 0.0, 0.0)
    regions, count = ndimage.label(np.linalg.norm(values - back, axis=2) > OBJECT_CONTRAST)
    if count == 0:
        return nothing
    areas = ndimage.sum_labels(np.ones_like(regions), regions, range(1, count + 1))
    if areas.max() * unit * unit < LEAST_AREA:
        return nothing
    region = regions == 1 + int(areas.argmax())
    # Edge pixels are mixtures, so the colour is taken from the inside of the object.
    core = ndimage.binary_erosion(region, iterations=2)
    front = np.median(values[core if core.sum() >= 9 else region], axis=0)
    along = front - back
    if np.linalg.norm(along) < OBJECT_CONTRAST:
        return nothing
    mask = np.clip(((values - back) @ along) / float(along @ along), 0, 1)
    mask *= ndimage.binary_dilation(region, iterations=2)
    if not (mask > 0.5).any():
        return nothing
    shape, overlap, radius = _fit(mask)
    rows, columns = np.where(mask > 0.5)
    offsets = ((columns.min() + columns.max() + 1 - size) / 2 * unit, (rows.min() + rows.max() + 1 - size) / 2 * unit)
    direction = tuple(0 if abs(offset) <= POSITION_STEP else (1 if offset > 0 else -1) for offset in offsets)
    position = next(name for name, value in POSITIONS.items() if value == direction)
    radius *= unit
    return Measured(
        background=background,
        colour=name_colour(front),
        shape=shape if overlap >= LEAST_OVERLAP else _NO_OBJECT,
        size=list(SIZES)[int(np.searchsorted(_LIMITS, radius))],
        position=position,
        overlap=overlap,
        radius=radius,
    )
