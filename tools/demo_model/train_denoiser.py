"""Phase 2: trains the UNet and the text encoder together on latents of the finished autoencoder.

Encoding is dearer than it looks on a CPU, so each step encodes a few new pictures into a bank and trains on a batch
drawn from the bank; once the bank is full, only captions stay fresh. The target is v-prediction on a linear beta
schedule: its last step has almost no signal left (sqrt(alpha_bar) 0.0064), without which a plain background would
shine through the noise in training but not when sampling starts from pure noise.
"""

from __future__ import annotations

import copy
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from diffusers.models.attention_processor import AttnProcessor
from tqdm import tqdm

from captions import caption, words
from networks import CONTEXT, LATENT_CHANNELS, LATENT_SIZE, SCALING_FACTOR, autoencoder, denoiser, text_encoder
from render import render
from scenes import Scene, random_scene
from tokenizer import load_tokenizer, save_tokenizer

TRAIN_STEPS = 1000
SCHEDULE = {"num_train_timesteps": TRAIN_STEPS, "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
BANK = 16_000  # pictures; 63 MiB of latents
BANK_FIRST = 1_000  # encoded before the first step
BANK_PER_STEP = 8
# Below this timestep a flat picture is easily read through the noise; what it will show is decided above.
EASY_BELOW = 300
EASY_SHARE = 0.12  # of a batch
WARM_UP = 200  # steps
# What tells a circle from a square is a few latent cells on the outline, a small share of the picture.
OUTLINE_WEIGHT = 4.0
OUTLINE_CHANGE = 0.02  # least change of coverage within a cell that makes it part of the outline
EMA_DECAY = 0.998
SAVE_EVERY = 120  # seconds


@dataclass(frozen=True)
class Plan:
    """One stretch of training. The rate stays at its peak until the last `decay_share` of the time, then falls to 0."""

    minutes: float
    batch: int
    seed: int
    bfloat16: bool
    peak_rate: float = 1e-3
    decay_share: float = 0.5


class Bank:
    """Latents of random scenes, encoded a few at a time, and the scenes they show."""

    def __init__(self, folder: Path, rng: random.Random, bfloat16: bool) -> None:
        self._bfloat16 = bfloat16
        self._vae = autoencoder().eval().requires_grad_(False)
        self._vae.load_state_dict(torch.load(folder / "vae.pt"))
        self._rng = rng
        self.scenes: list[Scene] = []
        self.latents = torch.empty(BANK, LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE)
        self._file = folder / "bank.pt"
        self._saved = 0
        if self._file.exists():
            saved = torch.load(self._file, weights_only=False)
            self.scenes = saved["scenes"]
            self.latents[: len(self.scenes)] = saved["latents"]
            self._saved = len(self.scenes)

    def save(self) -> None:
        """Saves what has grown since the last time."""
        if self._saved == len(self.scenes):
            return
        self._saved = len(self.scenes)
        torch.save({"scenes": self.scenes, "latents": self.latents[: len(self.scenes)].clone()}, self._file)

    def grow(self, count: int) -> None:
        """Renders and encodes up to `count` new scenes."""
        count = min(count, BANK - len(self.scenes))
        if count <= 0:
            return
        scenes = [random_scene(self._rng) for _ in range(count)]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=self._bfloat16):
            posterior = self._vae.encode(render(scenes)[0]).latent_dist
        self.latents[len(self.scenes) : len(self.scenes) + count] = posterior.mean.float() * SCALING_FACTOR
        self.scenes += scenes

    def draw(self, count: int) -> tuple[torch.Tensor, list[str], torch.Tensor]:
        """Scaled latents [count, 4, 16, 16], a fresh caption of each, and the loss weight of each cell."""
        rows = [self._rng.randrange(len(self.scenes)) for _ in range(count)]
        scenes = [self.scenes[row] for row in rows]
        return self.latents[rows], [caption(scene, self._rng) for scene in scenes], outline_weights(scenes)


def outline_weights(scenes: list[Scene]) -> torch.Tensor:
    """Weights [n, 1, 16, 16] of mean 1 each: cells that the outline crosses, and their neighbours, count more."""
    mask = render(scenes)[1]
    cell = mask.shape[-1] // LATENT_SIZE
    change = F.max_pool2d(mask, cell) + F.max_pool2d(-mask, cell)
    outline = F.max_pool2d((change > OUTLINE_CHANGE).float(), 3, 1, 1)
    weights = 1 + (OUTLINE_WEIGHT - 1) * outline
    return weights / weights.mean(dim=(2, 3), keepdim=True)


