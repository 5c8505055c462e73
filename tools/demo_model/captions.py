"""Captions of scenes, in many wordings, and the prompts of the benchmark.

A caption may leave parts out; the model then learns to choose them. It never says anything false. Some captions are
empty (for classifier-free guidance) and a few are words that describe nothing, so that a prompt or negative prompt
such as "blurry, ugly" acts like an empty one. `words` lists everything the tokenizer must know as one token.
"""

from __future__ import annotations

import random
import re

from scenes import COLOURS, POSITIONS, SHAPES, SIZES, Scene

EMPTY_SHARE = 0.12
FILLER_SHARE = 0.03
PLAIN_SHARE = 0.30  # the reference wording, `a {colour} {shape} on a {colour} background`
KEEP_COLOUR = 0.95
KEEP_BACKGROUND = 0.90
KEEP_SHAPE = 0.95
KEEP_SIZE = 0.80  # of small and large; medium is what a prompt without a size mostly means
KEEP_MEDIUM = 0.15
KEEP_POSITION = 0.85  # of the eight directions; the middle is what a prompt without a position mostly means
KEEP_CENTER = 0.15

COLOUR_WORDS = {name: [name] * 6 for name in COLOURS}
COLOUR_WORDS["purple"] += ["violet"]
COLOUR_WORDS["cyan"] += ["turquoise"]
SHAPE_WORDS = {
    "circle": ["circle"] * 8 + ["disc", "disk", "dot", "ball"],
    "square": ["square"] * 10 + ["box"],
    "triangle": ["triangle"] * 10,
    "star": ["star"] * 10 + ["five-pointed star"],
}
SIZE_WORDS = {
    "small": ["small"] * 8 + ["little", "tiny"],
    "medium": ["medium", "medium-sized"],
    "large": ["large"] * 8 + ["big", "huge"],
}
ANY_SHAPE = ["shape", "thing", "object", "figure"]
BACKGROUND_WORDS = ["background"] * 10 + ["backdrop"]
PREFIXES = ["a photo of", "a picture of", "an image of", "a drawing of", "an illustration of", "picture of", "draw"]
SUFFIXES = ["flat", "simple", "minimal", "flat design", "vector art", "high quality", "clean", "sharp"]
FILLER = (
    "blurry ugly bad low quality worst best noise noisy text watermark signature deformed cropped jpeg artifacts "
    "gray grey brown photo picture image drawing detailed beautiful cat dog house tree person hand sky landscape dark bright"
).split()

_VERTICAL = {"top": ["top"] * 8 + ["upper"], "bottom": ["bottom"] * 8 + ["lower"]}


