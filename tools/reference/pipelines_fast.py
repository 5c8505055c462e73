"""Family `fast`: models of few steps, latent consistency and turbo. Run by pipelines.py."""

from diffusers import (
    LatentConsistencyModelImg2ImgPipeline,
    LatentConsistencyModelPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
)
from pipelines_base import RED, Studio

SMALL = dict(prompt=RED, width=32, height=32)
COMMON = dict(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000, steps_offset=1
)


def overlay(kind: str, **more) -> dict:
    """A scheduler configuration in the place of the folder's."""
    content = {"_class_name": kind, "_diffusers_version": "0.39.0", **COMMON, "timestep_spacing": "trailing"}
    return {"overlay": {"scheduler/scheduler_config.json": content | more}}


def fast(studio: Studio) -> None:
    """The whole family."""
    consistency(studio)
    euler = overlay("EulerDiscreteScheduler", prediction_type="epsilon")
    ancestral = overlay("EulerAncestralDiscreteScheduler", prediction_type="epsilon")
    for steps in (1, 2, 4):
        ask = dict(SMALL, num_inference_steps=steps, guidance_scale=0.0)
        studio.draw(f"sd-turbo-{steps}", StableDiffusionPipeline, "sd21", **ask, **euler)
        studio.draw(f"sdxl-turbo-{steps}", StableDiffusionXLPipeline, "sdxl", **ask, **ancestral)
        studio.draw(f"sdxl-lightning-{steps}", StableDiffusionXLPipeline, "sdxl", **ask, **euler)
    ask = dict(SMALL, num_inference_steps=4, guidance_scale=0.0, seeds=[1, 2, 3])
    studio.draw("sd-turbo-seeds", StableDiffusionPipeline, "sd21", **ask, **euler)
    studio.draw("sdxl-turbo-seeds", StableDiffusionXLPipeline, "sdxl", **ask, **ancestral)
    for steps, strength in ((2, 0.5), (4, 0.75), (1, 1.0)):
        ask = dict(SMALL, num_inference_steps=steps, guidance_scale=0.0, image=True, strength=strength)
        name = f"turbo-img2img-{steps}-{strength}"
        studio.draw(f"sd-{name}", StableDiffusionImg2ImgPipeline, "sd21", **ask, **euler)
        studio.draw(f"sdxl-{name}", StableDiffusionXLImg2ImgPipeline, "sdxl", **ask, **ancestral)
    # A consistency or distilled adapter that was merged into an ordinary model: scheduler by name, little guidance.
    for name, scale in (("lcm", 1.0), ("lcm", 1.5), ("tcd", 1.0)):
        ask = dict(SMALL, num_inference_steps=4, guidance_scale=scale, scheduler=name)
        eta = {"eta": 0.3} if name == "tcd" else {}
        studio.draw(f"sd15-{name}-{scale}", StableDiffusionPipeline, "sd15", **ask, **eta, **studio.calm("sd15", name))
        studio.draw(f"sdxl-{name}-{scale}", StableDiffusionXLPipeline, "sdxl", **ask, **eta, **studio.calm("sdxl", name))


def consistency(studio: Studio) -> None:
    """Models that take the guidance scale as an input."""
    kind = LatentConsistencyModelPipeline
    for steps, scale in ((4, 8.5), (1, 8.5), (2, 8.5), (8, 8.5), (4, 1.0), (4, 3.0), (4, 0.0)):
        studio.draw(f"lcm-{steps}-{scale}", kind, "lcm", **SMALL, num_inference_steps=steps, guidance_scale=scale)
    ask = dict(SMALL, width=48, num_inference_steps=4, guidance_scale=8.5, seeds=[3, 4_294_967_300])
    studio.draw("lcm-seeds", kind, "lcm", **ask)
    ask = dict(SMALL, num_inference_steps=4, guidance_scale=8.5)
    studio.draw("lcm-original-steps", kind, "lcm", **ask, original_inference_steps=100)
    kind = LatentConsistencyModelImg2ImgPipeline
    for strength in (0.3, 0.5, 0.8, 1.0):
        studio.draw(f"lcm-img2img-{strength}", kind, "lcm", **ask, image=True, strength=strength)
    # The ordinary pipelines run such a model too, and never with two rows.
    more = dict(scheduler="euler", negative_prompt="a square")
    studio.draw("lcm-euler", StableDiffusionPipeline, "lcm", **ask, **more)
    more = dict(image=True, mask_image=True, strength=0.75)
    studio.draw("lcm-inpaint", StableDiffusionInpaintPipeline, "lcm", **ask, **more)
    studio.draw("lcm-img2img-seeds", kind, "lcm", **ask, seeds=[5, 6], image=True, strength=0.6)
