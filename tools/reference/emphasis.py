#!/usr/bin/env python3
"""Golden values for prompt weights and the guidance scale's embedding in crates/diffusion.

`mean` is the formula of AUTOMATIC1111's web UI (modules/sd_emphasis.py, EmphasisOriginal: multiply, then bring back the mean of the
whole tensor) written in torch, for each encoder alone. `away_from_empty`, `mix` and `prompts` are compel's own functions over a
small CLIPTextModel with random weights; `prompts` is its whole way from weighted fragments to states, with words of a weight below
1 removed (DownweightMode.REMOVE). `embedding` is LatentConsistencyModelPipeline.get_guidance_scale_embedding.

Run with the versions in requirements.txt:

    python tools/reference/emphasis.py --out crates/diffusion/tests/golden/emphasis.json
"""

import argparse
import json
import logging
import math
import string
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch
from compel.embeddings_provider import DownweightMode, EmbeddingsProvider
from diffusers import LatentConsistencyModelPipeline
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

LENGTH = 16
WIDTH = 8


def numbers(values):
    return [float(f"{x:.9g}") for x in torch.as_tensor(values).flatten().tolist()]


def mean_cases():
    out = []
    generator = torch.Generator().manual_seed(1)
    # States with a mean that no weight here turns to the other sign, as those of text encoders have.
    for tokens, widths, bias in [(5, [6], 1.0), (16, [8], -0.5), (7, [3, 5], 1.5), (4, [2, 4, 1], -1.5)]:
        states = torch.randn(tokens, sum(widths), generator=generator) + bias
        weights = torch.ones(len(widths), tokens)
        weights[0, 1], weights[0, 2], weights[-1, 3] = 1.331, 0.5, 1.21
        parts = []
        for z, w in zip(states.split(widths, dim=1), weights):
            original_mean = z.mean()
            z = z * w.reshape(-1, 1).expand(z.shape)
            new_mean = z.mean()
            assert original_mean / new_mean > 0.2
            parts.append(z * (original_mean / new_mean))
        out.append({
            "states": numbers(states), "weights": numbers(weights), "widths": widths, "expected": numbers(torch.cat(parts, dim=1))})
    return out


def provider():
    """A tokenizer of one token a letter, and a CLIP text model with random weights."""
    words = list(string.ascii_lowercase) + [f"{letter}</w>" for letter in string.ascii_lowercase]
    words += ["<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as folder:
        vocabulary, merges = Path(folder, "vocab.json"), Path(folder, "merges.txt")
        vocabulary.write_text(json.dumps({word: i for i, word in enumerate(words)}), encoding="utf-8")
        merges.write_text("#version: 0.2\n", encoding="utf-8")
        tokenizer = CLIPTokenizer(str(vocabulary), str(merges), model_max_length=LENGTH)
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=len(words), hidden_size=WIDTH, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=LENGTH, projection_dim=WIDTH, bos_token_id=len(words) - 2, eos_token_id=len(words) - 1,
        pad_token_id=len(words) - 1)
    return EmbeddingsProvider(tokenizer, CLIPTextModel(config).eval(), downweight_mode=DownweightMode.REMOVE)


def encoded(encoder, fragments, weights):
    """States of the fragments without any weight, and the weight of each token."""
    tokens, per_token, _ = encoder.get_token_ids_and_expand_weights(fragments, weights, device="cpu")
    return encoder._encode_token_ids_to_embeddings(tokens.unsqueeze(0)), per_token, tokens


def away_cases(encoder):
    out = []
    for fragments, weights in [(["cat", "on", "mat"], [1.3, 1.0, 0.7]), (["dog"], [1.5]), (["a", "b"], [0.0, -1.0])]:
        states, per_token, tokens = encoded(encoder, fragments, weights)
        expected = encoder.build_weighted_embedding_tensor(tokens, per_token)
        out.append({
            "states": numbers(states), "empty": numbers(encoder.empty_z), "weights": numbers(per_token), "expected": numbers(expected)})
    return out


def mix_cases(encoder):
    out = []
    for texts, weights in [(["cat", "dog"], [1.0, 1.0]), (["cat", "dog", "mat"], [0.9, 0.3, 1.7]), (["cat", "dog"], [1.5, -0.4])]:
        states = torch.cat([encoded(encoder, [text], [1.0])[0] for text in texts]).unsqueeze(0)
        expected = EmbeddingsProvider.apply_embedding_weights(states, weights, normalize=True)
        out.append({"states": [numbers(z) for z in states[0]], "weights": weights, "expected": numbers(expected)})
    return out


def prompt_cases(encoder):
    out = []
    for fragments, weights in [
        (["cat", "on", "mat"], [1.3, 1.0, 0.5]), (["cat", "on", "mat"], [0.2, 1.1, 0.8]), (["dog", "sat"], [0.0, 1.0]),
    ]:
        expected = encoder.get_embeddings_for_weighted_prompt_fragments([fragments], [weights])
        variants = [(1.0, *encoded(encoder, fragments, weights)[:2])]
        for i, weight in enumerate(weights):
            if weight < 1:
                rest = fragments[:i] + fragments[i + 1 :], weights[:i] + weights[i + 1 :]
                counts = math.tan((1.0 - max(1e-5, weight)) * math.pi / 2)
                variants.append((counts, *encoded(encoder, *rest)[:2]))
        out.append({
            "empty": numbers(encoder.empty_z),
            "variants": [{"counts": c, "states": numbers(z), "weights": numbers(w)} for c, z, w in variants],
            "expected": numbers(expected)})
    return out


def embedding_cases():
    embed = LatentConsistencyModelPipeline.get_guidance_scale_embedding
    return [
        {"w": w, "dim": dim, "expected": numbers(embed(None, torch.tensor([w]), embedding_dim=dim)[0])}
        for w, dim in [(7.5, 256), (0.0, 8), (1.25, 33), (12.0, 512), (0.1, 4)]
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="the JSON file to write")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    encoder = provider()
    out = {
        "header": {"made_by": "tools/reference/emphasis.py", "versions": {"torch": torch.__version__, "compel": version("compel")}},
        "mean": mean_cases(), "away_from_empty": away_cases(encoder), "mix": mix_cases(encoder), "prompts": prompt_cases(encoder),
        "embedding": embedding_cases(),
    }
    with open(args.out, "w", encoding="utf-8") as file:
        file.write("{" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in out.items()) + "}\n")
    print({k: len(v) for k, v in out.items()})


if __name__ == "__main__":
    main()
