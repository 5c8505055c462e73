#!/usr/bin/env python3
"""Golden trajectories for crates/diffusion: diffusers' pipelines from a picture, a mask, latents or noise to latents.

The pipelines run as they are, from __call__ to the last step; only the two networks are replaced. The UNet is the elementwise
function of schedulers.py (a UNet of nine channels adds 0.3 of the mask and 0.2 of the masked picture to its latents first), and the
VAE's encoder is a fixed linear map of the picture's averages. Its answers are stored: they are what a trajectory starts from.
Guidance in a part of the steps has no pipeline; there diffusers' ClassifierFreeGuidance drives the scheduler. Image to image with
LCM is that of LatentConsistencyModelImg2ImgPipeline, which embeds the guidance scale and shortens the schedule in its own way.

Run with the versions in requirements.txt:

    python tools/reference/trajectories.py --out crates/diffusion/tests/golden/trajectories.json
"""

import argparse
import json
import logging
import warnings

import diffusers
import numpy as np
import torch
from diffusers import (
    ConfigMixin,
    LatentConsistencyModelImg2ImgPipeline,
    ModelMixin,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
)
from diffusers.configuration_utils import register_to_config
from diffusers.guiders import ClassifierFreeGuidance
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTinyOutput
from diffusers.utils.torch_utils import randn_tensor
from schedulers import SD15, SHAPE, model

