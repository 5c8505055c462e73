"""The three networks of the demo model, as the diffusers and transformers classes that servers expect.

Only shapes are decided here; nothing is trained or saved. The widths are multiples of 16 because that is the
block that ONNX Runtime's CPU convolutions work in.
"""

from __future__ import annotations

from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from scenes import PICTURE_SIZE

LATENT_CHANNELS = 4
LATENT_SIZE = PICTURE_SIZE // 8
SCALING_FACTOR = 0.18215  # Stable Diffusion's; the autoencoder's latents get its inverse as standard deviation
CONTEXT = 77  # tokens, as in every Stable Diffusion 1.x model
TEXT_WIDTH = 96


def autoencoder() -> AutoencoderKL:
    """A small AutoencoderKL of factor 8, without attention; most of its time is at full resolution."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=LATENT_CHANNELS,
        block_out_channels=(16, 16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=PICTURE_SIZE,
        scaling_factor=SCALING_FACTOR,
    )


def text_encoder(vocabulary: int, start: int, end: int) -> CLIPTextModel:
    """A CLIP text encoder of two layers; `start` and `end` are the ids of the special tokens."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=TEXT_WIDTH,
            intermediate_size=TEXT_WIDTH * 4,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT,
            hidden_act="quick_gelu",
            projection_dim=TEXT_WIDTH,
            bos_token_id=start,
            eos_token_id=end,
            pad_token_id=end,
        )
    )


def denoiser() -> UNet2DConditionModel:
    """A UNet of three levels (16 x 16, 8 x 8 and 4 x 4) that reads the text at the two lower ones.

    The lowest level costs little and is where the layout is decided: with 4 x 4 places, a zero-padded convolution tells
    every place where it is, which words such as "top left" need. There is no middle block.
    """
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(48, 128, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        mid_block_type=None,
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,  # diffusers reads this as the number of heads
        norm_num_groups=8,
    )


def parameters(module: object) -> int:
    """Number of trainable values in a module."""
    return sum(value.numel() for value in module.parameters())
