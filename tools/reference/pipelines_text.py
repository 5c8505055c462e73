"""Families `text` and `schedulers`: prompts to pictures with models of the SD 1 and SD 2 kind. Run by pipelines.py."""

import torch
from diffusers import StableDiffusionPipeline
from diffusers.schedulers import AysSchedules
from pipelines_base import RED, SCHEDULERS, Studio

SMALL = dict(prompt=RED, negative_prompt="a square", width=32, height=32, num_inference_steps=6, guidance_scale=5.0)
LONG = "the red square is blue and the big bicycle " * 3
LONGER = "a circle on the background, red and blue and quaint, " * 4


def windows(tokenizer, text: str, count: int) -> list[list[int]]:
    """A text in windows of 75 tokens between start and end, padded to at least `count` windows."""
    tokens = tokenizer(text, truncation=False, add_special_tokens=False).input_ids
    start, end, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    parts = [tokens[at : at + 75] for at in range(0, len(tokens), 75)] or [[]]
    parts += [[]] * (count - len(parts))
    return [[start, *part, end] + [pad] * (75 - len(part)) for part in parts]


def long_prompts(studio: Studio, model: str) -> None:
    """Prompts of several windows: the states of the windows follow one another."""
    pipe = studio.pipe(StableDiffusionPipeline, model)
    for name, prompt, negative, scheduler in (
        ("two", LONG, "a square", ""),
        ("three", LONGER, LONG, "euler"),
        ("negative", "red", LONG, "dpmpp_2m"),
    ):
        count = max(len(windows(pipe.tokenizer, text, 1)) for text in (prompt, negative))
        both = [windows(pipe.tokenizer, text, count) for text in (prompt, negative)]
        with torch.no_grad():
            states = [torch.cat([pipe.text_encoder(torch.tensor([w]))[0] for w in text], dim=1) for text in both]
        studio.draw(
            f"{model}-long-{name}",
            StableDiffusionPipeline,
            model,
            **{**SMALL, "prompt": None, "negative_prompt": None},
            scheduler=scheduler,
            given=dict(prompt_embeds=states[0], negative_prompt_embeds=states[1]),
            said=dict(
                prompt=prompt, negative_prompt=negative, prompt_ids=both[0], negative_prompt_ids=both[1]
            ),
        )


def inversions(studio: Studio) -> None:
    """Textual inversion with every form of file that diffusers loads."""
    files = [
        ("one.safetensors", "<one>"),
        ("three.safetensors", "<three>"),
        ("one-a1111.safetensors", "one-a1111"),
        ("three-a1111.safetensors", "three-a1111"),
    ]
    pipe = studio.pipe(StableDiffusionPipeline, "sd15", fresh=True)
    embeddings = []
    for file, token in files:
        before = len(pipe.tokenizer)
        pipe.load_textual_inversion(str(studio.models / "embeddings" / file), token=token)
        new = list(range(before, len(pipe.tokenizer)))
        embeddings.append({"file": f"embeddings/{file}", "token": token, "ids": new})
    for name, prompt, negative in (
        ("one", "a <one> circle", "a square"),
        ("three", "<three>", ""),
        ("a1111", "a one-a1111 on three-a1111", "red"),
        ("negative", "red", "<three> <one>"),
    ):
        studio.draw(
            f"inversion-{name}",
            StableDiffusionPipeline,
            "sd15",
            pipe=pipe,
            **{**SMALL, "prompt": prompt, "negative_prompt": negative},
            said={"embeddings": embeddings},
        )