PIXELS = 8 * SHAPE[1]
TEXT = 8
CLASSES = {
    "ddim": ("DDIMScheduler", {}),
    "pndm": ("PNDMScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_karras": ("EulerDiscreteScheduler", {"use_karras_sigmas": True}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {}),
    "dpmpp_2m_sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "ddpm": ("DDPMScheduler", {}),
    "lms": ("LMSDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "dpm2": ("KDPM2DiscreteScheduler", {}),
    "dpm2_a": ("KDPM2AncestralDiscreteScheduler", {}),
    # Its noise has a generator of its own; a trajectory seeds it as the others, and all cases of it have this seed.
    "dpmpp_sde": ("DPMSolverSDEScheduler", {"noise_sampler_seed": 42}),
    "dpmpp_2s": ("DPMSolverSinglestepScheduler", {}),
    "deis": ("DEISMultistepScheduler", {}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "lcm": ("LCMScheduler", {}),
    "tcd": ("TCDScheduler", {}),
}
MAIN = ["ddim", "pndm", "euler", "euler_a", "dpmpp_2m"]
TWO_CALLS = ["heun", "dpm2", "dpm2_a", "dpmpp_sde"]


class Unet(ModelMixin, ConfigMixin):
    @register_to_config
    def __init__(self, in_channels=4, sample_size=SHAPE[1], time_cond_proj_dim=None, addition_time_embed_dim=4):
        super().__init__()
        self.add_embedding = torch.nn.Module()
        self.add_embedding.linear_1 = torch.nn.Linear(6 * addition_time_embed_dim + TEXT, 1)
        self.inputs, self.embedding = [], None

    def forward(self, sample, t, timestep_cond=None, **_):
        self.inputs.append(sample[-1].numpy().copy())
        self.embedding = timestep_cond
        rows = sample.numpy().astype(np.float64)
        if rows.shape[1] == 9:
            rows = rows[:, :4] + 0.3 * rows[:, 4:5] + 0.2 * rows[:, 5:]
        # The only row of a call is the conditional one.
        out = [model(x, float(t), i + 2 - len(rows)) for i, x in enumerate(rows)]
        return (torch.from_numpy(np.stack(out)),)


class Vae(ModelMixin, ConfigMixin):
    @register_to_config
    def __init__(self, scaling_factor=0.18215, samples=False, force_upcast=False, latent_channels=4,
                 block_out_channels=(8, 8, 8, 8)):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.answers = []

    def encode(self, image):
        # 8 output channels of 3 input channels: 4 means, 4 logarithms of a variance.
        table = torch.sin(torch.arange(24, dtype=torch.float32) * 1.7).reshape(8, 3)
        average = torch.nn.functional.avg_pool2d(image, 8)
        parameters = torch.einsum("oc,bchw->bohw", table, average) * 3 - 0.5
        posterior = DiagonalGaussianDistribution(parameters)
        if self.config.samples:
            self.answers.append((posterior.mean, None))
            return AutoencoderTinyOutput(latents=posterior.mean)
        self.answers.append((posterior.mean, posterior.std))
        return AutoencoderKLOutput(latent_dist=posterior)


def numbers(values, digits=6):
    return [round(float(x), digits) for x in np.asarray(values, dtype=np.float64).flatten()]


def exact(values):
    return [float(f"{x:.9g}") for x in np.asarray(values).flatten()]


def picture():
    steps = torch.arange(3 * PIXELS * PIXELS, dtype=torch.float32)
    return (0.5 + 0.5 * torch.sin(0.37 * steps + 0.0003 * steps**1.5)).reshape(1, 3, PIXELS, PIXELS)


def mask():
    return torch.tensor([[0, 1, 1], [0, 1, 0], [0, 0, 1]], dtype=torch.float32).reshape(1, 1, *SHAPE[1:])


def scheduler(kind, config):
    name, keys = CLASSES[kind]
    return getattr(diffusers, name).from_config(SD15 | config, **keys)


def pipeline(case, unet, vae):
    parts = {"vae": vae, "unet": unet, "scheduler": scheduler(case["kind"], case["config"]), "text_encoder": None, "tokenizer": None}
    task, xl = case["task"].removeprefix("xl_"), case["task"].startswith("xl_")
    if xl:
        cls = {"text": StableDiffusionXLPipeline, "image": StableDiffusionXLImg2ImgPipeline,
               "inpaint": StableDiffusionXLInpaintPipeline}[task]
        return cls(**parts, text_encoder_2=None, tokenizer_2=None, add_watermarker=False)
    cls = {"text": StableDiffusionPipeline, "image": StableDiffusionImg2ImgPipeline,
           "inpaint": StableDiffusionInpaintPipeline}[task]
    if case["kind"] == "lcm" and task == "image":
        cls = LatentConsistencyModelImg2ImgPipeline
    return cls(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def run(case, posteriors):
    task, xl = case["task"].removeprefix("xl_"), case["task"].startswith("xl_")
    unet = Unet(in_channels=9 if case.get("concatenated") else 4, time_cond_proj_dim=case.get("embedding"))
    vae = Vae(samples=case.get("samples", False), scaling_factor=0.13025 if xl else 0.18215)
    pipe = pipeline(case, unet, vae)
    pipe.set_progress_bar_config(disable=True)
    text = torch.zeros(1, 4, TEXT)
    call = {
        "prompt_embeds": text, "negative_prompt_embeds": text, "output_type": "latent", "height": PIXELS, "width": PIXELS,
        "num_inference_steps": case["steps"], "guidance_scale": case["guidance"], "eta": case.get("eta", 0.0),
        "generator": torch.Generator("cpu").manual_seed(case["seed"]),
    }
    if xl:
        call |= {"pooled_prompt_embeds": text[:, 0], "negative_pooled_prompt_embeds": text[:, 0]}
    if xl or task == "text":
        call["guidance_rescale"] = case.get("rescale", 0.0)
    if case.get("latents") is not None:
        call["image"] = torch.tensor(case["latents"], dtype=torch.float32).reshape(1, *SHAPE)
    elif task != "text":
        call["image"] = picture()
    if task == "inpaint":
        call["mask_image"] = torch.nn.functional.interpolate(mask(), size=(PIXELS, PIXELS))
    if task == "image":
        del call["height"], call["width"]
        if case["kind"] == "lcm":
            del call["eta"], call["negative_prompt_embeds"]
    if case.get("strength") is not None:
        call["strength"] = case["strength"]
    for key in ("start", "end"):
        if case.get(key) is not None:
            call[f"denoising_{key}"] = case[key]
    latents = []

    def keep(_pipe, _step, _t, values):
        latents.append(values["latents"].numpy().copy())
        return {}

    pipe(**call, callback_on_step_end=keep)
    calls = len(latents)
    assert len(unet.inputs) == calls
    at = sorted({1, 2, calls // 2, calls} & set(range(1, calls + 1)))
    out = case | {
        "calls": calls,
        "inputs": [[i, numbers(unet.inputs[i])] for i in sorted({0, 1, calls - 1}) if i < calls],
        "kept": [[i, numbers(latents[i - 1])] for i in at],
    }
    if vae.answers:
        # The first is the picture where the pipeline encodes it, the last is the masked picture where there is one. Where the
        # picture counts for nothing the pipeline does not encode it; a trajectory gets it all the same.
        if task == "inpaint" and len(vae.answers) == 1:
            vae.encode(2 * picture() - 1)
            vae.answers.reverse()
        out["posteriors"] = []
        for mean, deviation in vae.answers:
            entry = {"mean": exact(mean), "deviation": None if deviation is None else exact(deviation)}
            if entry not in posteriors:
                posteriors.append(entry)
            out["posteriors"].append(posteriors.index(entry))
        out["scaling"] = vae.config.scaling_factor
    if task == "inpaint":
        out["mask"] = [int(x) for x in mask().flatten()]
    if unet.embedding is not None:
        out["timestep_cond"] = numbers(unet.embedding, 7)
    return out


def run_interval(case):
    """The loop of diffusers' modular pipelines, which takes its rows and its guided output from a guider."""
    sampler = scheduler(case["kind"], case["config"])
    sampler.set_timesteps(case["steps"])
    generator = torch.Generator("cpu").manual_seed(case["seed"])
    latents = randn_tensor((1, *SHAPE), generator=generator, dtype=torch.float32) * sampler.init_noise_sigma
    extra = {"generator": generator} if "generator" in sampler.step.__code__.co_varnames else {}
    guider = ClassifierFreeGuidance(
        guidance_scale=case["guidance"], guidance_rescale=case["rescale"], start=case["interval"][0], stop=case["interval"][1])
    unet = Unet()
    kept, rows = [], []
    for i, t in enumerate(sampler.timesteps):
        guider.set_state(step=i, num_inference_steps=len(sampler.timesteps), timestep=t)
        rows.append(guider.num_conditions)
        x = sampler.scale_model_input(latents, t)
        cond = unet(x, t)[0]
        uncond = None
        if guider.num_conditions == 2:
            unet.inputs.pop()
            uncond = unet(torch.cat([x, x]), t)[0][:1]
        # A guider rescales an output that it did not guide by that output itself, which changes nothing but its rounding.
        output = guider.forward(cond, uncond).pred
        latents = sampler.step(output, t, latents, **extra, return_dict=False)[0]
        kept.append(latents.numpy().copy())
    calls = len(kept)
    return case | {
        "calls": calls, "rows": rows, "inputs": [[i, numbers(unet.inputs[i])] for i in (0, 1, calls - 1)],
        "kept": [[i, numbers(kept[i - 1])] for i in sorted({1, calls // 2, calls})],
    }


def cases():
    out = []

    def add(task, kind, steps=7, seed=42, guidance=2.5, config=None, **keys):
        out.append({"task": task, "kind": kind, "steps": steps, "seed": seed, "guidance": guidance, "config": config or {}} | keys)

    for kind in CLASSES:
        add("inpaint", kind, 7, strength=1.0)
        if kind == "lcm":
            continue
        for strength in (0.3, 0.75, 1.0):
            add("image", kind, 10, strength=strength)
        add("inpaint", kind, 7, strength=0.6)
        add("inpaint", kind, 7, strength=0.6, concatenated=True)
    for kind in MAIN:
        for strength in (0.1, 0.5, 0.95):
            add("image", kind, 20, seed=7, guidance=1.0, strength=strength)
        add("image", kind, 7, strength=0.75, samples=True)
        add("image", kind, 7, strength=0.5, config={"timestep_spacing": "trailing", "prediction_type": "v_prediction"})
        add("image", kind, 7, strength=0.5, config={"timestep_spacing": "linspace"})
        add("inpaint", kind, 7, strength=1.0, concatenated=True)
        add("inpaint", kind, 7, seed=3, guidance=1.0, strength=0.6, samples=True)
        add("inpaint", kind, 7, seed=3, guidance=7.5, strength=0.5, concatenated=True, samples=True)
        add("text", kind, 7, rescale=0.7, guidance=7.5)
        add("text", kind, 7, seed=2**32 + 9, rescale=1.0, guidance=7.5)
        add("xl_image", kind, 10, strength=0.3, rescale=0.7)
        add("xl_inpaint", kind, 10, strength=0.7, rescale=0.3)
        add("xl_inpaint", kind, 10, strength=1.0, concatenated=True)
    add("image", "ddim", 10, strength=0.75, eta=0.6)
    for kind in [*MAIN, *TWO_CALLS, "unipc", "lms", "deis"]:
        add("xl_text", kind, 10, end=0.7)
        start = [round(x, 6) for x in (torch.sin(torch.arange(36.0)) * 2).tolist()]
        add("xl_image", kind, 10, start=0.7, latents=start)
        add("xl_image", kind, 10, start=0.3, end=0.8, latents=start, rescale=0.5)
        add("xl_inpaint", kind, 10, start=0.5)
    add("text", "lcm", 4, guidance=8.5, embedding=16)
    for strength in (0.3, 0.6, 1.0):
        add("image", "lcm", 4, guidance=3.0, strength=strength, embedding=33)
    for kind in ["ddim", "euler_a", "heun"]:
        for interval in ((0.0, 0.5), (0.3, 0.7), (0.25, 1.0)):
            add("interval", kind, 10, guidance=5.0, rescale=0.0, interval=interval)
        add("interval", kind, 7, guidance=5.0, rescale=0.7, interval=(0.2, 0.8))
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="the JSON file to write")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    posteriors = []
    done = [run_interval(case) if case["task"] == "interval" else run(case, posteriors) for case in cases()]
    for case in done:
        if not all(np.isfinite(values).all() for _, values in case["kept"]):
            raise ValueError(f"not finite: {case}")
    header = {
        "made_by": "tools/reference/trajectories.py",
        "versions": {"diffusers": diffusers.__version__, "torch": torch.__version__, "numpy": np.__version__},
        "shape": SHAPE,
    }
    with open(args.out, "w", encoding="utf-8") as file:
        file.write('{"header": ' + json.dumps(header) + ',\n"base": ' + json.dumps(SD15) + ',\n"posteriors": [\n')
        file.write(",\n".join(json.dumps(p, separators=(",", ":")) for p in posteriors))
        file.write('\n],\n"cases": [\n')
        file.write(",\n".join(json.dumps(case, separators=(",", ":")) for case in done))
        file.write("\n]}\n")
    print(f"{len(done)} trajectories, {len(posteriors)} encoded pictures")


if __name__ == "__main__":
    main()