class Text(torch.nn.Module):
    """Tokenizer and text encoder: captions to states [n, 77, width]."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        if not (folder / "tokenizer" / "vocab.json").exists():
            save_tokenizer(words(), folder / "tokenizer")
        self._tokenizer = load_tokenizer(folder / "tokenizer")
        tokenizer = self._tokenizer
        self.encoder = text_encoder(len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id)
        self._cache: dict[str, list[int]] = {}

    def ids(self, captions: list[str]) -> torch.Tensor:
        fresh = [text for text in set(captions) if text not in self._cache]
        if fresh:
            rows = self._tokenizer(fresh, padding="max_length", max_length=CONTEXT, truncation=True).input_ids
            self._cache.update(zip(fresh, rows))
        out = torch.tensor([self._cache[text] for text in captions])
        if len(self._cache) > 200_000:
            self._cache.clear()
        return out

    def forward(self, captions: list[str]) -> torch.Tensor:
        return self.encoder(self.ids(captions)).last_hidden_state


def timesteps(count: int) -> torch.Tensor:
    """Training timesteps [count], one per stratum of the distribution, so that every batch covers the schedule."""
    level = (torch.arange(count) + torch.rand(count)) / count
    easy = level / EASY_SHARE * EASY_BELOW
    hard = EASY_BELOW + (level - EASY_SHARE) / (1 - EASY_SHARE) * (TRAIN_STEPS - EASY_BELOW)
    return torch.where(level < EASY_SHARE, easy, hard).long().clamp(max=TRAIN_STEPS - 1)


def train_denoiser(folder: Path, plan: Plan) -> None:
    """Trains by `plan` (continuing from `folder/denoiser.pt` if it is there) and writes weights and averages."""
    torch.manual_seed(plan.seed)
    rng = random.Random(plan.seed)
    bank = Bank(folder, rng, plan.bfloat16)
    with tqdm(total=BANK_FIRST, initial=min(BANK_FIRST, len(bank.scenes)), unit="picture", desc="first latents") as bar:
        while len(bank.scenes) < BANK_FIRST:
            bank.grow(50)
            bar.update(50)
    unet, text = denoiser(), Text(folder)
    # Plain attention: on a CPU the backward pass of torch's fused one in bfloat16 costs a quarter of a step.
    unet.set_attn_processor(AttnProcessor())
    text.encoder.set_attn_implementation("eager")
    networks = torch.nn.ModuleDict({"unet": unet, "text": text.encoder})
    average = copy.deepcopy(networks).requires_grad_(False)
    optimiser = torch.optim.AdamW(networks.parameters(), lr=plan.peak_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    checkpoint = folder / "denoiser.pt"
    step, spent_before = 0, 0.0
    if checkpoint.exists():
        saved = torch.load(checkpoint)
        networks.load_state_dict(saved["networks"])
        average.load_state_dict(saved["average"])
        optimiser.load_state_dict(saved["optimiser"])
        for group in optimiser.param_groups:
            group["fused"] = True
        step, spent_before = saved["step"], saved["seconds"]
    schedule = DDIMScheduler(**SCHEDULE, prediction_type="v_prediction")

    def save() -> None:
        state = {
            "networks": networks.state_dict(),
            "average": average.state_dict(),
            "optimiser": optimiser.state_dict(),
            "step": step,
            "seconds": spent_before + time.monotonic() - start,
        }
        torch.save(state, checkpoint.with_suffix(".new"))
        checkpoint.with_suffix(".new").rename(checkpoint)
        bank.save()

    budget = plan.minutes * 60
    start = last_saved = time.monotonic()
    smooth: list[float] = []
    with tqdm(total=round(budget), unit="s", desc="denoiser", mininterval=10) as bar:
        while (spent := spent_before + time.monotonic() - start) < budget:
            rate = plan.peak_rate * min(1, (step + 1) / WARM_UP, (1 - spent / budget) / plan.decay_share)
            for group in optimiser.param_groups:
                group["lr"] = rate
            bank.grow(BANK_PER_STEP)
            latents, captions, weights = bank.draw(plan.batch)
            noise = torch.randn_like(latents)
            times = timesteps(plan.batch)
            noisy = schedule.add_noise(latents, noise, times)
            target = schedule.get_velocity(latents, noise, times)
            with torch.autocast("cpu", torch.bfloat16, enabled=plan.bfloat16):
                guess = unet(noisy, times, text(captions)).sample
            loss = ((guess.float() - target).square() * weights).mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
            optimiser.step()
            step += 1
            decay = min(EMA_DECAY, (step + 1) / (step + 10))
            with torch.no_grad():
                torch._foreach_lerp_(list(average.parameters()), list(networks.parameters()), 1 - decay)
            smooth = [*smooth[-199:], float(loss)]
            bar.n = round(spent)
            mean = sum(smooth) / len(smooth)
            bar.set_postfix(step=step, bank=len(bank.scenes), loss=f"{mean:.4f}", rate=f"{rate:.1e}", refresh=False)
            bar.update(0)
            if time.monotonic() - last_saved > SAVE_EVERY:
                save()
                last_saved = time.monotonic()
    save()
