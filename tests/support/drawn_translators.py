"""Random models of ``transformers`` in the place of the network of a tiny checkpoint."""

import copy
import json
import random
from pathlib import Path
from typing import Any

import torch
from attendant_export.bundle.importing import sample_texts

from tests.support.multilingual_checkpoints import EOS, PAD, language_id, write_multilingual

MAX_TOKENS = 20
MAX_ROUNDING = 2e-5
"""Bound of the effect of rounding on log-probabilities, well below that of the comparison."""
CLASSES = {
    "m2m_100": "M2M100",
    "nllb": "M2M100",
    "bart": "Bart",
    "mbart": "MBart",
    "mbart50": "MBart",
}


def draw_checkpoint(folder: Path, family: str, seed: int) -> Path:
    """Write a checkpoint whose options and weights are drawn, and return ``folder``.

    The translations of texts differ in tokens and lengths, and rounding hardly changes them.
    """
    import transformers

    draw = random.Random(seed)
    has_json = family in ("nllb", "bart") and (family == "nllb" or draw.random() < 0.5)
    write_multilingual(folder, family, has_json=has_json)
    vocab_size = json.loads((folder / "config.json").read_text())["vocab_size"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    texts = tokenizer(sample_texts()[:16], return_tensors="pt", padding=True)
    torch.manual_seed(seed)
    for _ in range(200):
        fields = _drawn_fields(draw, family, vocab_size)
        config = getattr(transformers, f"{CLASSES[family]}Config")(**fields)
        model = getattr(transformers, f"{CLASSES[family]}ForConditionalGeneration")(config).eval()
        draw_weights(draw, model, EOS)
        model.generation_config.bad_words_ids = [[PAD]]
        if is_suitable(model, texts, EOS):
            for name in ("config.json", "model.safetensors"):
                (folder / name).unlink()
            model.save_pretrained(folder)
            return folder
    raise AssertionError("no suitable model was drawn")


def _drawn_fields(draw: random.Random, family: str, vocab_size: int) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "vocab_size": vocab_size,
        "d_model": 48,
        "encoder_layers": draw.randint(1, 2),
        "decoder_layers": draw.randint(1, 2),
        "encoder_attention_heads": draw.choice((2, 3, 4)),
        "decoder_attention_heads": draw.choice((2, 3)),
        "encoder_ffn_dim": draw.choice((40, 64)),
        "decoder_ffn_dim": draw.choice((40, 64)),
        "activation_function": draw.choice(("relu", "gelu", "swish")),
        "scale_embedding": draw.random() < 0.5,
        "tie_word_embeddings": draw.random() < 0.7,
        "max_position_embeddings": 128,
        "decoder_start_token_id": EOS,
    }
    if family == "mbart":
        fields["decoder_start_token_id"] = language_id("mbart", "ro_RO")
    if family == "bart":
        fields["forced_bos_token_id"] = draw.choice((0, None))
    return fields


@torch.no_grad()
def draw_weights(draw: random.Random, model: Any, eos: int) -> None:
    """Draw weights by which translations may have different tokens and lengths."""
    for name, tensor in model.named_parameters():
        std = draw.choice((0.2, 0.3, 0.4)) if tensor.dim() > 1 else 0.2
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            std /= 2  # Sharp attention would amplify rounding.
        tensor.copy_(torch.randn(tensor.shape) * std)
        if "norm" in name and name.endswith("weight"):
            tensor += 1
    model.tie_weights()
    if hasattr(model, "final_logits_bias"):
        model.final_logits_bias.copy_(torch.randn(model.final_logits_bias.shape) * 0.3)
        model.final_logits_bias[0, eos] += draw.choice((2, 4, 6))
    else:  # The bias of the last norm makes a bias of EOS.
        bias = model.model.decoder.layer_norm.bias
        model.lm_head.weight[eos] += draw.choice((3, 5, 7, 9, 12)) * bias / (bias @ bias)


@torch.inference_mode()
def is_suitable(model: Any, texts: Any, eos: int) -> bool:
    """Whether translations are varied, and log-probabilities hardly depend on rounding."""
    found = model.generate(**texts, num_beams=1, max_new_tokens=MAX_TOKENS, max_length=None)
    outputs = [until_end(ids[1:], eos) for ids in found.tolist()]
    tokens = {token for ids in outputs for token in ids}
    if len(tokens) < 12 or len({len(ids) for ids in outputs}) < 3:
        return False
    single, double = (
        each(**texts, decoder_input_ids=found).logits.log_softmax(-1)
        for each in (model, copy.deepcopy(model).double())
    )
    return float((single - double).abs().max()) < MAX_ROUNDING


def until_end(ids: list[int], eos: int = EOS) -> list[int]:
    """The tokens up to EOS."""
    return ids[: ids.index(eos) + 1] if eos in ids else ids
