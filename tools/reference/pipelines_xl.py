"""Family `xl`: Stable Diffusion XL, base, refiner and inpainting. Run by pipelines.py."""

import json

import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLInpaintPipeline, StableDiffusionXLPipeline
from diffusers.schedulers import AysSchedules
from pipelines_base import RED, Studio
from pipelines_text import LONG, windows
from safetensors.torch import load_file

SMALL = dict(prompt=RED, negative_prompt="a square", width=32, height=32, num_inference_steps=6, guidance_scale=5.0)


def base(studio: Studio) -> None:
    """Prompts to pictures: sizes as conditions, clip skip, schedulers, two prompts."""
    kind = StableDiffusionXLPipeline
    studio.draw("plain", kind, "sdxl", **SMALL)
    studio.draw("wide", kind, "sdxl", **{**SMALL, "width": 64, "height": 48})
    studio.draw("high", kind, "sdxl", **{**SMALL, "width": 48, "height": 64})
    studio.draw("no-negative", kind, "sdxl", **{**SMALL, "negative_prompt": None})
    studio.draw("empty-negative", kind, "sdxl", **{**SMALL, "negative_prompt": ""})
    studio.draw("unguided", kind, "sdxl", **{**SMALL, "guidance_scale": 1.0})
    studio.draw("seeds", kind, "sdxl", **SMALL, seeds=[3, 4_294_967_300], scheduler="euler_a")
    studio.draw("rescale", kind, "sdxl", **SMALL, guidance_rescale=0.7)
    studio.draw("two-prompts", kind, "sdxl", **SMALL, prompt_2="the big bicycle", negative_prompt_2="red")
    for skip in (1, 2):
        studio.draw(f"clip-skip-{skip}", kind, "sdxl", **SMALL, clip_skip=skip)
    sizes = dict(original_size=(512, 768), crops_coords_top_left=(64, 8), target_size=(1024, 640))
    less = dict(negative_original_size=(64, 32), negative_crops_coords_top_left=(0, 128), negative_target_size=(32, 48))
    studio.draw("original-size", kind, "sdxl", **SMALL, original_size=(512, 768))
    studio.draw("crops", kind, "sdxl", **SMALL, crops_coords_top_left=(64, 8))
    studio.draw("target-size", kind, "sdxl", **SMALL, target_size=(1024, 640))
    studio.draw("sizes", kind, "sdxl", **SMALL, **sizes)
    studio.draw("negative-sizes", kind, "sdxl", **SMALL, **sizes, **less)
    for name, schedule in (
        ("euler_a", ""),
        ("euler", "karras"),
        ("ddim", ""),
        ("dpmpp_2m", "karras"),
        ("dpmpp_2m_sde", "karras"),
        ("heun", ""),
        ("lms", ""),
        ("unipc", ""),
    ):
        more = studio.calm("sdxl", name)
        title = f"{name}_{schedule}" if schedule else name
        studio.draw(title, kind, "sdxl", **SMALL, **more, scheduler=name, sigma_schedule=schedule)
    for name in ("euler", "dpmpp_2m"):
        studio.draw(
            f"{name}-ays",
            kind,
            "sdxl",
            **{**SMALL, "num_inference_steps": 10},
            scheduler=name,
            said={"sigma_schedule": "ays"},
            given={"timesteps": AysSchedules["StableDiffusionXLTimesteps"], "num_inference_steps": None},
        )


def long_prompt(studio: Studio) -> None:
    """Two windows; the pooled embedding is the first window's."""
    pipe = studio.pipe(StableDiffusionXLPipeline, "sdxl")
    said, given = dict(prompt=LONG, negative_prompt="a square"), {}
    for field in ("prompt", "negative_prompt"):
        states = []
        for suffix in ("", "_2"):
            parts = windows(getattr(pipe, f"tokenizer{suffix}"), said[field], 2)
            said[f"{field}_ids{suffix}"] = parts
            encoder = getattr(pipe, f"text_encoder{suffix}")
            with torch.no_grad():
                out = [encoder(torch.tensor([part]), output_hidden_states=True) for part in parts]
            states.append(torch.cat([one.hidden_states[-2] for one in out], dim=1))
        given |= {f"{'negative_' if field != 'prompt' else ''}pooled_prompt_embeds": out[0].text_embeds}
        given |= {f"{field}_embeds": torch.cat(states, dim=-1)}
    empty = {**SMALL, "prompt": None, "negative_prompt": None}
    studio.draw("long", StableDiffusionXLPipeline, "sdxl", **empty, said=said, given=given)


def inversions(studio: Studio) -> None:
    """Textual inversion for both encoders: clip_l and clip_g."""
    pipe = studio.pipe(StableDiffusionXLPipeline, "sdxl", fresh=True)
    embeddings = []
    for name in ("one", "three"):
        halves = load_file(studio.models / "embeddings" / f"xl-{name}.safetensors")
        before = len(pipe.tokenizer)
        for key, suffix in (("clip_l", ""), ("clip_g", "_2")):
            encoder, tokenizer = getattr(pipe, f"text_encoder{suffix}"), getattr(pipe, f"tokenizer{suffix}")
            pipe.load_textual_inversion(halves[key], token=f"xl-{name}", text_encoder=encoder, tokenizer=tokenizer)
        assert len(pipe.tokenizer) == len(pipe.tokenizer_2)
        new = list(range(before, len(pipe.tokenizer)))
        embeddings.append({"file": f"embeddings/xl-{name}.safetensors", "token": f"xl-{name}", "ids": new})
    ask = {**SMALL, "prompt": "a xl-one on a xl-three"}
    studio.draw("inversion", StableDiffusionXLPipeline, "sdxl", pipe=pipe, **ask, said={"embeddings": embeddings})


