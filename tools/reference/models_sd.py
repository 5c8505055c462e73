"""Tiny models with the architecture of Stable Diffusion 1 and 2. Not run by itself; tiny_models.py is the program."""

import json
import shutil
import tempfile
from pathlib import Path

import torch
from diffusers import (
    DDIMScheduler,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    PNDMScheduler,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from models_base import (
    BETAS,
    WIDTH,
    autoencoder,
    louder,
    optimum_export,
    scale_decoder,
    scale_encoder,
    text_config,
    tokenizer,
)
from transformers import CLIPTextModel

SEEDS = {"sd15": 15, "sd21": 21, "sd15-inpaint": 159, "lcm": 154}


def scheduler(kind: str):
    """The scheduler that models of this kind come with."""
    if kind == "sd21":
        return DDIMScheduler(**BETAS, prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False)
    if kind == "lcm":
        return LCMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=True
        )
    return PNDMScheduler(**BETAS, skip_prk_steps=True)


def pipeline(kind: str, scratch: Path) -> StableDiffusionPipeline:
    """Builds one pipeline with random weights, scaled so that prompts and steps visibly change the picture."""
    torch.manual_seed(SEEDS[kind])
    sd21, inpaint, lcm = kind == "sd21", kind == "sd15-inpaint", kind == "lcm"
    tokens = tokenizer(scratch / f"{kind}-tokenizer", "!" if sd21 else "<|endoftext|>")
    text = CLIPTextModel(text_config(tokens, hidden_act="gelu" if sd21 else "quick_gelu"))
    unet = UNet2DConditionModel(
        sample_size=4,
        in_channels=9 if inpaint else 4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=[2, 4] if sd21 else 4,
        use_linear_projection=sd21,
        norm_num_groups=4,
        time_cond_proj_dim=32 if lcm else None,
    )
    vae = autoencoder()
    with torch.no_grad():
        louder(unet, {"attn2": 4.0, "cond_proj": 8.0})
        sample, states = torch.randn(8, 4, 8, 8), text(torch.randint(0, 500, (8, 77))).last_hidden_state
        entered = torch.cat([sample, torch.randn(8, 5, 8, 8)], dim=1) if inpaint else sample
        condition = torch.randn(8, 32) if lcm else None
        unet.conv_out.weight *= 0.9 / unet(entered, 500, states, timestep_cond=condition).sample.std()
        scale_encoder(vae, scale_decoder(vae, sample))
    parts = dict(
        vae=vae.eval(),
        text_encoder=text.eval(),
        tokenizer=tokens,
        unet=unet.eval(),
        scheduler=scheduler(kind),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    if inpaint:
        return StableDiffusionInpaintPipeline(**parts)
    return LatentConsistencyModelPipeline(**parts) if lcm else StableDiffusionPipeline(**parts)


def hidden(source: Path, target: Path) -> None:
    """Exports the text encoder of `source` anew, with its hidden states, as `--model-kwargs` of Optimum can ask for."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "pipeline"
        shutil.copytree(source, copy)
        config = copy / "text_encoder" / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"output_hidden_states": True}))
        optimum_export(copy, Path(scratch) / "onnx")
        shutil.rmtree(target / "text_encoder")
        shutil.copytree(Path(scratch) / "onnx" / "text_encoder", target / "text_encoder")
