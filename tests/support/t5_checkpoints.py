"""Tiny T5 checkpoints, written file by file as ``transformers`` writes them."""

from functools import cache
from pathlib import Path
from typing import Any

from attendant_export.bundle.importing import sample_texts
from safetensors.torch import save_file

from tests.support.checkpoints import Shapes, random_tensors, write_json
from tests.support.sentencepiece_files import (
    BYTE,
    CONTROL,
    UNKNOWN,
    USER_DEFINED,
    Pieces,
    frequent_pieces,
    option,
    write_sentencepiece,
)

WIDTH, SOURCE_LAYERS, TARGET_LAYERS, INNER, FEED_FORWARD = 32, 2, 1, 24, 40
NUM_EXTRA_IDS = 3
END = {
    "__type": "AddedToken",
    "content": "</s>",
    **dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False),
}
FIELDS: dict[str, Any] = {
    "model_type": "t5",
    "is_encoder_decoder": True,
    "d_model": WIDTH,
    "d_kv": 8,
    "d_ff": FEED_FORWARD,
    "num_heads": INNER // 8,
    "num_layers": SOURCE_LAYERS,
    "num_decoder_layers": TARGET_LAYERS,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "layer_norm_epsilon": 1e-6,
    "feed_forward_proj": "relu",
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}
MADLAD_FIELDS: dict[str, Any] = {
    "feed_forward_proj": "gated-gelu",
    "dense_act_fn": "gelu_new",
    "is_gated_act": True,
    "tie_word_embeddings": False,
    "pad_token_id": 1,
    "eos_token_id": 2,
}
TASKS: dict[str, dict[str, Any]] = {
    "summarization": {"prefix": "summarize: "},
    "translation_en_to_de": {"prefix": "translate English to German: ", "num_beams": 4},
    "translation_en_to_fr": {"prefix": "translate English to French: "},
}
FIRST = (("<pad>", 0.0, CONTROL), ("</s>", 0.0, CONTROL), ("<unk>", 0.0, UNKNOWN))
CODES = ("<2de>", "<2zh_Hant>", "<2translate>", "<2zxx_xx>")
MADLAD_FIRST = (
    ("<unk>", 0.0, UNKNOWN),
    ("<s>", 0.0, CONTROL),
    ("</s>", 0.0, CONTROL),
    *((code, 0.0, USER_DEFINED) for code in CODES),
    *((f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)),
)


@cache
def tiny_pieces() -> Pieces:
    """Pieces of Latin texts, with the characters of tokens of languages and bytes."""
    texts = [text for text in sample_texts() if text < "\u0250"]
    trained = frequent_pieces([*texts[:40], *(task["prefix"] for task in TASKS.values())], 300)
    own = {character for text, _, _ in MADLAD_FIRST for character in text}
    characters = sorted(own - trained.scores.keys())
    return Pieces(dict(trained.scores) | dict.fromkeys(characters, -12.0), trained.rules)


def write_t5(folder: Path, is_madlad: bool = False, **fields: Any) -> Path:
    """Write a checkpoint and return ``folder``. ``fields`` change the configuration.

    A checkpoint like MADLAD-400 has language tokens, bytes, gates and a head of its own.
    """
    folder.mkdir(parents=True)
    first = MADLAD_FIRST if is_madlad else FIRST
    trainer = option(35, 1) if is_madlad else b""
    write_sentencepiece(folder / "spiece.model", tiny_pieces(), trainer=trainer, special=first)
    num_extra = 0 if is_madlad else NUM_EXTRA_IDS
    special: dict[str, Any] = {"pad_token": "<s>"} if is_madlad else {"eos_token": END}
    write_json(folder / "tokenizer_config.json", {"extra_ids": num_extra, **special})
    size = len(first) + len(tiny_pieces().scores) + num_extra
    config = {**FIELDS, "vocab_size": size + 5, **(MADLAD_FIELDS if is_madlad else {}), **fields}
    write_json(folder / "config.json", {k: v for k, v in config.items() if v is not None})
    tensors = random_tensors(t5_shapes(config))
    tensors["shared.weight"] *= 5
    save_file(tensors, folder / "model.safetensors")
    (folder / "README.md").write_text("---\nlicense: cc0-1.0\n---\n# A tiny model\n")
    return folder


def t5_shapes(config: dict[str, Any]) -> Shapes:
    """Names and shapes of the weights."""
    size = config["vocab_size"]
    shapes: Shapes = {"shared.weight": (size, WIDTH)}
    if config.get("tie_word_embeddings", True) is False:
        shapes["lm_head.weight"] = (size, WIDTH)
    is_gated = config["feed_forward_proj"].startswith("gated")
    for layer in range(SOURCE_LAYERS):
        name = f"encoder.block.{layer}.layer"
        shapes |= _attention(f"{name}.0", "SelfAttention") | _feed_forward(f"{name}.1", is_gated)
    for layer in range(TARGET_LAYERS):
        name = f"decoder.block.{layer}.layer"
        shapes |= _attention(f"{name}.0", "SelfAttention")
        shapes |= _attention(f"{name}.1", "EncDecAttention") | _feed_forward(f"{name}.2", is_gated)
    for stack in ("encoder", "decoder"):
        bias = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        shapes |= {bias: (8, INNER // 8), f"{stack}.final_layer_norm.weight": (WIDTH,)}
    return shapes


def _attention(name: str, kind: str) -> Shapes:
    return {
        **{f"{name}.{kind}.{each}.weight": (INNER, WIDTH) for each in "qkv"},
        f"{name}.{kind}.o.weight": (WIDTH, INNER),
        f"{name}.layer_norm.weight": (WIDTH,),
    }


def _feed_forward(name: str, is_gated: bool) -> Shapes:
    expand = ("wi_0", "wi_1") if is_gated else ("wi",)
    return {
        **{f"{name}.DenseReluDense.{each}.weight": (FEED_FORWARD, WIDTH) for each in expand},
        f"{name}.DenseReluDense.wo.weight": (WIDTH, FEED_FORWARD),
        f"{name}.layer_norm.weight": (WIDTH,),
    }
