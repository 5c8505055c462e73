"""Writes the golden values of the tokenizer's tests from transformers' CLIPTokenizer (and CLIPTokenizerFast).

A small CLIP vocabulary is learnt from a page of text and saved beside the values. Variants change what a model folder may
change: padding token, added tokens, order of merges, sides, a vocabulary with holes. Texts come from three sources: a list
of awkward ones, strings drawn by a generator that the test repeats (only digests are stored), and every character.

Needs transformers without ftfy, on Python 3.11 (Unicode 14.0).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
import unicodedata
from collections import Counter
from pathlib import Path

from tokenizer_texts import CORPUS, PIECES, RANGES, SWEEP, texts
from transformers import CLIPTokenizer, CLIPTokenizerFast
from transformers.models.clip.tokenization_clip import bytes_to_unicode

ROOT = Path(__file__).parents[2]
DEFAULT = ROOT / "services/preprocess/tests/golden"
START, END = "<|startoftext|>", "<|endoftext|>"
WINDOW = 77
MERGES = 1200
FUZZ = 2000
SEED = 2024
SWEEP_BLOCK = 1024
MASK = (1 << 64) - 1


def learn(corpus: str, count: int) -> list[tuple[str, str]]:
    """The `count` most frequent merges of a text's words, in rank order."""
    spell = bytes_to_unicode()
    words = Counter(corpus.lower().split())
    split = {w: [spell[b] for b in w.encode()] for w in words}
    for symbols in split.values():
        symbols[-1] += "</w>"
    merges: list[tuple[str, str]] = []
    while len(merges) < count:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, symbols in split.items():
            for pair in zip(symbols, symbols[1:]):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for symbols in split.values():
            at = 0
            while at + 1 < len(symbols):
                if (symbols[at], symbols[at + 1]) == best:
                    symbols[at : at + 2] = ["".join(best)]
                at += 1
    return merges


def added(content: str, **flags: bool) -> dict:
    token = {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    return token | {"special": False} | flags


def variants(size: int) -> dict[str, dict]:
    """Model folders: extra files, and what is done to vocab.json and merges.txt."""
    typed = {"__type": "AddedToken", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    mapped = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    bos, eos = {"content": START}, {"content": END}
    sd1 = {
        "add_prefix_space": False, "bos_token": typed | bos, "do_lower_case": True, "eos_token": typed | eos,
        "errors": "replace", "model_max_length": WINDOW, "pad_token": END, "tokenizer_class": "CLIPTokenizer",
        "unk_token": typed | eos,
    }  # fmt: skip
    special = {"bos_token": mapped | bos, "eos_token": mapped | eos, "pad_token": END, "unk_token": mapped | eos}
    modern = {
        "added_tokens_decoder": {
            "0": added("!", special=True),
            str(size - 2): added(START, special=True, normalized=True),
            str(size - 1): added(END, special=True, normalized=True),
        },
        "bos_token": START, "eos_token": END, "pad_token": "!", "unk_token": END, "model_max_length": WINDOW,
    }  # fmt: skip
    extra = modern | {
        "added_tokens_decoder": {
            str(size - 2): added(START, special=True),
            str(size - 1): added(END, special=True, rstrip=True),
            str(size): added("<style>", lstrip=True, rstrip=True),
            str(size + 1): added("<sty"),
            str(size + 2): added("cat", single_word=True),
            str(size + 3): added("<Cat> dog", special=True),
            str(size + 7): added("猫", single_word=True, lstrip=True),
        },
        "pad_token": END, "additional_special_tokens": ["<Cat> dog", "<new>"], "cls_token": "<cls>",
        "clean_up_tokenization_spaces": True, "model_max_length": 10**30, "do_lower_case": False,
    }  # fmt: skip
    return {
        "sd1": {"files": {"tokenizer_config.json": sd1, "special_tokens_map.json": special}},
        "sd2": {
            "files": {"tokenizer_config.json": sd1, "special_tokens_map.json": special | {"pad_token": "!"}},
        },
        "modern": {"files": {"tokenizer_config.json": modern}},
        "bare": {"files": {}},
        "extra": {"files": {"tokenizer_config.json": extra}, "drop": ["q", "q</w>", "Ń", "Ń</w>", "ð", "the</w>"]},
        "legacy": {
            "files": {
                "tokenizer_config.json": sd1,
                "special_tokens_map.json": special | {"additional_special_tokens": [added("<b>", rstrip=True)]},
                "added_tokens.json": {"<a>": size, "<b>": size + 1, "red": size + 2},
            },
        },
        "both": {
            "files": {
                "tokenizer_config.json": sd1,
                "special_tokens_map.json": special,
                "added_tokens.json": {"<a>": size, "red": size + 1},
            },
            "both": True,
        },
        "reversed": {"files": {"tokenizer_config.json": sd1}, "reverse": True},
        "sides": {
            "files": {
                "tokenizer_config.json": sd1
                | {"padding_side": "left", "truncation_side": "left", "model_max_length": 16}
            },
        },
        "whole": {"files": {"tokenizer_config.json": sd1 | {"split_special_tokens": True, "pad_token": "!"}}},
        "fast": {"files": {"tokenizer_config.json": modern}, "fast": True},
        "demo": {"model": "models/demo"},
    }


def load(variant: dict, golden: Path, folder: Path):
    """Makes a variant's folder as the test does, and loads it."""
    if "model" in variant:
        return CLIPTokenizer.from_pretrained(str(ROOT / variant["model"] / "tokenizer"))
    for name, content in variant["files"].items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False))
    if variant.get("fast") or variant.get("both"):
        (folder / "tokenizer.json").write_text((golden / "tokenizer.json").read_text())
    if variant.get("fast"):
        return CLIPTokenizerFast.from_pretrained(str(folder))
    vocabulary = json.loads((golden / "vocab.json").read_text())
    dropped = {token: id for token, id in vocabulary.items() if token not in variant.get("drop", [])}
    (folder / "vocab.json").write_text(json.dumps(dropped, ensure_ascii=False))
    lines = (golden / "merges.txt").read_text().splitlines()
    if variant.get("reverse"):
        lines[1:] = reversed(lines[1:])
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    return CLIPTokenizer.from_pretrained(str(folder))


