"""Family `image`: pictures to pictures and inpainting with models of the SD 1 and SD 2 kind. Run by pipelines.py."""

from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline
from pipelines_base import RED, Studio

SMALL = dict(prompt=RED, negative_prompt="a square", width=32, height=32, num_inference_steps=8, guidance_scale=5.0)


def image(studio: Studio) -> None:
    """Every strength, and the schedulers that differ in how they begin in the middle."""
    kind = StableDiffusionImg2ImgPipeline
    for model in ("sd15", "sd21"):
        for strength in (0.3, 0.75, 1.0):
            studio.draw(f"{model}-img2img-{strength}", kind, model, **SMALL, image=True, strength=strength)
    names = ("euler", "euler_a", "ddim", "ddpm", "heun", "dpm2", "dpm2_a", "lms", "dpmpp_2m", "dpmpp_3m")
    for name in (*names, "dpmpp_2m_sde", "dpmpp_2s", "dpmpp_sde", "deis", "unipc", "lcm", "tcd"):
        more = studio.calm("sd15", name)
        if name == "dpmpp_sde":
            more = {"scheduler_overrides": {"noise_sampler_seed": 7}}
        more |= {"eta": 0.0} if name == "tcd" else {}
        # A third-order solver needs enough steps to reach its order.
        small = SMALL | ({"num_inference_steps": 14} if name == "dpmpp_3m" else {})
        studio.draw(f"sd15-img2img-{name}", kind, "sd15", **small, **more, image=True, strength=0.6, scheduler=name)
    karras = dict(scheduler="dpmpp_2m", sigma_schedule="karras")
    studio.draw("sd15-img2img-karras", kind, "sd15", **SMALL, **karras, image=True, strength=0.5)
    wide = {**SMALL, "width": 48, "seeds": [5, 6]}
    studio.draw("sd15-img2img-seeds", kind, "sd15", **wide, image=True, strength=0.7, scheduler="euler_a")
    plain = {**SMALL, "guidance_scale": 1.0}
    studio.draw("sd15-img2img-plain", kind, "sd15", **plain, image=True, strength=0.5, scheduler="euler")
    # So weak that one step is left of five.
    weak = {**SMALL, "num_inference_steps": 5}
    studio.draw("sd15-img2img-weak", kind, "sd15", **weak, image=True, strength=0.2, scheduler="euler")
    inpainting(studio)


def inpainting(studio: Studio) -> None:
    """With a model for it (9 channels), and with any other, whose known part is put back after each step."""
    kind = StableDiffusionInpaintPipeline
    both = dict(image=True, mask_image=True)
    for model in ("sd15", "sd15-inpaint"):
        for strength in (0.3, 0.75, 1.0):
            studio.draw(f"{model}-inpaint-{strength}", kind, model, **SMALL, **both, strength=strength)
        for name in ("euler", "euler_a", "ddim", "heun", "dpmpp_2m", "lms", "unipc"):
            more = studio.calm(model, name)
            title = f"{model}-inpaint-{name}"
            studio.draw(title, kind, model, **SMALL, **both, **more, strength=0.8, scheduler=name)
        wide = {**SMALL, "width": 48, "height": 32, "seeds": [5, 6]}
        studio.draw(f"{model}-inpaint-seeds", kind, model, **wide, **both, strength=0.9, scheduler="euler_a")
        plain = {**SMALL, "guidance_scale": 1.0}
        studio.draw(f"{model}-inpaint-plain", kind, model, **plain, **both, strength=1.0, scheduler="euler")
    studio.draw("sd21-inpaint-0.75", kind, "sd21", **SMALL, **both, strength=0.75)
