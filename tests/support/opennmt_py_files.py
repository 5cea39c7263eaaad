"""Tiny checkpoints of OpenNMT-py with random weights, in the format of its version 3."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

WIDTH, HEADS, FEED_FORWARD, LAYERS = 16, 2, 24, {"encoder": 2, "decoder": 1}
SPECIAL = ("<unk>", "<blank>", "<s>", "</s>")
SOURCE_TOKENS = (*SPECIAL, *"abcdefghijklmnop")
TARGET_TOKENS = (*SPECIAL, *"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
OPTIONS = {
    "model_task": "seq2seq",
    "model_type": "text",
    "encoder_type": "transformer",
    "decoder_type": "transformer",
    "layers": -1,
    "enc_layers": LAYERS["encoder"],
    "dec_layers": LAYERS["decoder"],
    "hidden_size": WIDTH,
    "heads": HEADS,
    "transformer_ff": FEED_FORWARD,
    "position_encoding": True,
    "position_encoding_type": "SinusoidalInterleaved",
    "max_relative_positions": 0,
    "pos_ffn_activation_fn": "relu",
    "self_attn_type": "scaled-dot-flash",
    "layer_norm": "standard",
    "norm_eps": 1e-6,
    "copy_attn": False,
    "data": {"corpus": {"path_src": "train.src", "transforms": ["sentencepiece"]}},
}


def write_checkpoint(
    folder: Path,
    source: Sequence[str] = SOURCE_TOKENS,
    target: Sequence[str] = TARGET_TOKENS,
    start: str | None = "<s>",
    seed: int = 0,
    is_split: bool = False,
    shares: Sequence[str] = (),
    has_biases: bool = True,
    content: dict[str, Any] | None = None,
    **options: Any,
) -> Path:
    """Write ``model.pt`` into a folder and return the folder.

    ``shares`` has "embeddings" or "decoder_embeddings", the options ``share_...``. ``content``
    replaces entries of the file, and ``options`` those of the network. With ``is_split``, the
    tensors are in a file of safetensors.
    """
    folder.mkdir(parents=True)
    chosen = OPTIONS | options | {f"share_{name}": True for name in shares}
    tensors = random_tensors(chosen, len(source), len(target), has_biases, seed)
    if "embeddings" in shares:
        tensors[_table("encoder")] = tensors[_table("decoder")]
    if "decoder_embeddings" in shares:
        tensors["generator.weight"] = tensors[_table("decoder")]
    vocabulary = {"src": list(source), "tgt": list(target), "data_task": "seq2seq"}
    if start is not None:
        vocabulary["decoder_start_token"] = start
    whole = {"vocab": vocabulary, "opt": argparse.Namespace(**chosen), "optim": {"step": 1}}
    if is_split:
        copies = {name: tensor.clone() for name, tensor in tensors.items()}
        save_file(copies, folder / "model.safetensors")
    else:
        whole["model"] = {n: t for n, t in tensors.items() if not n.startswith("generator")}
        whole["generator"] = {k: tensors[f"generator.{k}"] for k in ("weight", "bias")}
    torch.save(whole | (content or {}), folder / "model.pt")
    return folder


def _table(stack: str) -> str:
    return f"{stack}.embeddings.make_embedding.emb_luts.0.weight"


def random_tensors(
    options: dict[str, Any], num_source: int, num_target: int, has_biases: bool, seed: int
) -> dict[str, Tensor]:
    """The tensors of a network, whose translations vary in length."""
    width, inner = options["hidden_size"], options["transformer_ff"]
    shapes: dict[str, tuple[int, ...]] = {
        _table("encoder"): (num_source, width),
        _table("decoder"): (num_target, width),
        "generator.weight": (num_target, width),
        "generator.bias": (num_target,),
    }
    for stack, name in (("encoder", "transformer"), ("decoder", "transformer_layers")):
        norms, parts = ["layer_norm"], ["self_attn"]
        if stack == "decoder":
            norms, parts = ["layer_norm_1", "layer_norm_2"], ["self_attn", "context_attn"]
        shapes |= _norm(f"{stack}.layer_norm", width)
        for number in range(options[f"{stack[:3]}_layers"]):
            layer = f"{stack}.{name}.{number}"
            for norm in (*norms, "feed_forward.layer_norm"):
                shapes |= _norm(f"{layer}.{norm}", width)
            for part in parts:
                for linear in ("linear_query", "linear_keys", "linear_values", "final_linear"):
                    shapes |= _linear(f"{layer}.{part}.{linear}", width, width, has_biases)
            shapes |= _linear(f"{layer}.feed_forward.w_1", inner, width, has_biases)
            if options["pos_ffn_activation_fn"] in ("silu", "gated-gelu"):
                shapes |= _linear(f"{layer}.feed_forward.w_3", inner, width, has_biases)
            shapes |= _linear(f"{layer}.feed_forward.w_2", width, inner, has_biases)
    generator = torch.Generator().manual_seed(seed)
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    for name, tensor in tensors.items():
        # Embeddings are multiplied by the square root of the width.
        tensor *= 0.2 if "emb_luts" in name else 0.4
        if "norm" in name and name.endswith("weight"):
            tensor += 1
    tensors["generator.bias"][SPECIAL.index("</s>")] += 2
    for stack in LAYERS:
        tensors[f"{stack}.embeddings.make_embedding.pe.pe"] = _positions(options, width)
    return tensors


def _linear(name: str, outputs: int, inputs: int, has_bias: bool) -> dict[str, tuple[int, ...]]:
    bias = {f"{name}.bias": (outputs,)} if has_bias else {}
    return {f"{name}.weight": (outputs, inputs), **bias}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _positions(options: dict[str, Any], width: int, num_positions: int = 5000) -> Tensor:
    """The table that OpenNMT-py stores: (positions, 1, width)."""
    half = width // 2
    is_interleaved = options["position_encoding_type"] == "SinusoidalInterleaved"
    rates = torch.arange(half) * (-math.log(10_000) / (half if is_interleaved else half - 1))
    angles = torch.arange(num_positions).unsqueeze(1) * rates.exp()
    table = torch.zeros(num_positions, 1, width)
    if is_interleaved:
        table[:, 0, 0::2], table[:, 0, 1::2] = angles.sin(), angles.cos()
    else:
        table[:, 0, :half], table[:, 0, half:] = angles.sin(), angles.cos()
    return table
