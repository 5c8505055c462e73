"""Phases 1 and 3: trains the autoencoder on pictures rendered on the fly, and later its decoder alone.

The loss is weighted towards the object and its edge, since the background alone fills most of a picture. Three of
the four latent channels are pulled towards the picture averaged over 8 x 8 pixels: colours are then right from the
first minutes, the latents look like a thumbnail (previews need only a linear map), and neighbouring latents stay
smooth, which the denoiser learns easily. The fourth channel is free for what an average cannot say (edges).

At the end of phase 1 the latents are normalised, channel by channel, by folding mean and deviation into the two 1x1
convolutions around them. Phase 3 polishes the decoder for the latents that the denoiser makes: the encoder stays
as it was, so the denoiser stays valid, and the decoder sees more noise.
"""

from __future__ import annotations

import copy
import math
import random
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm import tqdm

from networks import SCALING_FACTOR, autoencoder
from render import render
from scenes import PICTURE_SIZE, random_scene

OBJECT_WEIGHT = 3.0  # times the background's 1
EDGE_WEIGHT = 8.0
THUMBNAIL_WEIGHT = 1.0
KL_WEIGHT = 1e-5  # of the sum over the latents of a picture, divided by their number
LATENT_NOISE = 0.06  # standard deviation added for the decoder, so that it cleans what the denoiser leaves
POLISH_NOISE = 0.12  # the same in phase 3, in the denoiser's space of unit deviation
NORMALISE_SAMPLES = 256  # pictures behind the statistics of the latents
LOW_SHARE = 0.6  # share of the time spent on half-size pictures, which cost a quarter
PEAK_RATE = 3e-3
POLISH_RATE = 1.5e-3
EMA_DECAY = 0.995


def weights(mask: torch.Tensor) -> torch.Tensor:
    """Per-pixel loss weights [n, 1, h, w] of mean 1, from coverage masks."""
    edge = F.max_pool2d(mask, 5, 1, 2) + F.max_pool2d(-mask, 5, 1, 2)
    weight = 1 + OBJECT_WEIGHT * mask + EDGE_WEIGHT * edge
    return weight / weight.mean(dim=(1, 2, 3), keepdim=True)


def reconstruction(decoded: torch.Tensor, pictures: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted reconstruction loss and the plain L1 error (for the log)."""
    error = decoded.float() - pictures
    return (weights(mask) * (error.abs() + error.square())).mean(), error.detach().abs().mean()


def loss_of(vae: torch.nn.Module, pictures: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss of phase 1 and the plain L1 error."""
    posterior = vae.encode(pictures).latent_dist
    latents = posterior.sample()
    decoded = vae.decode(latents + LATENT_NOISE * torch.randn_like(latents)).sample
    loss, error = reconstruction(decoded, pictures, mask)
    thumbnail = (posterior.mean[:, :3].float() - F.avg_pool2d(pictures, 8)).square().mean()
    kl = posterior.kl().mean() / latents[0].numel()
    return loss + THUMBNAIL_WEIGHT * thumbnail + KL_WEIGHT * kl, error


def polish_loss_of(vae: torch.nn.Module, pictures: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss of phase 3 (the encoder gets no gradient) and the plain L1 error."""
    with torch.no_grad():
        latents = vae.encode(pictures).latent_dist.mean
    # From clean to noisy within a batch: the denoiser's latents differ in how clean they are.
    noise = POLISH_NOISE / SCALING_FACTOR * torch.rand(len(latents), 1, 1, 1)
    return reconstruction(vae.decode(latents + noise * torch.randn_like(latents)).sample, pictures, mask)


@torch.no_grad()
def normalise(vae: torch.nn.Module, seed: int = 0) -> None:
    """Gives every latent channel mean 0 and deviation 1 / SCALING_FACTOR without changing any reconstruction."""
    rng = random.Random(seed)
    pictures, _ = render([random_scene(rng) for _ in range(NORMALISE_SAMPLES)])
    latents = torch.cat([vae.encode(part).latent_dist.mean for part in pictures.split(32)])
    mean, deviation = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3)) * SCALING_FACTOR
    channels = len(mean)
    inward, outward = vae.quant_conv, vae.post_quant_conv
    inward.bias[:channels] -= mean
    inward.bias[:channels] /= deviation
    inward.weight[:channels] /= deviation[:, None, None, None]
    inward.bias[channels:] -= 2 * deviation.log()
    outward.bias += outward.weight[:, :, 0, 0] @ mean
    outward.weight *= deviation[None, :, None, None]


def train_vae(folder: Path, minutes: float, batch: int, seed: int, bfloat16: bool, polish: bool = False) -> None:
    """Trains for `minutes` and writes the averaged weights to `folder/vae.pt`, from which it continues.

    With `polish` only the decoder learns, at full size; without, everything, and the latents are normalised last.
    """
    torch.manual_seed(seed)
    rng = random.Random(seed)
    vae = autoencoder()
    checkpoint = folder / "vae.pt"
    if checkpoint.exists():
        vae.load_state_dict(torch.load(checkpoint))
    average = copy.deepcopy(vae).requires_grad_(False)
    if polish:
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    trained = [value for value in vae.parameters() if value.requires_grad]
    averaged = [kept for kept, value in zip(average.parameters(), vae.parameters()) if value.requires_grad]
    peak, low_share, loss_function = (POLISH_RATE, 0.0, polish_loss_of) if polish else (PEAK_RATE, LOW_SHARE, loss_of)
    optimiser = torch.optim.AdamW(trained, lr=peak, betas=(0.9, 0.98), weight_decay=1e-4)
    start, last_saved, step, smooth = time.monotonic(), time.monotonic(), 0, 0.0
    with tqdm(total=round(minutes * 60), unit="s", desc="decoder" if polish else "autoencoder", mininterval=5) as bar:
        while (spent := (time.monotonic() - start) / (minutes * 60)) < 1:
            rate = peak * min(1, (step + 1) / 50) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * spent)))
            for group in optimiser.param_groups:
                group["lr"] = rate
            size = PICTURE_SIZE // 2 if spent < low_share else PICTURE_SIZE
            count = batch if size < PICTURE_SIZE else max(1, batch // 2)
            pictures, mask = render([random_scene(rng) for _ in range(count)], size)
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                loss, error = loss_function(vae, pictures, mask)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            step += 1
            decay = min(EMA_DECAY, (step + 1) / (step + 10))
            with torch.no_grad():
                torch._foreach_lerp_(averaged, trained, 1 - decay)
            smooth = float(error) if step == 1 else 0.98 * smooth + 0.02 * float(error)
            bar.n = round(spent * minutes * 60)
            bar.set_postfix(step=step, size=size, loss=f"{float(loss):.4f}", l1=f"{smooth:.4f}", refresh=False)
            bar.update(0)
            if time.monotonic() - last_saved > 60:
                torch.save(average.state_dict(), checkpoint)
                last_saved = time.monotonic()
    if not polish:
        normalise(average)
    torch.save(average.state_dict(), checkpoint)
