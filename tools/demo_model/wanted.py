"""Reads what a prompt of the domain asks for, so that a picture can be judged by its prompt alone.

It understands the wordings of `captions.py`; what a prompt does not say is None and is not scored.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from captions import BACKGROUND_WORDS, COLOUR_WORDS, SHAPE_WORDS, SIZE_WORDS


def _inverse(table: dict[str, list[str]]) -> dict[str, str]:
    return {word: name for name, choices in table.items() for word in choices}


_COLOURS, _SHAPES, _SIZES = (_inverse(table) for table in (COLOUR_WORDS, SHAPE_WORDS, SIZE_WORDS))
_VERTICAL = {"top": "top", "upper": "top", "bottom": "bottom", "lower": "bottom"}
_MIDDLE = {"center", "centre", "middle"}


@dataclass(frozen=True)
class Wanted:
    """What a prompt asks for; None where it says nothing."""

    background: str | None
    colour: str | None
    shape: str | None
    size: str | None
    position: str | None


def wanted(prompt: str) -> Wanted:
    """Parses a prompt."""
    words = re.findall(r"[a-z]+", prompt.lower().replace("medium-sized", "medium"))
    background: int | None = None
    for index, word in enumerate(words):
        if word in BACKGROUND_WORDS and index and words[index - 1] in _COLOURS:
            background = index - 1
        elif word in BACKGROUND_WORDS and words[index + 1 : index + 2] == ["is"]:
            background = index + 2
    if background is None:
        plain = [i for i, word in enumerate(words) if word in _COLOURS and i and words[i - 1] == "on"]
        background = plain[-1] if plain else None
    fronts = [word for index, word in enumerate(words) if word in _COLOURS and index != background]
    vertical = next((_VERTICAL[word] for word in words if word in _VERTICAL), "")
    sideways = next((word for word in words if word in ("left", "right")), "")
    position = " ".join(part for part in (vertical, sideways) if part)
    if not position and _MIDDLE & set(words):
        position = "center"
    return Wanted(
        background=None if background is None else _COLOURS.get(words[background]),
        colour=_COLOURS[fronts[0]] if fronts else None,
        shape=next((_SHAPES[word] for word in words if word in _SHAPES), None),
        size=next((_SIZES[word] for word in words if word in _SIZES), None),
        position=position or None,
    )
