"""Builds a CLIP byte-pair tokenizer that knows every word of the domain as one token.

The vocabulary has CLIP's layout: 256 byte symbols, the same with the end-of-word mark, one token per merge, and the
two special tokens last. Any text can be tokenized: words outside the domain fall apart into smaller pieces.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from transformers import CLIPTokenizer
from transformers.models.clip.tokenization_clip import bytes_to_unicode

END_OF_WORD = "</w>"
START, END = "<|startoftext|>", "<|endoftext|>"
MAX_TOKENS = 77


def learn_merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """Merges in rank order, learnt until every word is a single symbol (most frequent pair first, ties by text)."""
    pieces = [(*word[:-1], word[-1] + END_OF_WORD) for word in words]
    merges: list[tuple[str, str]] = []
    while True:
        pairs = Counter(pair for word in pieces for pair in zip(word, word[1:]))
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        pieces = [_merge(word, best) for word in pieces]


def _merge(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    out: list[str] = []
    for symbol in word:
        if out and (out[-1], symbol) == pair:
            out[-1] += symbol
        else:
            out.append(symbol)
    return tuple(out)


def save_tokenizer(words: Iterable[str], folder: Path) -> None:
    """Writes vocab.json, merges.txt, tokenizer_config.json and special_tokens_map.json to `folder`."""
    merges = learn_merges(words)
    symbols = list(bytes_to_unicode().values())
    tokens = symbols + [symbol + END_OF_WORD for symbol in symbols]
    tokens += ["".join(pair) for pair in merges] + [START, END]
    if len(set(tokens)) != len(tokens):
        raise ValueError("two merges make the same token")
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: number for number, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=MAX_TOKENS)
    tokenizer.save_pretrained(str(folder))


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """The saved tokenizer."""
    return CLIPTokenizer.from_pretrained(str(folder))
