"""Decoder-shaped encoders of drawn configurations follow the original implementation."""

import random

import pytest
import torch
from attendant_export.bundle.manifest import read_manifest
from safetensors.torch import save_file

from tests.support.checkpoints import change_json
from tests.support.decoder_checkpoints import write_gemma3, write_qwen3
from tests.support.drawn_seeds import seeds
from tests.support.imports import import_

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.usefixtures("quiet_threads")

TYPES = ("full_attention", "sliding_attention")
FAMILIES = {
    "qwen3": (write_qwen3, ("silu", "gelu", "relu"), "hidden_act"),
    "gemma3_text": (write_gemma3, ("gelu_pytorch_tanh", "gelu", "silu"), "hidden_activation"),
}


def draw_sizes(draw):
    """Fields that both families have."""
    num_key_value_heads, num_layers = draw.randint(1, 3), draw.randint(1, 4)
    num_heads = num_key_value_heads * draw.randint(1, 3)
    return {
        "hidden_size": num_heads * draw.choice((8, 14)),
        "num_hidden_layers": num_layers,
        "num_attention_heads": num_heads,
        "num_key_value_heads": num_key_value_heads,
        "head_dim": draw.choice((6, 8, 24)),
        "intermediate_size": draw.randint(20, 80),
        "max_position_embeddings": draw.randint(110, 140),
        "rms_norm_eps": draw.choice((1e-6, 1e-5, 1e-3)),
        "rope_theta": draw.choice((50.0, 10_000.0, 1e6)),
        "layer_types": [draw.choice(TYPES) for _ in range(num_layers)],
        "sliding_window": draw.choice((5, 8, 40)),
        "attention_bias": draw.random() < 0.5,
    }


def draw_checkpoint(folder, family, seed):
    """A folder with random weights and a configuration within the options of the family."""
    draw = random.Random(seed)
    write, activations, activation = FAMILIES[family]
    fields = draw_sizes(draw) | {activation: draw.choice(activations)}
    if family == "qwen3":
        fields["use_sliding_window"] = "sliding_attention" in fields["layer_types"]
    else:
        fields["use_bidirectional_attention"] = draw.random() < 0.7
        fields["query_pre_attn_scalar"] = draw.choice((8, 24, 256))
        fields["rope_local_base_freq"] = draw.choice((20.0, 10_000.0))
    write(folder, **fields)
    torch.manual_seed(seed)
    config = transformers.AutoConfig.from_pretrained(folder)
    kind = draw.choice((transformers.AutoModel, transformers.AutoModelForCausalLM))
    model = kind.from_config(config)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            around = 1 if "norm" in name and family == "qwen3" else 0
            tensor.copy_(torch.randn_like(tensor) * 0.2 + around)
    for name in ("config.json", "model.safetensors"):
        (folder / name).unlink()
    model.save_pretrained(folder)
    for path in folder.glob("*_Dense"):  # The width of their inputs is another one.
        change_width(path, fields["hidden_size"])


def change_width(folder, width):
    """Replace a dense layer by one between vectors of this width."""
    change_json(folder / "config.json", in_features=width, out_features=width)
    weight = torch.randn(width, width, generator=torch.Generator().manual_seed(1))
    save_file({"linear.weight": weight}, folder / "model.safetensors")


@pytest.mark.parametrize("seed", seeds())
@pytest.mark.parametrize("family", FAMILIES)
def test_a_drawn_configuration_follows_the_original(family, seed, tmp_path):
    draw_checkpoint(tmp_path / "source", family, seed)

    bundle = import_(tmp_path / "source", tmp_path / "bundles", "--precisions", "fp32,fp16,int8")

    parity = read_manifest(bundle).parity.original
    assert (parity.num_texts >= 12, parity.num_different_token_ids) == (True, 0)
    assert parity.min_cosine >= 0.99999
    by_precision = {each.precision: each.embeddings for each in parity.vectors}
    assert by_precision["fp32"].min_cosine >= 0.99999
    assert by_precision["fp16"].min_cosine >= 0.999
    assert by_precision["int8"].mean_cosine >= 0.98
