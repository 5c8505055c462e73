"""Writes the golden values of the prompt syntaxes' tests: services/preprocess/tests/golden/prompts.json.

compel's are what the package itself makes of a text (`DownweightMode.REMOVE`, `truncate_long_prompts=False`): parts, windows and
shares, recorded on their way to a text encoder that is not there. AUTOMATIC1111's web UI is no package, so its grammar is written here
once more from its documentation, another way than the service has it: brackets by recursive descent, weights by one
regular expression. The examples of the web UI's own doctests are checked on the way.

Run: python prompts.py (needs torch, transformers without ftfy, compel 2.3; the tokenizer files of tokenizer.py).
"""

from __future__ import annotations

import argparse
import json
import re
import struct
import tempfile
from pathlib import Path

import torch
from compel.embeddings_provider import DownweightMode, EmbeddingsProvider, SplitLongTextMode
from compel.prompt_parser import PromptParser
from prompts_texts import A1111, A1111_PIECES, COMPEL, COMPEL_PIECES, DOCTESTS, LONG
from tokenizer import draw, load, variants
from tokenizer import digest as fnv

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "services/preprocess/tests/golden"
STEPS = 10
ROOM = 75
COMMA_TOKENS = 20
RANDOM = 500
SEED = 77
MODELS = ["sd1", "sd2"]


# AUTOMATIC1111: prompt editing.
# Grammar, as its documentation and lark rules give it: a text is prompts and stray brackets or colons; a prompt is a row of
# plain pieces, (prompt), (prompt:prompt), [prompt], [prompt:number], [prompt:prompt:number] and [prompt|prompt|...].


class Failed(Exception):
    """The text as a whole has no such form."""


NUMBER = re.compile(r"\s*([+-]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?)\s*\]", re.ASCII)


class Editing:
    def __init__(self, text: str):
        self.text = text
        self.known: dict[int, tuple | None] = {}

    def whole(self) -> list:
        nodes, at = [], 0
        while at < len(self.text):
            found = self.bracket(at) if self.text[at] in "([" else None
            if found:
                nodes.append(found[0])
                at = found[1]
            elif self.text[at] in "()[]:":
                nodes.append(self.text[at])
                at += 1
            else:
                piece = self.plain(at)
                if piece is None:
                    raise Failed
                nodes.append(piece)
                at += len(piece)
        return nodes

    def plain(self, at: int) -> str | None:
        match = re.compile(r"(?:[^\\\[\]():|]|\\.)+").match(self.text, at)
        return match and match[0]

    def prompt(self, at: int) -> tuple[list, int]:
        nodes = []
        while at < len(self.text):
            if self.text[at] in "([":
                found = self.bracket(at)
                if not found:
                    break
                nodes.append(found[0])
                at = found[1]
            else:
                piece = self.plain(at)
                if piece is None:
                    break
                nodes.append(piece)
                at += len(piece)
        return nodes, at

    def bracket(self, at: int):
        if at not in self.known:
            self.known[at] = self.round(at) if self.text[at] == "(" else self.square(at)
        return self.known[at]

    def sign(self, at: int) -> str:
        return self.text[at : at + 1]

    def round(self, at: int):
        inner, end = self.prompt(at + 1)
        nodes = ["(", *inner]
        if self.sign(end) == ":":
            inner, end = self.prompt(end + 1)
            nodes += [":", *inner]
        return (("kept", [*nodes, ")"]), end + 1) if self.sign(end) == ")" else None

    def square(self, at: int):
        first, end = self.prompt(at + 1)
        if self.sign(end) == "]":
            return ("kept", ["[", *first, "]"]), end + 1
        if self.sign(end) == "|":
            choices = [first]
            while self.sign(end) == "|":
                choice, end = self.prompt(end + 1)
                choices.append(choice)
            return (("alternate", choices), end + 1) if self.sign(end) == "]" else None
        if self.sign(end) == ":":
            second, third = self.prompt(end + 1)
            if self.sign(third) == ":" and (number := NUMBER.match(self.text, third + 1)):
                return ("scheduled", first, second, number[1]), number.end()
            if number := NUMBER.match(self.text, end + 1):
                return ("scheduled", [], first, number[1]), number.end()
        return None


def last_step(when: str, steps: int) -> int:
    return min(steps, int(float(when) * steps if "." in when else float(when)))