def text(studio: Studio) -> None:
    """What a prompt can ask for beside the scheduler."""
    kind = StableDiffusionPipeline
    for skip in (1, 2):
        said = {"model": "sd15-hidden"}
        studio.draw(f"sd15-hidden-clip-skip-{skip}", kind, "sd15", **SMALL, clip_skip=skip, said=said)
    for model in ("sd15", "sd21"):
        studio.draw(f"{model}-rescale", kind, model, **SMALL, guidance_rescale=0.7)
        studio.draw(f"{model}-rescale-euler", kind, model, **SMALL, guidance_rescale=0.7, scheduler="euler")
        studio.draw(f"{model}-seeds", kind, model, **SMALL, seeds=[3, 4_294_967_300, 1], scheduler="euler_a")
        studio.draw(f"{model}-64x64", kind, model, **{**SMALL, "width": 64, "height": 64, "num_inference_steps": 4})
        studio.draw(f"{model}-one-step", kind, model, **{**SMALL, "num_inference_steps": 1}, scheduler="euler")
        long_prompts(studio, model)
    zero = studio.pipe(kind, "sd21").own.config
    zero = {"_class_name": "DDIMScheduler", **zero, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    overlay = {"scheduler/scheduler_config.json": {k: v for k, v in zero.items() if k != "_use_default_values"}}
    studio.draw("sd21-zero-snr", kind, "sd21", **SMALL, guidance_rescale=0.7, overlay=overlay)
    studio.draw("sd21-zero-snr-euler", kind, "sd21", **SMALL, guidance_rescale=0.7, overlay=overlay, scheduler="euler")
    inversions(studio)


def half(studio: Studio) -> None:
    """What models in float16 should come near to, drawn in float32; euler, which is calm about rounding."""
    for steps, scale in ((4, 5.0), (7, 2.0)):
        ask = {**SMALL, "num_inference_steps": steps, "guidance_scale": scale}
        for model in ("sd15-fp16-overflow", "sd15-fp16"):
            source = model.removesuffix("-fp16")
            title, said = f"{model}-{steps}", {"model": model, "allowed": [4, 0.5]}
            studio.draw(title, StableDiffusionPipeline, source, **ask, scheduler="euler", said=said)


def schedulers(studio: Studio) -> None:
    """Every kind of scheduler that the pipeline runs, on a model that came with another one."""
    kind = StableDiffusionPipeline
    spread = {
        "euler": ("karras", "exponential", "beta", "sgm_uniform"),
        "dpmpp_2m": ("karras", "exponential", "beta", "lu", "sgm_uniform"),
        "dpmpp_2m_sde": ("karras", "exponential"),
        "dpmpp_2s": ("karras",),
        "dpmpp_sde": ("karras", "exponential"),
        "heun": ("karras", "beta"),
        "dpm2": ("karras", "exponential"),
        "dpm2_a": ("karras",),
        "lms": ("karras", "exponential"),
        "unipc": ("karras", "beta"),
        "deis": ("karras", "exponential"),
    }
    for name in SCHEDULERS:
        for schedule in ("", *spread.get(name, ())):
            more = studio.calm("sd15", name) | ({"eta": 0.0} if name == "tcd" else {})
            if name == "dpmpp_sde":
                more["scheduler_overrides"] = {"noise_sampler_seed": 7}
            title = f"{name}_{schedule}" if schedule else name
            studio.draw(title, kind, "sd15", **SMALL, scheduler=name, sigma_schedule=schedule, **more)
    for name, eta in (("ddim", 0.5), ("ddim", 1.0), ("tcd", 0.3), ("tcd", 1.0)):
        more = studio.calm("sd15", name)
        studio.draw(f"{name}-eta-{eta}", kind, "sd15", **SMALL, **more, scheduler=name, eta=eta)
    for name in ("ddim", "euler", "euler_a", "heun", "dpm2_a", "dpmpp_2m", "dpmpp_2m_sde", "unipc", "ddpm", "lcm"):
        wide = {**SMALL, "width": 48, "guidance_scale": 1.0, "seeds": [11, 12]}
        studio.draw(f"sd21-{name}", kind, "sd21", **wide, scheduler=name)
    ten = {**SMALL, "num_inference_steps": 10}
    for name in ("dpmpp_2m", "euler"):
        studio.draw(
            f"{name}-ays",
            kind,
            "sd15",
            **ten,
            scheduler=name,
            said={"sigma_schedule": "ays"},
            given={"timesteps": AysSchedules["StableDiffusionTimesteps"], "num_inference_steps": None},
        )