def refined(studio: Studio) -> None:
    """The refiner by itself, and after the base: the base's latents go on where it stopped."""
    kind, refiner = StableDiffusionXLImg2ImgPipeline, "sdxl-refiner"
    for strength in (0.3, 0.75, 1.0):
        more = dict(image=True, strength=strength)
        studio.draw(f"img2img-{strength}", kind, "sdxl", **SMALL, **more)
        studio.draw(f"refiner-{strength}", kind, refiner, **SMALL, **more)
    scores = dict(aesthetic_score=3.5, negative_aesthetic_score=7.0)
    studio.draw("refiner-scores", kind, refiner, **SMALL, **scores, image=True, strength=0.5)
    studio.draw("refiner-no-negative", kind, refiner, **{**SMALL, "negative_prompt": None}, image=True, strength=0.5)
    sizes = dict(original_size=(512, 768), crops_coords_top_left=(64, 8), negative_original_size=(64, 32))
    studio.draw("refiner-sizes", kind, refiner, **SMALL, **sizes, image=True, strength=0.5)
    studio.draw("img2img-sizes", kind, "sdxl", **SMALL, **sizes, image=True, strength=0.5)
    wide = {**SMALL, "width": 48, "seeds": [5, 6]}
    studio.draw("img2img-seeds", kind, "sdxl", **wide, image=True, strength=0.7, scheduler="euler_a")
    for start in (0.5, 0.8):
        studio.draw(f"img2img-from-{start}", kind, "sdxl", **SMALL, image=True, denoising_start=start)
    for name, steps, seeds, size in (
        ("", 10, [7], (32, 32)),
        ("euler_a", 10, [7, 8], (48, 32)),
        ("dpmpp_2m", 10, [7], (32, 32)),
        ("heun", 10, [7], (32, 32)),
        ("ddim", 10, [7], (32, 32)),
    ):
        more = studio.calm("sdxl", name)
        ask = {**SMALL, **more, "num_inference_steps": steps, "width": size[0], "height": size[1], "scheduler": name}
        title = f"handover-{name or 'own'}"
        latents = studio.draw(
            f"{title}-base",
            StableDiffusionXLPipeline,
            "sdxl",
            **ask,
            seeds=seeds,
            denoising_end=0.8,
            output_type="latent",
        )
        kept = {key: studio.cases[-1][key] for key in ("latents_shape", "latents")}
        said = {"image_latents": kept["latents"], "latents_shape": kept["latents_shape"]}
        for number, seed in enumerate(seeds):
            one = {key: [value[number]] if key == "image_latents" else value for key, value in said.items()}
            end = f"{title}-refiner{f'-{number}' if number else ''}"
            given = {"image": latents[number : number + 1]}
            studio.draw(end, kind, refiner, **ask, seeds=[seed], denoising_start=0.8, said=one, given=given)


def inpainting(studio: Studio) -> None:
    """With 9 channels and with 4."""
    kind = StableDiffusionXLInpaintPipeline
    both = dict(image=True, mask_image=True)
    for model in ("sdxl", "sdxl-inpaint"):
        for strength in (0.3, 0.75, 0.9999, 1.0):
            studio.draw(f"{model}-inpaint-{strength}", kind, model, **SMALL, **both, strength=strength)
        wide = {**SMALL, "width": 48, "height": 32, "seeds": [5, 6]}
        studio.draw(f"{model}-inpaint-seeds", kind, model, **wide, **both, strength=0.9, scheduler="euler_a")
        studio.draw(f"{model}-inpaint-dpmpp_2m", kind, model, **SMALL, **both, strength=0.8, scheduler="dpmpp_2m")
        studio.draw(f"{model}-inpaint-from-0.5", kind, model, **SMALL, **both, denoising_start=0.5)
    studio.draw("refiner-inpaint", kind, "sdxl-refiner", **SMALL, **both, strength=0.5)


def distilled(studio: Studio) -> None:
    """Configurations that other models of this architecture have: EDM noise levels, latents with statistics."""
    edm = dict(sigma_min=0.002, sigma_max=80.0, sigma_data=0.5, sigma_schedule="karras", rho=7.0)
    for prediction in ("epsilon", "v_prediction"):
        content = {"_class_name": "EDMEulerScheduler", "_diffusers_version": "0.39.0", "num_train_timesteps": 1000}
        overlay = {"scheduler/scheduler_config.json": content | edm | {"prediction_type": prediction}}
        studio.draw(f"edm-{prediction}", StableDiffusionXLPipeline, "sdxl", **SMALL, overlay=overlay)
    statistics = dict(
        latents_mean=[-1.5, -0.5, 0.25, 1.0], latents_std=[6.0, 8.0, 5.0, 7.0], scaling_factor=0.5
    )
    overlay = {}
    for part in ("vae_decoder", "vae_encoder"):
        content = json.loads((studio.models / "sdxl" / part / "config.json").read_text())
        overlay[f"{part}/config.json"] = content | statistics
    for name, kind, more in (
        ("plain", StableDiffusionXLPipeline, {}),
        ("img2img", StableDiffusionXLImg2ImgPipeline, dict(image=True, strength=0.5)),
        ("inpaint", StableDiffusionXLInpaintPipeline, dict(image=True, mask_image=True, strength=0.5)),
    ):
        pipe = studio.pipe(kind, "sdxl", fresh=True)
        pipe.vae.register_to_config(**statistics)
        studio.draw(f"latents-mean-{name}", kind, "sdxl", pipe=pipe, **SMALL, **more, overlay=overlay)


def xl(studio: Studio) -> None:
    """The whole family."""
    base(studio)
    distilled(studio)
    long_prompt(studio)
    inversions(studio)
    refined(studio)
    inpainting(studio)
