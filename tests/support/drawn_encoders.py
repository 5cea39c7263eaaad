"""Encoders of drawn configurations with random weights, written by the original implementation."""

import random
from pathlib import Path

import torch

from tests.support.checkpoints import write_checkpoint

ACTIVATIONS = ("gelu", "relu", "gelu_new", "silu")
NAMES = {
    "distilbert": ("hidden_dim", "activation"),
    "modernbert": ("intermediate_size", "hidden_activation", "norm_eps"),
}
"""Width of feed-forward networks, activation and epsilon of norms, in families that name them in
their own way."""


def draw_checkpoint(folder: Path, family: str, seed: int, has_head: bool | None = None) -> bool:
    """A checkpoint with random weights and a configuration within the options of the family.

    Returns whether it has a head, which is drawn by default.
    """
    import transformers

    draw = random.Random(seed)
    write_checkpoint(folder, family)
    config = transformers.AutoConfig.from_pretrained(folder)
    num_heads = draw.randint(1, 4)
    config.num_attention_heads = num_heads
    config.hidden_size = num_heads * draw.choice((8, 16))
    config.num_hidden_layers = draw.randint(1, 4)
    config.max_position_embeddings = draw.randint(110, 140)
    names = NAMES.get(family, ("intermediate_size", "hidden_act", "layer_norm_eps"))
    values = (draw.randint(20, 80), draw.choice(ACTIVATIONS), draw.choice((1e-12, 1e-7, 1e-5)))
    for name, value in zip(names, values, strict=False):
        setattr(config, name, value)
    if family == "modernbert":
        kinds = ("full_attention", "sliding_attention")
        config.layer_types = [draw.choice(kinds) for _ in range(config.num_hidden_layers)]
        config.local_attention = draw.choice((8, 16, 40))
    classes = transformers.AutoModel, transformers.AutoModelForMaskedLM
    kind = draw.choice(classes) if has_head is None else classes[has_head]
    torch.manual_seed(seed)
    model = kind.from_config(config)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            around = 1 if "norm" in name.lower() and name.endswith("weight") else 0
            tensor.copy_(torch.randn_like(tensor) * 0.2 + around)
    for name in ("config.json", "model.safetensors"):
        (folder / name).unlink()
    model.save_pretrained(folder)
    return kind is transformers.AutoModelForMaskedLM
