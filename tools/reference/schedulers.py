#!/usr/bin/env python3
"""Golden trajectories for crates/diffusion: diffusers' schedulers, driven as StableDiffusionPipeline drives them.

Instead of a UNet a fixed elementwise function stands in (`model` below; the Rust test has the same one), so that a
difference can only come from the scheduler, the noise or the guidance. Run with the versions in requirements.txt:

    python tools/reference/schedulers.py --out crates/diffusion/tests/golden/schedulers.json
"""

import argparse
import json
import logging
import math
import warnings

import diffusers
import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
)
from diffusers.utils.torch_utils import randn_tensor

SHAPE = (4, 3, 3)  # 36 values: not a multiple of 16, so torch's tail rule is in every trajectory
KINDS = {
    "pndm": (PNDMScheduler, {}),
    "ddim": (DDIMScheduler, {}),
    "euler": (EulerDiscreteScheduler, {"use_karras_sigmas": False}),
    "euler_karras": (EulerDiscreteScheduler, {"use_karras_sigmas": True}),
    "euler_a": (EulerAncestralDiscreteScheduler, {}),
    "dpmpp_2m": (DPMSolverMultistepScheduler, {"use_karras_sigmas": False}),
    "dpmpp_2m_karras": (DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
}

SD15 = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
SD21 = SD15 | {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"}
BARE = {"_class_name": "DDIMScheduler"}


def model(x: np.ndarray, t: float, row: int) -> np.ndarray:
    """The stand-in UNet, in float64, rounded to float32. Row 0 is unconditional, row 1 (or the only one) conditional."""
    x = x.astype(np.float64)
    index = np.arange(x.size, dtype=np.float64).reshape(x.shape)
    return (0.8 * np.sin(0.9 * x + 0.002 * t + 0.5 * row + 0.1 * index)).astype(np.float32)


def cls_config(name: str, **keys) -> dict:
    return SD15 | {"_class_name": name} | keys


def configs() -> dict:
    euler = "EulerDiscreteScheduler"
    dpm = "DPMSolverMultistepScheduler"
    out = {"sd15": SD15, "sd21": SD21, "bare": BARE, "sd15_bare": {"_class_name": "PNDMScheduler", "skip_prk_steps": True}}
    for spacing in ("linspace", "leading", "trailing"):
        for prediction in ("epsilon", "v_prediction", "sample"):
            out[f"{spacing}_{prediction}"] = SD15 | {"timestep_spacing": spacing, "prediction_type": prediction}
    out["prk"] = SD15 | {"skip_prk_steps": False}
    out["prk_v_trailing"] = SD15 | {
        "skip_prk_steps": False, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}
    out["alpha_one"] = SD15 | {"set_alpha_to_one": True}
    out["cosine"] = SD15 | {"beta_schedule": "squaredcos_cap_v2"}
    out["linear"] = SD15 | {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02}
    out["trained"] = SD15 | {
        "num_train_timesteps": 50, "trained_betas": [round(0.001 + 0.003 * math.sqrt(i), 6) for i in range(50)]}
    out["zero_snr"] = SD21 | {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    out["ddim_threshold"] = SD21 | {"thresholding": True, "sample_max_value": 1.5, "dynamic_thresholding_ratio": 0.9}
    out["ddim_own_clip"] = cls_config("DDIMScheduler", clip_sample=True)
    out["no_clip_key"] = {k: v for k, v in SD15.items() if k != "clip_sample"}
    out["clip_range"] = {k: v for k, v in SD15.items() if k != "clip_sample"} | {"clip_sample_range": 1.7}
    out["no_offset"] = {k: v for k, v in SD15.items() if k != "steps_offset"} | {"timestep_spacing": "leading"}
    out["offset_zero"] = SD15 | {"timestep_spacing": "leading", "steps_offset": 0}
    for name, keys in {
        "log_linear": {"interpolation_type": "log_linear"},
        "log_linear_karras": {"interpolation_type": "log_linear", "use_karras_sigmas": True},
        "continuous": {"timestep_type": "continuous", "prediction_type": "v_prediction"},
        "karras_bounds": {"use_karras_sigmas": True, "sigma_min": 0.05, "sigma_max": 11.0},
        "exponential": {"use_exponential_sigmas": True},
        "sigma_min": {"final_sigmas_type": "sigma_min"},
        "leading": {"timestep_spacing": "leading"},
        "leading_karras": {"timestep_spacing": "leading", "use_karras_sigmas": True},
    }.items():
        out[f"euler_{name}"] = cls_config(euler, **keys)
    for algorithm in ("dpmsolver++", "sde-dpmsolver++", "dpmsolver", "sde-dpmsolver"):
        for solver in ("midpoint", "heun"):
            for order in (1, 2, 3):
                if algorithm == "sde-dpmsolver" and order == 3:
                    continue
                last = "zero" if algorithm.endswith("++") else "sigma_min"
                out[f"dpm_{algorithm}_{solver}_{order}"] = cls_config(
                    dpm, algorithm_type=algorithm, solver_type=solver, solver_order=order, final_sigmas_type=last)
    for name, keys in {
        "sigma_min": {"final_sigmas_type": "sigma_min"},
        "euler_at_final": {"final_sigmas_type": "sigma_min", "euler_at_final": True},
        "no_lower": {"final_sigmas_type": "sigma_min", "lower_order_final": False, "solver_order": 3},
        "lu": {"use_lu_lambdas": True},
        "exponential": {"use_exponential_sigmas": True},
        "karras": {"use_karras_sigmas": True},
        "karras_cosine": {"use_karras_sigmas": True, "beta_schedule": "squaredcos_cap_v2"},
        "clipped_lambda": {"lambda_min_clipped": -3.1, "beta_schedule": "squaredcos_cap_v2"},
        "clipped_trailing": {
            "lambda_min_clipped": -3.1, "beta_schedule": "squaredcos_cap_v2", "timestep_spacing": "trailing"},
        "infinite_lambda": {"lambda_min_clipped": -math.inf, "timestep_spacing": "leading"},
        "threshold": {"thresholding": True, "sample_max_value": 1.5, "dynamic_thresholding_ratio": 0.9},
        "threshold_noise": {
            "thresholding": True, "sample_max_value": 1.5, "algorithm_type": "dpmsolver",
            "final_sigmas_type": "sigma_min"},
        "noise_v": {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min", "prediction_type": "v_prediction"},
        "noise_sample": {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min", "prediction_type": "sample"},
        "deis_words": {"algorithm_type": "deis", "solver_type": "bh2", "final_sigmas_type": "sigma_min"},
        "zero_snr": {
            "rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"},
    }.items():
        out[f"dpm_{name}"] = cls_config(dpm, **keys)
    return out


def cases() -> list[dict]:
    out = []

    def add(config, kind, steps, seed=42, guidance=2.5, eta=0.0):
        out.append({"config": config, "kind": kind, "steps": steps, "seed": seed, "guidance": guidance, "eta": eta})

    for kind in KINDS:
        for steps in (1, 2, 3, 7, 20, 30, 50, 100):
            add("sd15", kind, steps)
        for spacing in ("linspace", "leading", "trailing"):
            for prediction in ("epsilon", "v_prediction", "sample"):
                if prediction == "sample" and kind in ("pndm", "euler_a"):
                    continue  # diffusers raises
                add(f"{spacing}_{prediction}", kind, 7)
                if prediction != "sample":
                    add(f"{spacing}_{prediction}", kind, 20, seed=7)
        for config in ("cosine", "linear", "trained", "sd21", "no_offset", "offset_zero", "no_clip_key"):
            add(config, kind, 7, guidance=7.5)
        add("sd15", kind, 20, seed=2**32 + 5, guidance=1.0)
        add("sd15", kind, 7, seed=2**64 - 1, guidance=7.5)
        if kind not in ("pndm",):
            add("zero_snr", kind, 7)
        add("bare" if kind != "pndm" else "sd15_bare", kind, 7)
    for steps in (4, 7, 20):
        add("prk", "pndm", steps)
        add("prk_v_trailing", "pndm", steps)
    add("alpha_one", "pndm", 7)
    add("alpha_one", "ddim", 7)
    add("clip_range", "ddim", 7)
    add("ddim_threshold", "ddim", 7)
    add("ddim_own_clip", "ddim", 7)
    add("sd15_bare", "ddim", 7)
    for eta in (0.3, 1.0):
        add("sd15", "ddim", 7, eta=eta)
        add("sd21", "ddim", 7, eta=eta)
        add("sd15", "euler", 2, eta=eta)
    for config in configs():
        if config.startswith("euler_"):
            add(config, None, 7)
            add(config, None, 20)
        if config.startswith("dpm_"):
            add(config, None, 7)
            add(config, None, 20)
    add("dpm_karras", "dpmpp_2m", 7)  # a name without _karras means without, whatever the model says
    add("euler_leading_karras", "euler", 7)
    add("euler_leading_karras", "dpmpp_2m", 7)
    add("euler_leading", "ddim", 7)
    return out


def own_kind(config: dict) -> str:
    base = next(name for name, (cls, _) in KINDS.items() if cls.__name__ == config["_class_name"])
    return base + ("_karras" if config.get("use_karras_sigmas") and f"{base}_karras" in KINDS else "")


def scheduler_for(config: dict, kind: str | None):
    """The scheduler a user of diffusers would have: the pipeline's own, or another class from its configuration."""
    own = own_kind(config)
    pipe = StableDiffusionPipeline(
        vae=None, text_encoder=None, tokenizer=None, unet=None, safety_checker=None, feature_extractor=None,
        requires_safety_checker=False, scheduler=KINDS[own][0].from_config(config))
    if kind is None or kind == own:
        return pipe.scheduler
    cls, keys = KINDS[kind]
    return cls.from_config(pipe.scheduler.config, **keys)


def run(case: dict, config: dict) -> dict | None:
    scheduler = scheduler_for(config, case["kind"])
    scheduler.set_timesteps(case["steps"])
    generator = torch.Generator("cpu").manual_seed(case["seed"])
    latents = randn_tensor((1, *SHAPE), generator=generator, dtype=torch.float32) * scheduler.init_noise_sigma
    extra = {}
    parameters = scheduler.step.__code__.co_varnames[: scheduler.step.__code__.co_argcount]
    if "eta" in parameters:
        extra["eta"] = case["eta"]
    if "generator" in parameters:
        extra["generator"] = generator
    timesteps = scheduler.timesteps
    if len(timesteps) > 1 and timesteps[0] == timesteps[1]:
        return None  # diffusers then begins at the second and raises on the last
    keep = {1, 2, 4, len(timesteps) // 2, len(timesteps)}
    kept = {0: latents}
    guided = case["guidance"] > 1
    for call, t in enumerate(timesteps, start=1):
        rows = torch.cat([latents] * 2) if guided else latents
        rows = scheduler.scale_model_input(rows, t).numpy()
        outputs = [model(row, float(t), i if guided else 1) for i, row in enumerate(rows)]
        output = torch.from_numpy(np.stack(outputs))
        if guided:
            uncond, cond = output.chunk(2)
            output = uncond + case["guidance"] * (cond - uncond)
        latents = scheduler.step(output, t, latents, **extra, return_dict=False)[0]
        if call in keep:
            kept[call] = latents
    if not all(torch.isfinite(x).all() for x in kept.values()):
        raise ValueError(f"not finite: {case}")

    def numbers(values, digits):
        return [round(float(x), digits) for x in np.asarray(values).flatten()]

    sigmas = getattr(scheduler, "sigmas", [])
    return case | {
        "timesteps": numbers(timesteps, 3),
        "sigmas": numbers(sigmas, 6),
        "latents": [[call, numbers(x, 6)] for call, x in kept.items()],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="the JSON file to write")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    known = configs()
    done = [run(case, known[case["config"]]) for case in cases()]
    done = [case for case in done if case is not None]
    header = {
        "made_by": "tools/reference/schedulers.py",
        "versions": {"diffusers": diffusers.__version__, "torch": torch.__version__, "numpy": np.__version__},
        "shape": SHAPE,
    }
    with open(args.out, "w", encoding="utf-8") as file:
        file.write('{"header": ' + json.dumps(header) + ',\n"configs": {\n')
        # As Python writes it: a saved configuration may hold a bare -Infinity.
        file.write(",\n".join(f"{json.dumps(k)}: {json.dumps(json.dumps(v))}" for k, v in known.items()))
        file.write('\n},\n"cases": [\n')
        file.write(",\n".join(json.dumps(case, separators=(",", ":")) for case in done))
        file.write("\n]}\n")
    print(f"{len(done)} trajectories over {len(known)} configurations")


if __name__ == "__main__":
    main()