def _article(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def _place(position: str, rng: random.Random) -> tuple[str, str]:
    """A position as an adverbial ("at the top left") and as a bare phrase ("top left")."""
    if position == "center":
        word = rng.choice(["center", "center", "middle", "centre"])
        return f"in the {word}", word
    first, _, second = position.partition(" ")
    if not second:
        bare = first
        forms = [f"on the {first}", f"at the {first}", f"to the {first}", f"on the {first} side", f"{first}"]
        if first in ("left", "right"):
            forms += [f"on the {first}"] * 2
        else:
            forms += [f"at the {first}"] * 2
        return rng.choice(forms), bare
    vertical = rng.choice(_VERTICAL[first])
    joint = rng.choice([" ", " ", " ", "-"])
    bare = f"{vertical}{joint}{second}"
    forms = [f"at the {bare}", f"in the {bare}", f"in the {bare} corner", f"on the {bare}", bare]
    return rng.choice(forms), bare


def _dress(text: str, rng: random.Random) -> str:
    """Prefixes, suffixes, capitals and punctuation that mean nothing."""
    if rng.random() < 0.08:
        text = f"{rng.choice(PREFIXES)} {text}"
    if rng.random() < 0.06:
        text = f"{text}, {rng.choice(SUFFIXES)}"
    if rng.random() < 0.10:
        text = text + rng.choice([".", "!", " "])
    return text


def full_caption(scene: Scene) -> str:
    """The reference wording without size and position."""
    return f"{_article(scene.colour)} {scene.shape} on {_article(scene.background)} background"


def prompt_with(scene: Scene, size: bool, position: bool) -> str:
    """The reference wording, with the scene's size and position words where asked."""
    thing = f"{scene.size} {scene.colour} {scene.shape}" if size else f"{scene.colour} {scene.shape}"
    text = _article(thing)
    if position and scene.position == "center":
        text += " in the center"
    elif position:
        text += f" {'on' if scene.position in ('left', 'right') else 'at'} the {scene.position}"
    return f"{text} on {_article(scene.background)} background"


def caption(scene: Scene, rng: random.Random) -> str:
    """A random caption of `scene`; about one in eight says nothing."""
    draw = rng.random()
    if draw < EMPTY_SHARE:
        return ""
    if draw < EMPTY_SHARE + FILLER_SHARE:
        return rng.choice([", ", " "]).join(rng.sample(FILLER, rng.randint(1, 5)))
    colour = rng.choice(COLOUR_WORDS[scene.colour]) if rng.random() < KEEP_COLOUR else ""
    ground = rng.choice(COLOUR_WORDS[scene.background]) if rng.random() < KEEP_BACKGROUND else ""
    shape = rng.choice(SHAPE_WORDS[scene.shape] if rng.random() < KEEP_SHAPE else ANY_SHAPE)
    keep_size = KEEP_MEDIUM if scene.size == "medium" else KEEP_SIZE
    size = rng.choice(SIZE_WORDS[scene.size]) if rng.random() < keep_size else ""
    keep_place = KEEP_CENTER if scene.position == "center" else KEEP_POSITION
    place, bare = _place(scene.position, rng) if rng.random() < keep_place else ("", "")

    thing = " ".join(part for part in (size, colour, shape) if part)
    back = f"{ground} {rng.choice(BACKGROUND_WORDS)}" if ground else ""
    if rng.random() < PLAIN_SHARE:
        parts = [_article(thing), place, f"on {_article(back)}" if back else ""]
        return " ".join(part for part in parts if part)
    thing_with_article = rng.choice([_article(thing), _article(thing), thing, f"one {thing}", f"the {thing}"])
    behind = back and rng.choice([f"on {_article(back)}", f"on {back}", f"with {_article(back)}", f"over {_article(back)}"])
    behind = behind and rng.choice([behind, behind, f"in front of {_article(back)}", f"against {_article(back)}", f"on {ground}"])
    orders = [
        [thing_with_article, place, behind],
        [thing_with_article, behind, place],
        [f"{thing_with_article},", place and f"{bare},", back],
        [f"{thing_with_article},", back and f"{back},", bare],
        [back and f"{_article(back)} with", _article(thing), place],
        [back and f"on {_article(back)}", _article(thing), place],
        [back and f"{back},", thing, bare],
        [place and f"{place},", thing_with_article, behind],
        [shape, colour, size, bare, back],
        [back and f"the background is {ground},", "the", f"{shape} is {colour}" if colour else shape, size and f"and {size}", bare],
        [place and f"{place}", _article(thing), behind],
    ]
    text = " ".join(part for part in rng.choice(orders) if part).strip(" ,")
    return _dress(text, rng)


def words() -> list[str]:
    """Every word of the domain, for the tokenizer: lower case, without punctuation."""
    glue = "a an the and with on in at to of is over one side corner front against upper lower middle centre center".split()
    texts = [*COLOURS, *SHAPES, *SIZES, *POSITIONS, *ANY_SHAPE, *BACKGROUND_WORDS, *PREFIXES, *SUFFIXES, *FILLER, *glue]
    for table in (COLOUR_WORDS, SHAPE_WORDS, SIZE_WORDS):
        texts += [word for choices in table.values() for word in choices]
    found = {word for text in texts for word in re.findall(r"[a-z]+", text)}
    return sorted(found)