def schedule(text: str, steps: int) -> list[tuple[int, str]]:
    """The last step of every span, and its text."""
    try:
        tree = Editing(text).whole()
    except Failed:
        return [(steps, text)]
    ends = {steps}

    def collect(nodes) -> None:
        for node in nodes:
            if node[0] == "kept":
                collect(node[1])
            elif node[0] == "alternate":
                ends.update(range(1, steps + 1))
                for choice in node[1]:
                    collect(choice)
            elif node[0] == "scheduled":
                ends.add(last_step(node[3], steps))
                collect(node[1])
                collect(node[2])

    def at(nodes, step: int) -> str:
        out = ""
        for node in nodes:
            if isinstance(node, str):
                out += node
            elif node[0] == "kept":
                out += at(node[1], step)
            elif node[0] == "alternate":
                out += at(node[1][(step - 1) % len(node[1])], step)
            else:
                out += at(node[1] if step <= last_step(node[3], steps) else node[2], step)
        return out

    collect([node for node in tree if isinstance(node, tuple)])
    return [(end, at(tree, end)) for end in sorted(ends) if end > 0]


# AUTOMATIC1111: weights.

TOKENS = re.compile(
    r"(?P<escape>\\[()\[\]\\]?)|(?P<open>[(\[])|(?P<weight>:\s*(?P<number>[+-]?[.\d]+)\s*\))|(?P<close>[)\]])"
    r"|(?P<text>[^\\()\[\]:]+|:)"
)  # fmt: skip


def attention(text: str) -> list[tuple[str, float]] | None:
    """Parts and weights; none where a weight is no number."""
    parts: list[list] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}
    factor = {"(": 1.1, "[": 1 / 1.1}

    def words(text: str) -> None:
        pieces = re.split(r"\s*\bBREAK\b\s*", text)
        for piece in pieces[:-1]:
            parts.extend([[piece, 1.0], ["BREAK", -1]])
        parts.append([pieces[-1], 1.0])

    def scale(bracket: str, by: float) -> None:
        for part in parts[opened[bracket].pop() :]:
            part[1] *= by

    for token in TOKENS.finditer(text):
        kind, seen = token.lastgroup, token[0]
        if token["escape"]:
            parts.append([seen[1:], 1.0])
        elif token["open"]:
            opened[seen].append(len(parts))
        elif token["weight"] and opened["("]:
            try:
                scale("(", float(token["number"]))
            except ValueError:
                return None
        elif token["close"] and opened[")(][".partition(seen)[2][0]]:
            bracket = ")(][".partition(seen)[2][0]
            scale(bracket, factor[bracket])
        else:
            assert kind
            words(seen)
    for bracket in "([":
        # The outermost first, as factors are rounded one by one.
        for start in opened[bracket]:
            for part in parts[start:]:
                part[1] *= factor[bracket]
    merged: list[tuple[str, float]] = []
    for text, weight in parts:
        if merged and merged[-1][1] == weight:
            merged[-1] = (merged[-1][0] + text, weight)
        else:
            merged.append((text, weight))
    return merged


# AUTOMATIC1111: windows.


def fill(tokenizer, parts: list[tuple[str, float]]) -> list[tuple[list[int], list[float]]]:
    """Windows of 77 with their weights: commas within the last 20 tokens take what follows them along."""
    comma = tokenizer.convert_tokens_to_ids(",</w>")
    windows: list[list[tuple[int, float]]] = [[]]
    last = None
    for text, weight in parts:
        if text == "BREAK" and weight == -1:
            windows.append([])
            last = None
            continue
        for token in tokenizer(text, add_special_tokens=False).input_ids:
            window = windows[-1]
            if token != comma and len(window) == ROOM and last is not None and ROOM - last <= COMMA_TOKENS:
                windows[-1:] = [window[: last + 1], window[last + 1 :]]
                last = None
            elif token == comma:
                last = len(window)
            if len(windows[-1]) == ROOM:
                windows.append([])
                last = None
            windows[-1].append((token, weight))
    if not windows[-1] and len(windows) > 1:
        windows.pop()
    return [frame(tokenizer, window, tokenizer.eos_token_id) for window in windows]


def frame(tokenizer, window: list[tuple[int, float]], filler: int) -> tuple[list[int], list[float]]:
    ids = [tokenizer.bos_token_id, *(id for id, _ in window), tokenizer.eos_token_id]
    weights = [1.0, *(weight for _, weight in window), 1.0]
    ids += [filler] * (ROOM + 2 - len(ids))
    weights += [1.0] * (ROOM + 2 - len(weights))
    if tokenizer.pad_token_id != tokenizer.eos_token_id:
        end = ids.index(tokenizer.eos_token_id)
        ids[end + 1 :] = [tokenizer.pad_token_id] * (ROOM + 1 - end)
    return ids, weights


def a1111(tokenizer, text: str, steps: int) -> list | None:
    """Spans of windows."""
    spans = []
    for end, seen in schedule(text, steps):
        parts = attention(seen)
        if parts is None:
            return None
        spans.append((end, seen, fill(tokenizer, parts)))
    return spans


# compel.


