#!/usr/bin/env python3
"""Golden trajectories of the second family of schedulers for crates/diffusion: LMS, Heun, KDPM2 (and ancestral), DPM-Solver
singlestep, DPM-Solver SDE, DEIS and UniPC, driven as diffusers' pipelines drive them.

The stand-in for the model is that of schedulers.py. Trajectories begin as the pipelines begin them: with noise
(StableDiffusionPipeline), with a noised picture (`strength`, StableDiffusionImg2ImgPipeline), or with given latents
(`denoising_start`, StableDiffusionXLImg2ImgPipeline); `denoising_end` cuts the end off. Run with the versions in requirements.txt:

    python tools/reference/schedulers_solvers.py --out crates/diffusion/tests/golden/solvers.json

The last bits of torch's logarithms and roots, and of numpy's logarithms, are those of the vendor's library and the processor (here
19 % of torch's roots are not the nearest number). Some trajectories hang on them: DPM-Solver SDE asks its Brownian path at
`exp(log(sigma))`, which torchsde rounds to a millionth, so that a last bit chooses other noise; DEIS and ancestral KDPM2 subtract
nearly equal numbers. So every case is run twice, as it is and with these functions correctly rounded. Where both agree the file has
the first, else the second, marked `rounded`.
"""

import argparse
import contextlib
import inspect
import json
import logging
import math
import warnings
from collections import Counter

import diffusers
import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils.torch_utils import randn_tensor
from schedulers import SD15, SMALL, model, picture

