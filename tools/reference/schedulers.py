#!/usr/bin/env python3
"""Golden trajectories of the first family of schedulers for crates/diffusion: DDIM, DDPM, PNDM, LCM, TCD, Euler, Euler ancestral,
EDM Euler, flow matching Euler and DPM-Solver multistep, driven as diffusers' pipelines drive them, at float32 on CPU.

The stand-in for the model is an elementwise function of latents and timestep, so that a trajectory is a test of the scheduler alone.
Trajectories begin as the pipelines begin them: with noise (StableDiffusionPipeline), with a noised picture (`strength`:
StableDiffusionImg2ImgPipeline, LatentConsistencyModelImg2ImgPipeline for LCM, StableDiffusion3Img2ImgPipeline for flows), or with given latents (`start`:
StableDiffusionXLImg2ImgPipeline); `end` cuts the end off. Schedules that no class has as a key are the formulas of AUTOMATIC1111 and
ComfyUI (simple, kl_optimal) and of the Align Your Steps authors, given as `sigmas=` or `timesteps=` where the class takes them and
else put in place of its own. One file is written for each family. Left out are three trajectories that float32
does not determine: there diffusers differs from itself by more than the tests' tolerance when its tables are float64 (dpmpp_3m_sde
in 100 steps by 2.0e-3, dpm_2m_sde from zero terminal SNR by 2.7e-4, PNDM's Runge-Kutta steps from the middle of the noise by 2.7e-3).
Run with the versions in requirements.txt:

    python tools/reference/schedulers.py --out crates/diffusion/tests/golden
"""

import argparse
import inspect
import json
import logging
import math
import os
import warnings

import diffusers
import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils.torch_utils import randn_tensor

SHAPE = (4, 3, 3)  # of the trajectories in other scripts
SMALL = (2, 3, 3)  # 18 values: more than 16 and not a multiple, so torch's tail rule is in every trajectory
KINDS = {
    "ddim": ("DDIMScheduler", {}),
    "ddpm": ("DDPMScheduler", {}),
    "pndm": ("PNDMScheduler", {}),
    "lcm": ("LCMScheduler", {}),
    "tcd": ("TCDScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "edm_euler": ("EDMEulerScheduler", {}),
    "flow_euler": ("FlowMatchEulerDiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "dpmpp_2m_sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}),
    "dpmpp_3m": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 3}),
    "dpmpp_3m_sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "solver_order": 3}),
    "dpm_2m": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver", "solver_order": 2, "final_sigmas_type": "sigma_min"}),
    "dpm_2m_sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver", "solver_order": 2, "final_sigmas_type": "sigma_min"}),
    "dpm_3m": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver", "solver_order": 3, "final_sigmas_type": "sigma_min"}),
}
FAMILIES = {
    "alphas": ("ddim", "ddpm", "pndm", "lcm", "tcd"),
    "euler": ("euler", "euler_a", "edm_euler", "flow_euler"),
    "dpm": ("dpmpp_2m", "dpmpp_2m_sde", "dpmpp_3m", "dpmpp_3m_sde", "dpm_2m", "dpm_2m_sde", "dpm_3m"),
}
# Names of schedules and the keys they stand for.
KEYS = {
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
    "beta": {"use_beta_sigmas": True},
    "lu": {"use_lu_lambdas": True},
    "sgm_uniform": {"timestep_spacing": "trailing"},
    "normal": {"timestep_spacing": "linspace"},
    "ddim_uniform": {"timestep_spacing": "leading", "steps_offset": 1},
}
FLAGS = ("karras", "exponential", "beta", "lu")
GIVEN = ("simple", "ays", "ays_xl", "kl_optimal")
SD_KINDS = [kind for kind in KINDS if kind not in ("edm_euler", "flow_euler")]

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
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}


