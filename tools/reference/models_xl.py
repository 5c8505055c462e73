"""Tiny models with the architecture of Stable Diffusion XL. Not run by itself; tiny_models.py is the program.

Widths differ wherever they do in the real ones, so that nothing fits by accident: the text encoders are 16 and 24 wide,
the projection is 20, the UNet's cross attention 40 (24 for the refiner).
"""

from pathlib import Path

import torch
from diffusers import (
    EulerDiscreteScheduler,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from models_base import BETAS, WIDTH, autoencoder, louder, scale_decoder, scale_encoder, text_config, tokenizer
from transformers import CLIPTextModel, CLIPTextModelWithProjection

SEEDS = {"sdxl": 101, "sdxl-refiner": 102, "sdxl-inpaint": 109}
WIDTH_2 = 24
PROJECTION = 20
TIME = 8


def pipeline(kind: str, scratch: Path) -> StableDiffusionXLPipeline:
    """Builds one pipeline with random weights, scaled so that prompts, sizes and steps visibly change the picture."""
    torch.manual_seed(SEEDS[kind])
    refiner, inpaint = kind == "sdxl-refiner", kind == "sdxl-inpaint"
    tokens = tokenizer(scratch / f"{kind}-tokenizer", "<|endoftext|>")
    tokens_2 = tokenizer(scratch / f"{kind}-tokenizer_2", "!")
    text = CLIPTextModel(text_config(tokens, hidden_act="quick_gelu", num_hidden_layers=3))
    text_2 = CLIPTextModelWithProjection(
        text_config(tokens_2, WIDTH_2, hidden_act="gelu", num_hidden_layers=3, projection_dim=PROJECTION)
    )
    ids = 5 if refiner else 6
    cross = WIDTH_2 if refiner else WIDTH + WIDTH_2
    unet = UNet2DConditionModel(
        sample_size=4,
        in_channels=9 if inpaint else 4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=1,
        cross_attention_dim=cross,
        attention_head_dim=[2, 4],
        use_linear_projection=True,
        norm_num_groups=4,
        addition_embed_type="text_time",
        addition_time_embed_dim=TIME,
        projection_class_embeddings_input_dim=PROJECTION + ids * TIME,
    )
    vae = autoencoder(scaling_factor=0.13025, force_upcast=True)
    with torch.no_grad():
        louder(unet, {"attn2": 4.0, "add_embedding.linear_1": 2.0, "add_embedding.linear_2": 4.0})
        louder(text_2, {"text_projection": 4.0})
        sample, some = torch.randn(8, 4, 8, 8), torch.randint(0, 500, (8, 77))
        second = text_2(some, output_hidden_states=True)
        states = second.hidden_states[-2]
        if not refiner:
            states = torch.cat([text(some, output_hidden_states=True).hidden_states[-2], states], dim=-1)
        added = {"text_embeds": second.text_embeds, "time_ids": torch.tensor([[32.0, 32, 0, 0, 32, 32][:ids]] * 8)}
        entered = torch.cat([sample, torch.randn(8, 5, 8, 8)], dim=1) if inpaint else sample
        unet.conv_out.weight *= 0.9 / unet(entered, 500, states, added_cond_kwargs=added).sample.std()
        scale_encoder(vae, scale_decoder(vae, sample))
    parts = dict(
        vae=vae.eval(),
        text_encoder=None if refiner else text.eval(),
        text_encoder_2=text_2.eval(),
        tokenizer=None if refiner else tokens,
        tokenizer_2=tokens_2,
        unet=unet.eval(),
        scheduler=EulerDiscreteScheduler(**BETAS, timestep_spacing="leading"),
        force_zeros_for_empty_prompt=not refiner,
        add_watermarker=False,
    )
    if refiner:
        return StableDiffusionXLImg2ImgPipeline(**parts, requires_aesthetics_score=True)
    if inpaint:
        return StableDiffusionXLInpaintPipeline(**parts, requires_aesthetics_score=False)
    return StableDiffusionXLPipeline(**parts)
