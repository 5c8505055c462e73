"""Makes pictures with an exported model: ONNX Runtime sessions, diffusers' scheduler, nothing else.

The noise of a picture is `torch.randn` of its seed, as in diffusers, and every picture's rows are independent, so a
seed gives the same picture in any batch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import diffusers
import numpy as np
import onnxruntime
import torch
from tqdm import tqdm
from transformers import CLIPTokenizer

CONTEXT = 77
BATCH = 16


class Sampler:
    """An exported model folder, loaded."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._sessions = {
            part: onnxruntime.InferenceSession(str(folder / part / "model.onnx"), options)
            for part in ("text_encoder", "unet", "vae_decoder")
        }
        self._tokenizer = CLIPTokenizer.from_pretrained(str(folder / "tokenizer"))
        self._scaling = json.loads((folder / "vae_decoder" / "config.json").read_text())["scaling_factor"]
        unet = json.loads((folder / "unet" / "config.json").read_text())
        self._shape = (unet["in_channels"], unet["sample_size"], unet["sample_size"])
        self._scheduler_config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
        self.defaults = json.loads((folder / "mobula.json").read_text())["defaults"]

    def _run(self, part: str, inputs: dict[str, np.ndarray]) -> np.ndarray:
        return self._sessions[part].run(None, inputs)[0]

    def encode(self, prompts: Sequence[str]) -> np.ndarray:
        """Text states [n, 77, width]."""
        ids = self._tokenizer(list(prompts), padding="max_length", max_length=CONTEXT, truncation=True).input_ids
        return self._run("text_encoder", {"input_ids": np.array(ids, dtype=np.int64)})

    def scheduler(self, kind: str | None = None, **changes: object) -> object:
        """A fresh scheduler: the folder's, or the diffusers class `kind` with the folder's schedule."""
        return getattr(diffusers, kind or self._scheduler_config["_class_name"]).from_config(
            self._scheduler_config, **changes
        )

    def latents(
        self, prompts: Sequence[str], seeds: Sequence[int], steps: int, guidance: float, negative: str, scheduler: object
    ) -> torch.Tensor:
        """Denoised latents [n, 4, h, w] in the denoiser's space."""
        states = self.encode([negative] * len(prompts) + list(prompts))
        noise = [torch.randn((1, *self._shape), generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        scheduler.set_timesteps(steps)
        sample = torch.cat(noise) * scheduler.init_noise_sigma
        for time in scheduler.timesteps:
            scaled = scheduler.scale_model_input(sample, time).repeat(2, 1, 1, 1)
            times = np.full(len(scaled), float(time), dtype=np.float32)
            inputs = {"sample": scaled.numpy(), "timestep": times, "encoder_hidden_states": states}
            without, with_prompt = torch.from_numpy(self._run("unet", inputs)).chunk(2)
            sample = scheduler.step(without + guidance * (with_prompt - without), time, sample).prev_sample
        return sample

    def decode(self, latents: torch.Tensor) -> np.ndarray:
        """Pixels, uint8 [n, h, w, 3]."""
        decoded = self._run("vae_decoder", {"latent_sample": (latents / self._scaling).numpy()})
        return ((decoded.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8).transpose(0, 2, 3, 1)

    def pictures(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        steps: int | None = None,
        guidance: float | None = None,
        negative: str = "",
        kind: str | None = None,
        **changes: object,
    ) -> np.ndarray:
        """Pictures of `prompts`, uint8 [n, h, w, 3]; settings that are not given are the model's defaults."""
        steps = steps or self.defaults["steps"]
        guidance = self.defaults["guidance_scale"] if guidance is None else guidance
        out = []
        for first in tqdm(range(0, len(prompts), BATCH), unit="batch", desc="pictures", leave=False):
            part = slice(first, first + BATCH)
            scheduler = self.scheduler(kind, **changes)
            latents = self.latents(prompts[part], seeds[part], steps, guidance, negative, scheduler)
            out.append(self.decode(latents))
        return np.concatenate(out)
