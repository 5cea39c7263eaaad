"""Tiny models for classification with random weights, written by the original implementation."""

import random
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.support.checkpoints import write_checkpoint

FIELDS = {
    "bert": "hidden_act",
    "distilbert": "activation",
    "modernbert": "hidden_activation",
}
"""Names of the activation in families that were written for this purpose."""


def write_classifier(
    folder: Path, family: str, num_labels: int = 3, seed: int = 0, **fields: Any
) -> Path:
    """Write a checkpoint with a head for classification and return ``folder``.

    ``seed`` draws the number of layers, widths, the activation and, if the family has a choice, the
    form of the head. ``fields`` are further fields of the configuration.
    """
    import transformers

    draw = random.Random(seed)
    write_checkpoint(folder, family)
    config = transformers.AutoConfig.from_pretrained(folder, num_labels=num_labels)
    config.num_hidden_layers = draw.randint(1, 3)
    config.num_attention_heads = draw.randint(1, 4)
    config.hidden_size = config.num_attention_heads * draw.choice((8, 16))
    setattr(config, FIELDS.get(family, "hidden_act"), draw.choice(("gelu", "relu", "gelu_new")))
    if family == "modernbert":
        config.layer_types = ["full_attention"] * config.num_hidden_layers
        config.classifier_pooling = draw.choice(("cls", "mean"))
        config.classifier_activation = draw.choice(("gelu", "silu"))
        config.classifier_bias, config.norm_bias = draw.choice((True, False)), bool(seed % 2)
    for name, value in fields.items():
        setattr(config, name, value)
    torch.manual_seed(seed)
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            around = 1 if "norm" in name.lower() and name.endswith("weight") else 0
            tensor.copy_(torch.randn_like(tensor) * 0.2 + around)
    config.architectures = [type(model).__name__]
    (folder / "config.json").unlink()
    config.save_pretrained(folder)
    save_file(model.state_dict(), folder / "model.safetensors", {"format": "pt"})
    return folder
