"""What the families of reference pictures share. Not run by itself; pipelines.py is the program.

A family is a file cases_NAME.json and a folder NAME with its pictures. The file is one object: `header` says what made
it, `cases` has one object a line. A case says everything in diffusers' names and needs no tokenizer:

  name, file(s)        what it is called; one PNG per seed, under the golden folder
  model                folder under tests/models; `overlay` holds files to put in place of the folder's, as JSON:
                       {"scheduler/scheduler_config.json": {...}}
  pipeline             diffusers' class
  scheduler            canonical name, "" for the model's own; `sigma_schedule` likewise; `scheduler_class` and
                       `scheduler_overrides` say what diffusers was told: class.from_config(own, **overrides);
                       `noise_sampler_seed` there is the seed of the case
  prompt_ids           windows of 77 ids for text_encoder (for a refiner: none); `prompt_ids_2` for text_encoder_2;
                       `negative_prompt_ids` and `negative_prompt_ids_2`: of the negative prompt, or of "" where
                       `negative_prompt` is null (then an SDXL base takes zeros, force_zeros_for_empty_prompt)
  embeddings           textual inversion files in the order in which they were loaded, with the ids of their vectors
  image, mask_image    PNG files under the golden folder, of the size of the picture (a multiple of 16: an exported
                       UNet that halves latents once takes only even sizes)
  latents              where latents are asked for instead of pictures (`output_type`): what comes out, per seed the
                       values of [channels, height, width]; not the argument of that name
  image_latents        where latents are started from: the same
  allowed              worst and mean difference in levels, where more than rounding is to be expected
  everything else      the argument of that name of the pipeline's call. `clip_skip` works on the positive prompt only:
                       that is what the pipelines do

Arguments that are absent have diffusers' default value.
"""

import inspect
import json
import shutil
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSDEScheduler,
    DPMSolverSinglestepScheduler,
    EDMEulerScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2AncestralDiscreteScheduler,
    KDPM2DiscreteScheduler,
    LCMScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    TCDScheduler,
    UniPCMultistepScheduler,
)
from PIL import Image