KINDS = {
    "lms": "LMSDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "dpm2": "KDPM2DiscreteScheduler",
    "dpm2_a": "KDPM2AncestralDiscreteScheduler",
    "dpmpp_2s": "DPMSolverSinglestepScheduler",
    "dpmpp_sde": "DPMSolverSDEScheduler",
    "deis": "DEISMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}
NO_SAMPLE = ("dpm2", "dpm2_a", "dpmpp_sde")  # diffusers raises for prediction_type "sample"
FLAGS = {"karras": "use_karras_sigmas", "exponential": "use_exponential_sigmas", "beta": "use_beta_sigmas"}
AGREEMENT = 2e-5  # of the two runs of a case, relative to max(1, |x|); the file has five digits
STEPS = (1, 2, 3, 7, 20, 50)


def own(kind: str, **keys) -> dict:
    return SD15 | {"_class_name": KINDS[kind]} | keys


def plan() -> tuple[dict, list[dict]]:
    """All configurations by name, and all cases."""
    configs, cases = {"sd15": SD15}, []

    def add(config, kind, steps, seed=42, guidance=2.5, **more):
        name = config
        if isinstance(config, dict):
            known = [known for known, keys in configs.items() if keys == config]
            name = known[0] if known else f"c{len(configs)}"
            configs[name] = config
        cases.append({"config": name, "kind": kind, "steps": steps, "seed": seed, "guidance": guidance} | more)

    for kind in KINDS:
        for steps in STEPS:
            add("sd15", kind, steps)
        for schedule in FLAGS:
            for steps in (1, 3, 7, 20):
                add("sd15", f"{kind}_{schedule}", steps, seed=steps)
            add("sd15", f"{kind}_{schedule}", 10, strength=0.55)
        for strength in (0.3, 0.55, 0.8):
            add("sd15", kind, 7, strength=strength)
            add("sd15", kind, 20, strength=strength, seed=3, guidance=7.5)
        add("sd15", kind, 10, end=0.6)
        add("sd15", kind, 11, end=0.35)
        add("sd15", kind, 10, start=0.6)
        add("sd15", kind, 12, start=0.35)
        for spacing in ("linspace", "leading", "trailing"):
            for prediction in ("epsilon", "v_prediction", "sample"):
                if prediction == "sample" and kind in NO_SAMPLE:
                    continue
                add(own(kind, timestep_spacing=spacing, prediction_type=prediction), None, 7)
            add(own(kind, timestep_spacing=spacing, use_karras_sigmas=True), None, 9, guidance=1.0)
        for steps in (1, 2, 20):
            add(own(kind, timestep_spacing="leading"), None, steps, seed=2**64 - 1)
        add(own(kind, beta_schedule="squaredcos_cap_v2"), None, 7)
        add(own(kind, beta_schedule="squaredcos_cap_v2", use_karras_sigmas=True), None, 7)
        add(own(kind, beta_schedule="linear", beta_start=0.0001, beta_end=0.02), None, 7)
        trained = [round(0.001 + 0.003 * math.sqrt(i), 6) for i in range(50)]
        add(own(kind, num_train_timesteps=50, trained_betas=trained), None, 7)
        add({"_class_name": KINDS[kind]}, None, 7)
        add(SD15 | {"_class_name": "EulerDiscreteScheduler", "sigma_min": 0.06, "sigma_max": 9.0}, f"{kind}_karras", 7)
        add(SD15 | {"_class_name": "EulerDiscreteScheduler", "sigma_min": 0.06, "sigma_max": 9.0}, f"{kind}_beta", 7)
        add(SD15 | {"_class_name": "EulerDiscreteScheduler", "sigma_min": 0.06, "sigma_max": 9.0}, f"{kind}_exponential", 7)
    add(own("heun", beta_schedule="exp"), None, 7)
    for keys in ({"noise_sampler_seed": 0}, {"noise_sampler_seed": 2**40 + 3}, {"noise_sampler_seed": 5}):
        for steps in (2, 7, 20, 50):
            add(own("dpmpp_sde", **keys), None, steps)
        add(own("dpmpp_sde", use_karras_sigmas=True, **keys), None, 20, s_noise=0.6)
    singlestep(add)
    deis(add)
    unipc(add)
    return configs, cases


def singlestep(add) -> None:
    for algorithm in ("dpmsolver++", "sde-dpmsolver++", "dpmsolver"):
        for solver in ("midpoint", "heun"):
            for order in (1, 2, 3):
                if order == 1 and solver == "heun":
                    continue
                for last in ("zero", "sigma_min"):
                    if algorithm == "dpmsolver" and last == "zero":
                        continue
                    keys = {
                        "algorithm_type": algorithm, "solver_type": solver, "solver_order": order,
                        "final_sigmas_type": last}
                    add(own("dpmpp_2s", **keys), None, 6)
                    add(own("dpmpp_2s", lower_order_final=True, **keys), None, 7)
                    if order > 1 and solver == "midpoint":
                        for steps in (1, 2, 3, 8, 12, 20):
                            if order > steps and not (last == "zero" or steps % order):
                                continue
                            add(own("dpmpp_2s", **keys), None, steps)
                        add(own("dpmpp_2s", **keys), None, 12, strength=0.55)
                        add(own("dpmpp_2s", lower_order_final=True, **keys), None, 13, strength=0.8)
    threshold = {"thresholding": True, "sample_max_value": 1.5, "dynamic_thresholding_ratio": 0.9}
    add(own("dpmpp_2s", **threshold), None, 7)
    for prediction in ("v_prediction", "sample"):
        add(own("dpmpp_2s", algorithm_type="dpmsolver", final_sigmas_type="sigma_min", prediction_type=prediction), None, 8)
    for lower in ({"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -3.1}, {"lambda_min_clipped": -math.inf}):
        add(own("dpmpp_2s", **lower), None, 7)
    add(own("dpmpp_2s", algorithm_type="dpmsolver++", solver_type="bh2"), None, 7)
    for shift in (1.0, 3.0):
        for prediction in ("flow_prediction", "epsilon"):
            add(own("dpmpp_2s", use_flow_sigmas=True, flow_shift=shift, prediction_type=prediction), None, 7)
    add(own("dpmpp_2s", use_flow_sigmas=True, flow_shift=3.0, prediction_type="flow_prediction", solver_order=3), None, 20)


def deis(add) -> None:
    for order in (1, 2, 3):
        for steps in (1, 2, 3, 7, 14, 15, 20, 50):
            add(own("deis", solver_order=order), None, steps)
        add(own("deis", solver_order=order, lower_order_final=False), None, 7)
        add(own("deis", solver_order=order, use_exponential_sigmas=True), None, 20)
        add(own("deis", solver_order=order, algorithm_type="dpmsolver++", solver_type="bh2"), None, 12, strength=0.55)
    add(own("deis", thresholding=True, sample_max_value=1.5, dynamic_thresholding_ratio=0.9), None, 7)
    for shift in (1.0, 3.0):
        for prediction in ("flow_prediction", "epsilon"):
            add(own("deis", use_flow_sigmas=True, flow_shift=shift, prediction_type=prediction), None, 7)
    add(own("deis", use_flow_sigmas=True, flow_shift=3.0, prediction_type="flow_prediction", solver_order=3), None, 20)


def unipc(add) -> None:
    for order in (1, 2, 3):
        for solver in ("bh1", "bh2"):
            for predict in (True, False):
                keys = {"solver_order": order, "solver_type": solver, "predict_x0": predict}
                if not predict or solver == "bh1":  # both divide by the last level
                    keys["final_sigmas_type"] = "sigma_min"
                for steps in (1, 2, 3, 7, 20):
                    add(own("unipc", **keys), None, steps)
                add(own("unipc", **keys), None, 12, strength=0.55)
                if predict:
                    add(own("unipc", **keys | {"lower_order_final": False, "final_sigmas_type": "sigma_min"}), None, 7)
        add(own("unipc", solver_order=order), None, 50)
        add(own("unipc", solver_order=order, solver_type="bh1"), None, 7)
        add(own("unipc", solver_order=order, disable_corrector=[0, 1, 4]), None, 7)
        add(own("unipc", solver_order=order, disable_corrector=[0, 1, 4]), None, 10, strength=0.8)
    for prediction in ("v_prediction", "sample"):
        add(own("unipc", predict_x0=False, final_sigmas_type="sigma_min", prediction_type=prediction), None, 7)
    add(own("unipc", thresholding=True, sample_max_value=1.5, dynamic_thresholding_ratio=0.9), None, 7)
    bounds = {"sigma_min": 0.05, "sigma_max": 11.0}
    for flag in FLAGS.values():
        add(own("unipc", **{flag: True}, final_sigmas_type="sigma_min"), None, 7)
        add(own("unipc", **{flag: True}, **bounds), None, 7)
    add(own("unipc", solver_type="heun"), None, 7)
    zero = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"}
    add(own("unipc", **zero), None, 7)
    for more in ({}, {"flow_shift": 3.0}, {"flow_shift": 3.0, "shift_terminal": 0.1}, {"use_karras_sigmas": True},
                 {"flow_shift": 5.0, "final_sigmas_type": "sigma_min"}, {"flow_shift": 3.0, "solver_order": 3}):
        for steps in (7, 20):
            add(own("unipc", use_flow_sigmas=True, prediction_type="flow_prediction", **more), None, steps)
    add(own("unipc", use_flow_sigmas=True, flow_shift=3.0), None, 7)
    for kind in ("unipc", "deis", "dpmpp_2s"):
        dynamic = own(kind, use_flow_sigmas=True, use_dynamic_shifting=True, prediction_type="flow_prediction")
        for mu in (0.7, 1.15):
            add(dynamic, None, 7, mu=mu)


def scheduler_for(config: dict, kind: str | None):
    """The scheduler a user of diffusers would have: the pipeline's own, or another class from its configuration."""
    pipe = StableDiffusionPipeline(
        vae=None, text_encoder=None, tokenizer=None, unet=None, safety_checker=None, feature_extractor=None,
        requires_safety_checker=False, scheduler=getattr(diffusers, config["_class_name"]).from_config(config))
    if kind is None:
        return pipe.scheduler
    name, _, schedule = kind.rpartition("_") if kind.rpartition("_")[2] in FLAGS else (kind, "", "")
    flags = {flag: schedule == known for known, flag in FLAGS.items()}
    return getattr(diffusers, KINDS[name]).from_config(pipe.scheduler.config, **flags)


@contextlib.contextmanager
def rounded_functions():
    """Makes torch's logarithm and exponential of a float32 number, its roots, and numpy's logarithm of a number correctly rounded."""
    plain = torch.Tensor.log, torch.Tensor.exp, torch.Tensor.__pow__, np.log

    def exact(function, x: torch.Tensor) -> torch.Tensor:
        with np.errstate(divide="ignore", invalid="ignore"):
            return torch.from_numpy(np.asarray(function(x.numpy().astype(np.float64)), dtype=np.float32))

    def single(x) -> bool:
        return isinstance(x, torch.Tensor) and x.dtype == torch.float32 and x.dim() == 0

    torch.Tensor.log = lambda x: exact(plain[3], x) if single(x) else plain[0](x)
    torch.Tensor.exp = lambda x: exact(np.exp, x) if single(x) else plain[1](x)
    torch.Tensor.__pow__ = lambda x, n: exact(np.sqrt, x) if isinstance(n, float) and n == 0.5 else plain[2](x, n)
    np.log = lambda x: exact(plain[3], x) if single(x) else plain[3](x)
    try:
        yield
    finally:
        torch.Tensor.log, torch.Tensor.exp, torch.Tensor.__pow__, np.log = plain


def cut(scheduler, case: dict):
    """The timesteps of the case's part of the schedule; tells the scheduler where it begins, as the pipelines do."""
    steps, timesteps = case["steps"], scheduler.timesteps
    train = scheduler.config.num_train_timesteps
    if "strength" in case:
        begin = max(steps - min(int(steps * case["strength"]), steps), 0) * scheduler.order
        scheduler.set_begin_index(begin)
        return timesteps[begin:]
    if "start" in case:
        cutoff = int(round(train - case["start"] * train))
        count = (timesteps < cutoff).sum().item()
        if scheduler.order == 2 and count % 2 == 0:
            count += 1
        begin = len(timesteps) - count
        scheduler.set_begin_index(begin)
        return timesteps[begin:]
    if "end" in case:
        cutoff = int(round(train - case["end"] * train))
        return timesteps[: len([t for t in timesteps if t >= cutoff])]
    return timesteps


def run(case: dict, config: dict) -> dict | None:
    scheduler = scheduler_for(config, case["kind"])
    scheduler.set_timesteps(case["steps"], **({"mu": case["mu"]} if "mu" in case else {}))
    if getattr(scheduler, "noise_sampler_seed", 0) is None:
        scheduler.noise_sampler_seed = case["seed"]  # diffusers draws one at random
    timesteps = cut(scheduler, case)
    if len(timesteps) == 0:
        raise ValueError(f"no timesteps: {case}")
    if scheduler.begin_index is None and (timesteps == timesteps[0]).sum() > 1:
        return None  # rounded alike: diffusers then begins at the second of them and raises on the last
    generator = torch.Generator("cpu").manual_seed(case["seed"])
    if "start" in case:
        latents = picture()
    else:
        noise = randn_tensor((1, *SMALL), generator=generator, dtype=torch.float32)
        if "strength" in case:
            latents = scheduler.add_noise(picture(), noise, timesteps[:1])
        else:
            latents = noise * scheduler.init_noise_sigma
    begin = scheduler.begin_index or 0
    sigmas = scheduler.sigmas[begin : begin + len(timesteps) + 1]  # the level after the last call too
    parameters = inspect.signature(scheduler.step).parameters
    extra = {"generator": generator} if "generator" in parameters else {}
    if "s_noise" in parameters:
        extra["s_noise"] = case.get("s_noise", 1.0)
    keep = {1, (len(timesteps) + 1) // 2, len(timesteps)}
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
        return case | {"not_finite": True}  # diffusers gives a black picture; the crate refuses the schedule

    def numbers(values, digits):
        return [round(float(x), digits) for x in np.asarray(values).flatten()]

    return case | {
        "timesteps": numbers(timesteps, 3),
        "sigmas": numbers(sigmas, 5),
        "latents": [[call, numbers(x, 5)] for call, x in kept.items()],
    }


def difference(one: dict, other: dict) -> float:
    """Largest difference of two runs of a case, relative to max(1, |x|)."""
    pairs = [(a, b) for x, y in zip(one["latents"], other["latents"]) for a, b in zip(x[1], y[1])]
    return max(abs(a - b) / max(1, abs(a)) for a, b in pairs)


def reference(case: dict, config: dict) -> dict | None:
    """The run of a case as it is, or the one with rounded functions where the two differ."""
    plain = run(case, config)
    with rounded_functions():
        rounded = run(case, config)
    if plain is None or ("latents" in plain) != ("latents" in rounded):
        return None
    if "latents" in plain and difference(rounded, plain) > AGREEMENT:
        return rounded | {"rounded": True}
    return plain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="the JSON file to write")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    configs, cases = plan()
    done = []
    for case in cases:
        try:
            done.append(reference(case, configs[case["config"]]))
        except Exception as error:
            raise RuntimeError(f"{case} {configs[case['config']]}") from error
    done = [case for case in done if case is not None]
    header = {
        "made_by": "tools/reference/schedulers_solvers.py",
        "versions": {"diffusers": diffusers.__version__, "torch": torch.__version__, "numpy": np.__version__},
        "shape": SMALL,
        "picture": [round(float(x), 8) for x in picture().flatten()],
    }
    with open(args.out, "w", encoding="utf-8") as file:
        file.write('{"header": ' + json.dumps(header) + ',\n"configs": {\n')
        # As Python writes it: a saved configuration may hold a bare -Infinity.
        file.write(",\n".join(f"{json.dumps(k)}: {json.dumps(json.dumps(v))}" for k, v in configs.items()))
        file.write('\n},\n"cases": [\n')
        file.write(",\n".join(json.dumps(case, separators=(",", ":")) for case in done))
        file.write("\n]}\n")
    hang = [case["kind"] or configs[case["config"]]["_class_name"] for case in done if "rounded" in case]
    print(f"{len(done)} trajectories of {len(cases)} over {len(configs)} configurations")
    print(f"{len(hang)} hang on last bits: {dict(Counter(hang))}")


if __name__ == "__main__":
    main()