def model(x: np.ndarray, t: float, row: int) -> np.ndarray:
    """The stand-in UNet, in float64, rounded to float32. Row 0 is unconditional, row 1 (or the only one) conditional."""
    x = x.astype(np.float64)
    index = np.arange(x.size, dtype=np.float64).reshape(x.shape)
    return (0.8 * np.sin(0.9 * x + 0.002 * t + 0.5 * row + 0.1 * index)).astype(np.float32)


def picture() -> torch.Tensor:
    """The latents that a picture (or an earlier model) gives."""
    index = np.arange(math.prod(SMALL), dtype=np.float64).reshape(1, *SMALL)
    return torch.from_numpy((0.9 * np.sin(0.37 * index + 0.2)).astype(np.float32))


def split(name: str) -> tuple[str, str | None]:
    for schedule in (*KEYS, *GIVEN):
        if name.endswith("_" + schedule) and name.removesuffix("_" + schedule) in KINDS:
            return name.removesuffix("_" + schedule), schedule
    return name, None


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
    threshold = {"thresholding": True, "sample_max_value": 1.5, "dynamic_thresholding_ratio": 0.9}
    out["threshold"] = SD21 | threshold
    out["no_clip_key"] = {k: v for k, v in SD15.items() if k != "clip_sample"}
    out["clip_range"] = {k: v for k, v in SD15.items() if k != "clip_sample"} | {"clip_sample_range": 1.7}
    out["no_offset"] = {k: v for k, v in SD15.items() if k != "steps_offset"} | {"timestep_spacing": "leading"}
    out["offset_zero"] = SD15 | {"timestep_spacing": "leading", "steps_offset": 0}
    for kind in ("ddim", "ddpm", "lcm", "tcd", "euler_a"):
        out[f"{kind}_own"] = cls_config(KINDS[kind][0])
        out[f"{kind}_own_bare"] = {"_class_name": KINDS[kind][0]}
        out[f"{kind}_own_clip"] = cls_config(KINDS[kind][0], clip_sample=True)
        out[f"{kind}_own_threshold"] = cls_config(KINDS[kind][0], prediction_type="v_prediction", **threshold)
        out[f"{kind}_own_zero"] = cls_config(
            KINDS[kind][0], prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing")
    for variance in ("fixed_small", "fixed_small_log", "fixed_large", None):
        out[f"ddpm_{variance}"] = cls_config("DDPMScheduler", variance_type=variance)
    for betas in ("sigmoid", "laplace"):
        out[f"ddpm_{betas}"] = cls_config("DDPMScheduler", beta_schedule=betas)
    for kind in ("lcm", "tcd"):
        out[f"{kind}_original"] = cls_config(KINDS[kind][0], original_inference_steps=100, timestep_scaling=3.5)
        out[f"{kind}_alpha_one"] = cls_config(KINDS[kind][0], set_alpha_to_one=True)
    for name, keys in {
        "log_linear": {"interpolation_type": "log_linear"},
        "log_linear_karras": {"interpolation_type": "log_linear", "use_karras_sigmas": True},
        "continuous": {"timestep_type": "continuous", "prediction_type": "v_prediction"},
        "continuous_epsilon": {"timestep_type": "continuous"},
        "karras_bounds": {"use_karras_sigmas": True, "sigma_min": 0.05, "sigma_max": 11.0},
        "exponential_bounds": {"use_exponential_sigmas": True, "sigma_min": 0.05, "sigma_max": 11.0},
        "beta_bounds": {"use_beta_sigmas": True, "sigma_min": 0.05, "sigma_max": 11.0},
        "exponential": {"use_exponential_sigmas": True},
        "beta": {"use_beta_sigmas": True},
        "sigma_min": {"final_sigmas_type": "sigma_min"},
        "leading": {"timestep_spacing": "leading"},
        "leading_karras": {"timestep_spacing": "leading", "use_karras_sigmas": True},
    }.items():
        out[f"euler_{name}"] = cls_config(euler, **keys)
    edm = {"_class_name": "EDMEulerScheduler"}
    for name, keys in {
        "plain": {},
        "v": {"prediction_type": "v_prediction", "sigma_max": 30.0, "sigma_min": 0.01},
        "exponential": {"sigma_schedule": "exponential"},
        "data": {"sigma_data": 1.0, "rho": 3.0, "final_sigmas_type": "sigma_min"},
    }.items():
        out[f"edm_{name}"] = edm | keys
    for name, keys in {
        "plain": {},
        "one": {"shift": 1.0},
        "karras": {"use_karras_sigmas": True},
        "exponential": {"use_exponential_sigmas": True},
        "beta": {"use_beta_sigmas": True},
        "invert": {"invert_sigmas": True},
        "terminal": {"shift_terminal": 0.1},
        "stochastic": {"stochastic_sampling": True},
        "dynamic": {"use_dynamic_shifting": True},
        "dynamic_linear": {"use_dynamic_shifting": True, "time_shift_type": "linear"},
        "dynamic_terminal": {"use_dynamic_shifting": True, "shift_terminal": 0.02, "use_beta_sigmas": True},
    }.items():
        out[f"flow_{name}"] = FLOW | keys
    for algorithm in ("dpmsolver++", "sde-dpmsolver++", "dpmsolver", "sde-dpmsolver"):
        for solver in ("midpoint", "heun"):
            for order in (1, 2, 3):
                if algorithm == "sde-dpmsolver" and order == 3:
                    continue
                last = "zero" if algorithm.endswith("++") else "sigma_min"
                out[f"dpm_{algorithm}_{solver}_{order}"] = cls_config(
                    dpm, algorithm_type=algorithm, solver_type=solver, solver_order=order, final_sigmas_type=last)
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    for name, keys in {
        "sigma_min": {"final_sigmas_type": "sigma_min"},
        "euler_at_final": {"final_sigmas_type": "sigma_min", "euler_at_final": True},
        "no_lower": {"final_sigmas_type": "sigma_min", "lower_order_final": False, "solver_order": 3},
        "lu": {"use_lu_lambdas": True},
        "lu_exponential": {"use_lu_lambdas": True, "use_exponential_sigmas": True},
        "exponential": {"use_exponential_sigmas": True},
        "beta": {"use_beta_sigmas": True},
        "beta_cosine": {"use_beta_sigmas": True, "beta_schedule": "squaredcos_cap_v2"},
        "karras": {"use_karras_sigmas": True},
        "karras_cosine": {"use_karras_sigmas": True, "beta_schedule": "squaredcos_cap_v2"},
        "clipped_lambda": {"lambda_min_clipped": -3.1, "beta_schedule": "squaredcos_cap_v2"},
        "clipped_trailing": {
            "lambda_min_clipped": -3.1, "beta_schedule": "squaredcos_cap_v2", "timestep_spacing": "trailing"},
        "infinite_lambda": {"lambda_min_clipped": -math.inf, "timestep_spacing": "leading"},
        "threshold": threshold,
        "threshold_noise": threshold | {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"},
        "noise_v": {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min", "prediction_type": "v_prediction"},
        "noise_sample": {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min", "prediction_type": "sample"},
        "deis_words": {"algorithm_type": "deis", "solver_type": "bh2", "final_sigmas_type": "sigma_min"},
        "zero_snr": {
            "rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"},
        "flow": flow | {"flow_shift": 3.0},
        "flow_sde": flow | {"flow_shift": 5.0, "algorithm_type": "sde-dpmsolver++", "solver_order": 3},
        "flow_dynamic": flow | {"flow_shift": 3.0, "use_dynamic_shifting": True},
        "flow_levels_epsilon": {"use_flow_sigmas": True, "flow_shift": 2.0},
        "flow_karras": flow | {"use_karras_sigmas": True},
    }.items():
        out[f"dpm_{name}"] = cls_config(dpm, **keys)
    return out


def cases() -> list[dict]:
    out = []

    def add(config, kind, steps, seed=42, guidance=2.5, **more):
        out.append({"config": config, "kind": kind, "steps": steps, "seed": seed, "guidance": guidance} | more)

    for kind in SD_KINDS:
        few = kind in ("lcm", "tcd")
        for steps in (1, 2, 3, 7, 20, 50) if few or kind == "dpmpp_3m_sde" else (1, 2, 3, 7, 15, 20, 30, 100):
            add("sd15", kind, steps)
        for spacing in ("linspace", "leading", "trailing"):
            for prediction in ("epsilon", "v_prediction", "sample"):
                if prediction == "sample" and kind in ("pndm", "euler_a"):
                    continue  # diffusers raises
                add(f"{spacing}_{prediction}", kind, 7)
                if prediction != "sample" and not kind.startswith("dpm_"):
                    add(f"{spacing}_{prediction}", kind, 20, seed=7)
        for config in ("cosine", "linear", "trained", "sd21", "no_offset", "offset_zero", "no_clip_key"):
            add(config, kind, 7, guidance=7.5)
        add("sd15", kind, 20, seed=2**32 + 5, guidance=1.0)
        add("sd15", kind, 7, seed=2**64 - 1, guidance=7.5)
        if kind not in ("pndm", "dpm_2m_sde"):
            add("zero_snr", kind, 7)
        add("bare" if kind != "pndm" else "sd15_bare", kind, 7)
        for strength in (0.3, 0.55, 0.8, 1.0):
            for steps in (7, 20):
                add("sd15", kind, steps, strength=strength)
        add("trailing_v_prediction", kind, 10, strength=0.7, seed=5)
        for part in (0.2, 0.5, 0.8):
            add("sd15", kind, 10, start=part)
            add("sd15", kind, 11, end=part)
        add("leading_epsilon", kind, 13, start=0.21, end=0.77)
        schedules = ["sgm_uniform", "normal", "ddim_uniform"]
        if kind == "euler_a":
            schedules += GIVEN
        if kind == "euler" or kind.startswith("dpm"):
            schedules += ["karras", "exponential", "beta", *GIVEN]
        if kind.startswith("dpm"):
            schedules += ["lu"]
        for schedule in [] if few else schedules:
            for steps in (1, 2, 10, 23) if kind in ("euler", "dpmpp_2m") else (10,):
                add("sd15", f"{kind}_{schedule}", steps)
            add("leading_epsilon", f"{kind}_{schedule}", 9, strength=0.6)
    for steps in (4, 7, 20):
        add("prk", "pndm", steps)
        add("prk_v_trailing", "pndm", steps)
    for strength in (0.3, 0.55, 0.8):
        add("prk", "pndm", 20, strength=strength)
    for kind in ("pndm", "ddim", "lcm", "tcd"):
        add("alpha_one", kind, 7)
    for kind in ("ddim", "ddpm", "lcm", "tcd"):
        add("clip_range", kind, 7)
        add("threshold", kind, 7)
        add("sd15_bare", kind, 7)
    for eta in (0.3, 1.0):
        add("sd15", "ddim", 7, eta=eta)
        add("sd21", "ddim", 7, eta=eta)
        add("sd15", "ddim", 20, eta=eta, strength=0.55)
        add("sd15", "euler", 2, eta=eta)
    for eta in (0.0, 0.3, 0.7, 1.0):
        add("sd15", "tcd", 4, eta=eta)
        add("sd15", "tcd", 7, eta=eta)
    churn = {"s_churn": 4.0, "s_noise": 1.003}
    for config, kind in (("sd15", "euler"), ("sd21", "euler"), ("sd15", "euler_karras"), ("edm_plain", None), ("edm_v", None)):
        add(config, kind, 7, **churn)
        add(config, kind, 7, s_churn=100.0)
        add(config, kind, 20, s_tmin=0.05, s_tmax=8.0, **churn)
        add(config, kind, 20, s_churn=2.0, strength=0.55)
    for config in configs():
        own = next((kind for kind in ("ddim", "ddpm", "lcm", "tcd", "euler_a") if config.startswith(f"{kind}_")), None)
        if own or config.startswith(("euler_", "dpm_", "edm_", "flow_")):
            if config == "euler_a_own_clip":
                continue
            more = {"mu": 0.7} if "dynamic" in config else {}
            add(config, None, 7, **more)
            add(config, None, 20, **more)
            if config.startswith(("edm_", "flow_", "dpm_flow")):
                add(config, None, 2, **more)
                add(config, None, 10, strength=0.55, **more)
    for steps in (1, 50):
        add("flow_plain", None, steps)
        add("edm_plain", None, steps)
    for kind in ("flow_euler_karras", "flow_euler_beta", "flow_euler_exponential", "dpmpp_2m", "dpmpp_2m_sde"):
        add("flow_plain", kind, 8)
    add("flow_plain", None, 10, start=0.5)
    add("flow_plain", None, 10, end=0.5)
    add("flow_dynamic", "dpmpp_2m", 8, mu=0.7)
    add("dpm_flow", "flow_euler", 8)
    add("edm_plain", "edm_euler_exponential", 8)
    add("edm_exponential", "edm_euler_karras", 8)
    add("dpm_karras", "dpmpp_2m", 7)  # a name without _karras means without, whatever the model says
    add("dpm_karras", "dpmpp_2m_beta", 7)
    add("euler_leading_karras", "euler", 7)
    add("euler_leading_karras", "dpmpp_2m", 7)
    add("euler_leading", "ddim", 7)
    return out


def own_kind(config: dict) -> str:
    name = config["_class_name"]
    base = next(kind for kind, (cls, _) in KINDS.items() if cls == name)
    if name == "DPMSolverMultistepScheduler":
        algorithm, order = config.get("algorithm_type", "dpmsolver++"), config.get("solver_order", 2)
        base = ("dpmpp_" if algorithm.endswith("++") else "dpm_") + ("3m" if order == 3 else "2m")
        base += "_sde" if algorithm.startswith("sde") else ""
    if name == "EDMEulerScheduler":
        return f"{base}_{config.get('sigma_schedule', 'karras')}"
    if name == "EulerAncestralDiscreteScheduler":
        return base
    flag = next((flag for flag in FLAGS if config.get(next(iter(KEYS[flag])))), None)
    return f"{base}_{flag}" if flag else base


def scheduler_for(config: dict, kind: str | None):
    """The scheduler a user of diffusers would have: the pipeline's own, or another class from its configuration."""
    own = own_kind(config)
    pipe = StableDiffusionPipeline(
        vae=None, text_encoder=None, tokenizer=None, unet=None, safety_checker=None, feature_extractor=None,
        requires_safety_checker=False, scheduler=getattr(diffusers, config["_class_name"]).from_config(config))
    if kind is None or kind == own:
        return pipe.scheduler
    base, schedule = split(kind)
    name, keys = KINDS[base]
    keys = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False, "use_lu_lambdas": False} | keys
    if schedule in KEYS:
        keys |= {"sigma_schedule": schedule} if base == "edm_euler" else KEYS[schedule]
    if config["_class_name"] == FLOW["_class_name"] and base != "flow_euler":
        keys |= {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": config["shift"]}
    if base == "flow_euler" and "flow_shift" in config:
        keys |= {"shift": config["flow_shift"]}
    return getattr(diffusers, name).from_config(pipe.scheduler.config, **keys)


def given_sigmas(schedule: str, table: np.ndarray, steps: int) -> np.ndarray:
    """Noise levels of the schedules that no class has, without the last one (0)."""
    if schedule == "simple":  # AUTOMATIC1111's simple_scheduler
        stride = len(table) / steps
        return np.array([table[-(1 + int(x * stride))] for x in range(steps)])
    if schedule == "kl_optimal":  # ComfyUI's kl_optimal_scheduler
        ramp = np.linspace(0, 1, steps)
        return np.tan(ramp * math.atan(table[0]) + (1 - ramp) * math.atan(table[-1]))
    # The authors' loglinear_interp (howto of Align Your Steps), whose last level is then replaced by 0.
    name = {"ays": "StableDiffusionSigmas", "ays_xl": "StableDiffusionXLSigmas"}[schedule]
    levels = [*diffusers.schedulers.AysSchedules[name][:-1], 0.029]
    log = np.interp(np.linspace(0, 1, steps + 1), np.linspace(0, 1, len(levels)), np.log(levels[::-1]))
    return np.exp(log)[::-1][:-1]


def set_timesteps(scheduler, case: dict) -> None:
    steps, schedule = case["steps"], split(case["kind"] or "")[1]
    more = {"mu": case["mu"]} if "mu" in case else {}
    if case["kind"] and case["kind"].startswith("lcm") and "strength" in case:
        more["strength"] = case["strength"]
    if schedule not in GIVEN:
        scheduler.set_timesteps(steps, **more)
        return
    table = np.array(((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod) ** 0.5)
    sigmas = given_sigmas(schedule, table, steps)
    if "sigmas" in inspect.signature(scheduler.set_timesteps).parameters:
        scheduler.set_timesteps(sigmas=[*sigmas, 0.0])
        return
    scheduler.set_timesteps(steps)
    finder = diffusers.EulerDiscreteScheduler._sigma_to_t
    timesteps = np.array([finder(scheduler, sigma, np.log(table)) for sigma in sigmas])
    if hasattr(scheduler, "model_outputs"):
        timesteps = timesteps if scheduler.config.beta_schedule == "squaredcos_cap_v2" else timesteps.round()
        last = scheduler.sigmas[-1].item()
        scheduler.timesteps = torch.from_numpy(timesteps.astype(np.int64))
    else:
        last = 0.0
        scheduler.timesteps = torch.from_numpy(timesteps.astype(np.float32))
    scheduler.sigmas = torch.from_numpy(np.array([*sigmas, last], dtype=np.float32))


def part(scheduler, case: dict) -> tuple[torch.Tensor, int]:
    """The timesteps of the case's span, and the first one's index."""
    timesteps, begin, train = scheduler.timesteps, 0, scheduler.config.num_train_timesteps
    if "strength" in case and not (case["kind"] or "").startswith("lcm"):
        steps = case["steps"]
        begin = max(steps - min(int(steps * case["strength"]), steps), 0) * scheduler.order
        flows = getattr(scheduler.config, "prediction_type", None) == "flow_prediction"
        if flows or isinstance(scheduler, diffusers.FlowMatchEulerDiscreteScheduler):
            # StableDiffusion3Img2ImgPipeline
            begin = int(max(steps - min(steps * case["strength"], steps), 0)) * scheduler.order
    if "start" in case:
        cutoff = int(round(train - case["start"] * train))
        count = (timesteps < cutoff).sum().item()
        begin = len(timesteps) - count
    timesteps = timesteps[begin:]
    if "end" in case:
        cutoff = int(round(train - case["end"] * train))
        timesteps = timesteps[: len([t for t in timesteps if t >= cutoff])]
    # The pipelines from noise leave it to the scheduler to find the first timestep.
    if ("strength" in case or "start" in case) and hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    return timesteps, begin


def begin_latents(scheduler, case: dict, first, generator) -> torch.Tensor:
    if "start" in case:
        return picture()
    noise = randn_tensor((1, *SMALL), generator=generator, dtype=torch.float32)
    if "strength" not in case:
        return noise * getattr(scheduler, "init_noise_sigma", 1.0)
    if hasattr(scheduler, "scale_noise"):
        return scheduler.scale_noise(picture(), first.reshape(1), noise)
    return scheduler.add_noise(picture(), noise, first.reshape(1))


def run(case: dict, config: dict) -> dict | None:
    scheduler = scheduler_for(config, case["kind"])
    try:
        set_timesteps(scheduler, case)
    except ValueError:
        if not (case["kind"] or own_kind(config)).startswith("lcm"):
            raise
        return case | {"refused": True}  # more steps than known timesteps
    generator = torch.Generator("cpu").manual_seed(case["seed"])
    timesteps, begin = part(scheduler, case)
    if len(timesteps) > 1 and timesteps[0] == timesteps[1] and begin == 0:
        return None  # diffusers then begins at the second and raises on the last
    latents = begin_latents(scheduler, case, timesteps[0], generator)
    parameters = inspect.signature(scheduler.step).parameters
    extra = {name: case[name] for name in ("eta", "s_churn", "s_tmin", "s_tmax", "s_noise") if name in case and name in parameters}
    if "generator" in parameters:
        extra["generator"] = generator
    keep = {1, (len(timesteps) + 1) // 2, len(timesteps)}
    kept = {0: latents} if "strength" in case else {}
    guided = case["guidance"] > 1
    original = None
    for call, t in enumerate(timesteps, start=1):
        rows = torch.cat([latents] * 2) if guided else latents
        rows = scheduler.scale_model_input(rows, t) if hasattr(scheduler, "scale_model_input") else rows
        outputs = [model(row, float(t), i if guided else 1) for i, row in enumerate(rows.numpy())]
        output = torch.from_numpy(np.stack(outputs))
        if guided:
            uncond, cond = output.chunk(2)
            output = uncond + case["guidance"] * (cond - uncond)
        result = scheduler.step(output, t, latents, **extra, return_dict=False)
        latents = result[0]
        # What TCD gives second is no picture.
        if len(result) > 1 and call == (len(timesteps) + 1) // 2 and not isinstance(scheduler, diffusers.TCDScheduler):
            original = [call, result[1]]
        if call in keep:
            kept[call] = latents
    if not all(torch.isfinite(x).all() for x in kept.values()):
        if case["config"] == "dpm_flow_karras":
            return case | {"refused": True}  # levels above 1 are none of flow matching
        raise ValueError(f"not finite: {case}")

    def numbers(values, digits):
        return [round(float(x), digits) for x in np.asarray(values).flatten()]

    out = case | {"timesteps": numbers(timesteps, 3)}
    if hasattr(scheduler, "sigmas") and case["steps"] <= 20:
        out["sigmas"] = numbers(scheduler.sigmas[begin : begin + len(timesteps) + 1], 6)
    if original:
        out["original"] = [original[0], numbers(original[1], 6)]
    return out | {"latents": [[call, numbers(x, 6)] for call, x in kept.items()]}


def write(path: str, header: dict, known: dict, done: list[dict]) -> None:
    used = {case["config"] for case in done}
    with open(path, "w", encoding="utf-8") as file:
        file.write('{"header": ' + json.dumps(header) + ',\n"configs": {\n')
        # As Python writes it: a saved configuration may hold a bare -Infinity.
        file.write(",\n".join(f"{json.dumps(k)}: {json.dumps(json.dumps(v))}" for k, v in known.items() if k in used))
        file.write('\n},\n"cases": [\n')
        file.write(",\n".join(json.dumps(case, separators=(",", ":")) for case in done))
        file.write("\n]}\n")
    print(f"{path}: {len(done)} trajectories over {len(used)} configurations, {os.path.getsize(path)} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="the folder of the JSON files to write")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    known = configs()
    families = {family: [] for family in FAMILIES}
    for case in cases():
        family = next(f for f, kinds in FAMILIES.items() if split(case["kind"] or own_kind(known[case["config"]]))[0] in kinds)
        done = run(case, known[case["config"]])
        if done is not None:
            families[family].append(done)
    header = {
        "made_by": "tools/reference/schedulers.py",
        "versions": {"diffusers": diffusers.__version__, "torch": torch.__version__, "numpy": np.__version__},
        "shape": SMALL,
        "picture": [round(float(x), 7) for x in picture().flatten()],
    }
    for family, done in families.items():
        write(os.path.join(args.out, f"schedulers_{family}.json"), header, known, done)


if __name__ == "__main__":
    main()
