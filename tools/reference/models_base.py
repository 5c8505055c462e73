"""What the makers of tiny models share: tokenizers, scaling of random weights, Optimum's export and its clean-up.

Not run by itself; tiny_models.py is the program.
"""

import json
import shutil
from pathlib import Path

import onnx
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTokenizer

WIDTH = 16
PARTS = ("text_encoder", "text_encoder_2", "unet", "vae_decoder", "vae_encoder")
BETAS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1)


def bytes_to_unicode() -> list[str]:
    """CLIP's printable stand-ins for the 256 bytes, in its order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + n) for n in range(len(rest))]


def tokenizer(folder: Path, pad: str) -> CLIPTokenizer:
    """A CLIP tokenizer that knows single bytes and a few merges; "!" is id 0, as in the real one."""
    letters = bytes_to_unicode()
    merges = ["r e", "re d</w>", "c i", "b l", "s q", "u a", "t h", "th e</w>"]
    tokens = letters + [c + "</w>" for c in letters] + [m.replace(" ", "") for m in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    return CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), pad_token=pad, model_max_length=77
    )


def text_config(tokens: CLIPTokenizer, width: int = WIDTH, **more) -> CLIPTextConfig:
    """A text encoder of two layers (or `num_hidden_layers`) for `tokens`."""
    return CLIPTextConfig(
        **dict(
            vocab_size=len(tokens),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=77,
            bos_token_id=len(tokens) - 2,
            eos_token_id=len(tokens) - 1,
            pad_token_id=tokens.pad_token_id,
        )
        | more
    )


def autoencoder(**more) -> AutoencoderKL:
    """A VAE with SD's factor of 8."""
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
        **more,
    )


def louder(unet: UNet2DConditionModel, parts: dict[str, float]) -> None:
    """Multiplies the weights whose names hold one of `parts`, so that what goes in there shows in the picture."""
    for name, parameter in unet.named_parameters():
        for part, factor in parts.items():
            if part in name and "weight" in name:
                parameter *= factor


def scale_decoder(vae: AutoencoderKL, sample: torch.Tensor) -> torch.Tensor:
    """Makes the decoder fill the range of pixels; gives what it draws then."""
    vae.decoder.conv_out.weight *= 0.6 / vae.decode(sample / vae.config.scaling_factor).sample.std()
    return vae.decode(sample / vae.config.scaling_factor).sample


def scale_encoder(vae: AutoencoderKL, pictures: torch.Tensor) -> None:
    """Makes scaled latents of `pictures` 0 in mean and 1 in deviation, and the posterior wide enough to show.

    Takes nothing from the random generator and touches only quant_conv, which no decoder reads.
    """
    weight, bias = vae.quant_conv.weight, vae.quant_conv.bias
    moments = vae.quant_conv(vae.encoder(pictures.clamp(-1, 1)))
    mean, spread = moments.mean((0, 2, 3)), moments.std((0, 2, 3))
    wanted = torch.tensor([1.0 / vae.config.scaling_factor] * 4 + [0.5] * 4)
    weight *= (wanted / spread)[:, None, None, None]
    bias.copy_((bias - mean) * wanted / spread)
    # log variance: a deviation of about 0.3 of the latents'.
    bias[4:] += 2.0 * torch.log(torch.tensor(0.3 / vae.config.scaling_factor))


def optimum_export(source: Path, target: Path, task: str = "text-to-image", **more) -> None:
    """Exports as `optimum-cli export onnx` does, less documentation inside the files."""
    from optimum.exporters.onnx import main_export

    shutil.rmtree(target, ignore_errors=True)
    main_export(str(source), output=target, task=task, do_validation=False, no_post_process=True, **more)
    for _, path in each_part(target):
        model = onnx.load(path)
        for node in model.graph.node:
            node.ClearField("doc_string")
            del node.metadata_props[:]
        onnx.save(model, path)
    forget_paths(target)


def forget_paths(target: Path) -> None:
    """Takes out where the model was made, so that the files do not depend on it."""
    for path in target.rglob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and content.keys() & {"_name_or_path", "name_or_path"}:
            content = {key: value for key, value in content.items() if not key.endswith("name_or_path")}
            path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def each_part(target: Path):
    """The parts that a folder has, with their files."""
    for part in PARTS:
        if (target / part / "model.onnx").exists():
            yield part, target / part / "model.onnx"


def save_torch(pipe: DiffusionPipeline, target: Path) -> Path:
    """Keeps a pipeline as torch weights."""
    shutil.rmtree(target, ignore_errors=True)
    pipe.save_pretrained(target)
    return target