SCHEDULERS = {
    "ddim": (DDIMScheduler, {}),
    "ddpm": (DDPMScheduler, {}),
    "pndm": (PNDMScheduler, {}),
    "lms": (LMSDiscreteScheduler, {}),
    "euler": (EulerDiscreteScheduler, {}),
    "euler_a": (EulerAncestralDiscreteScheduler, {}),
    "heun": (HeunDiscreteScheduler, {}),
    "dpm2": (KDPM2DiscreteScheduler, {}),
    "dpm2_a": (KDPM2AncestralDiscreteScheduler, {}),
    "dpmpp_2m": (DPMSolverMultistepScheduler, {}),
    "dpmpp_2m_sde": (DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    "dpmpp_3m": (DPMSolverMultistepScheduler, {"solver_order": 3}),
    "dpmpp_3m_sde": (DPMSolverMultistepScheduler, {"solver_order": 3, "algorithm_type": "sde-dpmsolver++"}),
    "dpm_2m": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver"}),
    "dpm_2m_sde": (DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver"}),
    "dpmpp_2s": (DPMSolverSinglestepScheduler, {}),
    "dpmpp_sde": (DPMSolverSDEScheduler, {}),
    "deis": (DEISMultistepScheduler, {}),
    "unipc": (UniPCMultistepScheduler, {}),
    "lcm": (LCMScheduler, {}),
    "tcd": (TCDScheduler, {}),
    "edm_euler": (EDMEulerScheduler, {}),
}
SCHEDULES = {
    "": {},
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
    "beta": {"use_beta_sigmas": True},
    "lu": {"use_lu_lambdas": True},
    "sgm_uniform": {"timestep_spacing": "trailing"},
}
RED = "a red circle on a blue background"
# Not arguments of the call: how the pipeline is prepared, and how the case is written.
PREPARED = ("scheduler", "sigma_schedule", "scheduler_overrides", "overlay", "seeds", "negative_prompt_ids")


def picture(width: int, height: int) -> Image.Image:
    """A picture to start from: slopes of colour with a light disc, every pixel another value."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    slopes = np.stack([255 * x / width, 255 * y / height, 255 * (1 - x / width) * (1 - y / height)], axis=-1)
    disc = (x - width / 3) ** 2 + (y - height / 2.5) ** 2 < (min(width, height) / 4) ** 2
    slopes[disc] = 255 - slopes[disc] / 2
    return Image.fromarray(slopes.round().astype(np.uint8), "RGB")


def mask(width: int, height: int) -> Image.Image:
    """A mask with greys at the threshold and with edges that are not on the latents' raster."""
    grey = np.zeros((height, width), dtype=np.uint8)
    grey[: height // 2 + 3, width // 2 - 5 :] = 255
    grey[height - 10 :, : width // 2] = 128
    grey[height - 10 :, width // 2 :] = 127
    grey[: height // 2 : 8, ::8] = 255
    return Image.fromarray(grey, "L")


def ids(tokenizer, text: str) -> list[int]:
    """The window of one text."""
    return tokenizer(text, padding="max_length", max_length=77, truncation=True).input_ids


@dataclass
class Studio:
    """Draws one family and writes its files."""

    torch: Path
    models: Path
    out: Path
    family: str
    # Relative change of all weights: the program's --shake.
    shake: float = 0.0
    cases: list[dict] = field(default_factory=list)
    loaded: dict = field(default_factory=dict)

    def pipe(self, kind: type, model: str, fresh: bool = False):
        """A pipeline of class `kind` over the weights of `model`, with the model's own scheduler."""
        if fresh or (kind, model) not in self.loaded:
            more = {"add_watermarker": False} if "XL" in kind.__name__ else {}
            pipe = kind.from_pretrained(self.torch / model, torch_dtype=torch.float32, **more)
            pipe.set_progress_bar_config(disable=True)
            pipe.own = pipe.scheduler
            if self.shake:
                self.shaken(pipe)
            if fresh:
                return pipe
            self.loaded[kind, model] = pipe
        return self.loaded[kind, model]

    def shaken(self, pipe) -> None:
        """Changes all weights a little, as another library's arithmetic would."""
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for part in (pipe.unet, pipe.vae, pipe.text_encoder, getattr(pipe, "text_encoder_2", None)):
                for parameter in part.parameters() if part is not None else ():
                    parameter *= 1 + self.shake * torch.randn(parameter.shape, generator=generator)

    def file(self, kind: str, image: Image.Image) -> str:
        """Keeps a picture or mask to start from."""
        name = f"inputs/{kind}-{image.width}x{image.height}.png"
        (self.out / "inputs").mkdir(parents=True, exist_ok=True)
        image.save(self.out / name, optimize=True)
        return name

    def calm(self, model: str, name: str) -> dict:
        """A model's scheduler configuration with what `name` needs and would take another default for.

        Clipping what a random network predicts makes a chaos of any rounding; the older solvers cannot end at zero noise.
        """
        needs = {name: {"clip_sample": False} for name in ("ddim", "ddpm", "lcm", "tcd")}
        needs |= {name: {"final_sigmas_type": "sigma_min"} for name in ("dpm_2m", "dpm_2m_sde")}
        if name not in needs:
            return {}
        file = "scheduler/scheduler_config.json"
        return {"overlay": {file: json.loads((self.models / model / file).read_text()) | needs[name]}}

    def schedule(self, pipe, ask: dict) -> dict:
        """Gives the pipeline the scheduler that is asked for; says what it is."""
        own = pipe.own.config
        content = ask.get("overlay", {}).get("scheduler/scheduler_config.json")
        if content:
            kinds = {kind.__name__: kind for kind, _ in SCHEDULERS.values()}
            pipe.scheduler = kinds[content["_class_name"]].from_config(content)
            own = pipe.scheduler.config
        name, spread = ask.get("scheduler", ""), ask.get("sigma_schedule", "")
        overrides = SCHEDULES.get(spread, {}) | ask.get("scheduler_overrides", {})
        if name:
            kind, more = SCHEDULERS[name]
            overrides = more | overrides
            pipe.scheduler = kind.from_config(own, **overrides)
        elif not content:
            pipe.scheduler = type(pipe.own).from_config(own)
        said = {"scheduler": name, "sigma_schedule": spread, "scheduler_class": type(pipe.scheduler).__name__}
        return said | {"scheduler_overrides": overrides} if name else said

    def windows(self, pipe, ask: dict) -> dict:
        """The ids of both prompts."""
        said = {}
        for field_name in ("prompt", "negative_prompt"):
            if field_name not in ask:
                continue
            text = ask[field_name] or ""
            for suffix in ("", "_2"):
                tokenizer = getattr(pipe, f"tokenizer{suffix}", None)
                if tokenizer is None:
                    continue
                own = ask.get(f"{field_name}_2") or text if suffix else text
                said[f"{field_name}_ids{suffix}"] = [ids(tokenizer, pipe.maybe_convert_prompt(own, tokenizer))]
        return said

    def draw(self, name: str, kind: type, model: str, pipe=None, said=None, given=None, **ask):
        """Draws one case. `given` goes to the call and not into the case, `said` into the case and not to the call."""
        pipe = pipe or self.pipe(kind, model)
        ask = {"negative_prompt": None, "seeds": [7]} | ask
        case = {"name": name, "model": model, "pipeline": kind.__name__} | self.schedule(pipe, ask)
        case |= self.windows(pipe, ask) | {key: value for key, value in ask.items() if key not in case} | (said or {})
        call = {key: value for key, value in ask.items() if key not in PREPARED} | (given or {})
        for key, make in (("image", picture), ("mask_image", mask)):
            if ask.get(key) is True:
                call[key] = make(ask["width"], ask["height"])
                case[key] = self.file({"image": "picture", "mask_image": "mask"}[key], call[key])
        accepted = inspect.signature(pipe.__call__).parameters
        call = {key: value for key, value in call.items() if key in accepted}
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in ask["seeds"]]
        if len(generators) > 1:
            call["num_images_per_prompt"] = len(generators)
        if "mask_image" in call and len(generators) > 1:
            # With several pictures diffusers' inpainting samples the one picture it starts from with the first generator
            # alone, so that a seed would mean another picture in company: each is drawn alone here.
            del call["num_images_per_prompt"]
            drawn = [pipe(**call, generator=generator).images[0] for generator in generators]
        else:
            drawn = pipe(**call, generator=generators if len(generators) > 1 else generators[0]).images
        if call.get("output_type") == "latent":
            case["latents_shape"] = list(drawn.shape[1:])
            case["latents"] = [[float(f"{value:.9g}") for value in one.flatten().tolist()] for one in drawn]
        else:
            self.save(case, drawn)
        self.cases.append(case)
        return drawn

    def save(self, case: dict, drawn: list[Image.Image]) -> None:
        """Writes the pictures of a case."""
        case["files"] = []
        (self.out / self.family).mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(drawn):
            more = f"-{number}" if len(drawn) > 1 else ""
            case["files"].append(f"{self.family}/{case['name']}{more}.png")
            image.save(self.out / case["files"][-1], optimize=True)

    def write(self) -> None:
        """Writes the family's list."""
        names = [case["name"] for case in self.cases]
        assert len(names) == len(set(names)), "two cases have one name"
        libraries = ("torch", "diffusers", "transformers", "numpy", "scipy", "torchsde", "pillow")
        header = {
            "made_by": f"tools/reference/pipelines.py --only {self.family}",
            "format": "tools/reference/pipelines_base.py",
            "versions": {name: version(name) for name in libraries},
        }
        with open(self.out / f"cases_{self.family}.json", "w", encoding="utf-8") as out:
            out.write('{"header": ' + json.dumps(header) + ',\n"cases": [\n')
            out.write(",\n".join(json.dumps(case) for case in self.cases) + "\n]}\n")

    def clear(self) -> None:
        """Takes away what an earlier run drew of this family."""
        shutil.rmtree(self.out / self.family, ignore_errors=True)