class Recorder(EmbeddingsProvider):
    """compel's own code, up to the text encoder."""

    class Encoder:
        device = torch.device("cpu")
        dtype = torch.float32

    def __init__(self, tokenizer):
        super().__init__(
            tokenizer, self.Encoder(), truncate=False, downweight_mode=DownweightMode.REMOVE,
            split_long_text_mode=SplitLongTextMode.SENTENCES,
        )  # fmt: skip
        self.seen: list[tuple[list[int], list[float]]] = []

    def build_weighted_embedding_tensor(self, token_ids, per_token_weights, attention_mask=None, device=None):
        self.seen.append((token_ids.tolist(), per_token_weights.tolist()))
        # As many for every variant: the package cannot mix texts with different numbers of windows.
        return torch.zeros(1, 1, 1)


SHARES: list[list[float]] = []


def shares(_class, embeddings, per_embedding_weights, normalize):
    SHARES.append(list(per_embedding_weights))
    return torch.zeros(1, 1, 1)


def compel(recorder: Recorder, parts: list[tuple[str, float]]) -> list:
    """Variants: share, and windows with weights."""
    recorder.seen.clear()
    SHARES.clear()
    recorder.get_embeddings_for_weighted_prompt_fragments(
        [[text for text, _ in parts]], [[weight for _, weight in parts]], should_return_tokens=True
    )
    length = ROOM + 2
    variants = []
    for share, (ids, weights) in zip(SHARES[0], recorder.seen, strict=True):
        starts = range(0, len(ids), length)
        variants.append((share, [(ids[at : at + length], weights[at : at + length]) for at in starts]))
    return variants


def fragments(parser: PromptParser, text: str) -> list[tuple[str, float]]:
    prompts = parser.parse_conjunction(text).prompts
    if not prompts:
        # The package fails at brackets with nothing in them; the service takes them as empty text.
        return [("", 1.0)]
    [prompt] = prompts
    return [(part.text, part.weight) for part in prompt.children]


# Output.


def pack(windows: list[tuple[list[int], list[float]]]) -> bytes:
    out = b""
    for ids, weights in windows:
        out += b"".join(struct.pack("<I", id) for id in ids) + b"".join(struct.pack("<f", w) for w in weights)
    return out


def pick(pieces: list[str], seed: int, count: int) -> list[str]:
    """Random rows of pieces."""
    state = seed

    def below(bound: int) -> int:
        nonlocal state
        state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        return (state >> 33) % bound

    return ["".join(pieces[below(len(pieces))] for _ in range(1 + below(14))) for _ in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=GOLDEN / "prompts.json", help="default: %(default)s")
    args = parser.parse_args()
    torch.set_num_threads(1)

    for text, expected in DOCTESTS["schedule"]:
        assert [list(span) for span in schedule(text, STEPS)] == expected, (text, schedule(text, STEPS))
    for text, expected in DOCTESTS["attention"]:
        assert [list(part) for part in attention(text) or []] == expected, (text, attention(text))

    EmbeddingsProvider.apply_embedding_weights = classmethod(shares)
    written = [*A1111, *(text for text, _ in DOCTESTS["schedule"]), *(text for text, _ in DOCTESTS["attention"])]
    texts = {"a1111": written + pick(A1111_PIECES, SEED, RANDOM), "compel": COMPEL + pick(COMPEL_PIECES, SEED, RANDOM)}
    golden: dict = {"steps": STEPS, "models": {}, "a1111": [], "compel": []}
    # The form without `pad_token` differences comes first and has everything; the others only windows.
    for text in texts["a1111"]:
        spans = schedule(text, STEPS)
        golden["a1111"].append({"text": text, "spans": [[end, seen, attention(seen)] for end, seen in spans]})
    grammar = PromptParser()
    for text in texts["compel"]:
        golden["compel"].append({"text": text, "parts": fragments(grammar, text)})

    vocabulary = json.loads((GOLDEN / "vocab.json").read_text())
    for name in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            tokenizer = load(variants(len(vocabulary))[name], GOLDEN, Path(folder))
        recorder = Recorder(tokenizer)
        values: dict = {"a1111": [], "compel": []}
        for text in [*texts["a1111"], *LONG]:
            spans = a1111(tokenizer, text, STEPS)
            values["a1111"].append(spans and [[end, len(w), fnv(pack(w))] for end, _, w in spans])
        for text in [*texts["compel"], *LONG]:
            variants_ = compel(recorder, fragments(grammar, text))
            values["compel"].append([[share, len(w), fnv(pack(w))] for share, w in variants_])
        golden["models"][name] = values
    golden["long"] = LONG
    args.output.write_text(json.dumps(golden, ensure_ascii=True, separators=(",", ":")) + "\n")
    print(f"{len(texts['a1111'])} and {len(texts['compel'])} texts, {len(LONG)} long ones, {args.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