def tokenize(tokenizer, text: str) -> tuple[list[int], int, str]:
    """Window, how many tokens were cut off, and those as text, as diffusers calls the tokenizer."""
    window = tokenizer.model_max_length if tokenizer.model_max_length <= 1e20 else WINDOW
    ids = tokenizer(text, padding="max_length", max_length=window, truncation=True).input_ids
    full = tokenizer(text, padding="longest").input_ids
    over = max(len(full) - window, 0)
    if not over:
        return ids, 0, ""
    cut = full[1 : 1 + over] if tokenizer.truncation_side == "left" else full[window - 1 : -1]
    return ids, over, tokenizer.batch_decode([cut])[0]


def digest(data: bytes) -> str:
    """FNV-1a, 64 bits, of which 32 are kept."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & MASK
    return f"{value >> 32:08x}"


def pack(ids: list[int]) -> bytes:
    return b"".join(id.to_bytes(4, "little") for id in ids)


def digest_of(tokenized: tuple[list[int], int, str]) -> str:
    ids, over, text = tokenized
    return digest(pack([*ids, over]) + text.encode())


def draw(seed: int, count: int) -> list[str]:
    """Random strings from splitmix64; the test draws the same."""
    state = seed

    def below(bound: int) -> int:
        nonlocal state
        state = (state + 0x9E3779B97F4A7C15) & MASK
        mixed = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & MASK
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & MASK
        return (mixed ^ mixed >> 31) % bound

    drawn = []
    for _ in range(count):
        text = ""
        for _ in range(below(32)):
            if below(8) < 4:
                text += PIECES[below(len(PIECES))]
            else:
                first, last = RANGES[below(len(RANGES))]
                text += chr(first + below(last - first + 1))
        drawn.append(text)
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=DEFAULT, help="folder to write to (default: %(default)s)")
    parser.add_argument("--fuzz", type=int, default=FUZZ, help="random strings per variant (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="of the random strings (default: %(default)s)")
    args = parser.parse_args()
    if importlib.util.find_spec("ftfy"):
        parser.error("ftfy is installed: CLIPTokenizer would clean texts with it")
    args.output.mkdir(parents=True, exist_ok=True)

    symbols = list(bytes_to_unicode().values())
    merges = learn(CORPUS, MERGES)
    tokens = [*symbols, *(symbol + "</w>" for symbol in symbols), *dict.fromkeys(map("".join, merges)), START, END]
    vocabulary = {token: id for id, token in enumerate(tokens)}
    (args.output / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    (args.output / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    CLIPTokenizerFast(str(args.output / "vocab.json"), str(args.output / "merges.txt"))._tokenizer.save(
        str(args.output / "tokenizer.json"), pretty=False
    )

    listed, drawn = texts(), draw(args.seed, args.fuzz)
    golden: dict = {
        "unicode": unicodedata.unidata_version, "texts": listed, "seed": args.seed, "pieces": PIECES, "ranges": RANGES,
        "sweep": {"ranges": SWEEP, "block": SWEEP_BLOCK, "digests": []}, "variants": {},
    }  # fmt: skip
    for name, variant in variants(len(vocabulary)).items():
        with tempfile.TemporaryDirectory() as folder:
            tokenizer = load(variant, args.output, Path(folder))
        results = [tokenize(tokenizer, text * times) for text, times in listed]
        values = {"digests": "".join(map(digest_of, results))}
        values["fuzz"] = "".join(digest_of(tokenize(tokenizer, text)) for text in drawn)
        if name == "sd1":
            # In full once, so that a difference can be read.
            end = tokenizer.eos_token_id
            values["ids"] = [
                ids if END in text else ids[: ids.index(end) + 1] for (text, _), (ids, _, _) in zip(listed, results)
            ]
            for first, last in SWEEP:
                for block in range(first, last + 1, SWEEP_BLOCK):
                    ids: list[int] = []
                    for point in range(block, min(block + SWEEP_BLOCK, last + 1)):
                        char = chr(point)
                        if not 0xD800 <= point < 0xE000:
                            ids += tokenizer(f"x{char}\u03a3 {char}'s{char}7").input_ids
                    golden["sweep"]["digests"].append(digest(pack(ids)))
        golden["variants"][name] = variant | values
        print(f"{name}: {len(listed)} texts, {len(drawn)} random ones")
    (args.output / "cases.json").write_text(json.dumps(golden, ensure_ascii=True, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
