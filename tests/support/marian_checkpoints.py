"""Tiny MarianMT checkpoints, written file by file as ``transformers`` writes them."""

from functools import cache
from pathlib import Path
from typing import Any

from attendant_export.bundle.importing import sample_texts
from safetensors.torch import save_file

from tests.support.checkpoints import Shapes, linear, norm, random_tensors, write_json
from tests.support.sentencepiece_files import Pieces, frequent_pieces, write_sentencepiece

WIDTH, SOURCE_LAYERS, TARGET_LAYERS = 32, 2, 1
OWN_TOKENS = ("\U0001f633", ">>fra<<", ">>deu<<")
"""Tokens of the vocabulary that are no pieces."""
LACKING = 5
"""Every fifth piece is not in the vocabulary."""
FIELDS: dict[str, Any] = {
    "model_type": "marian",
    "is_encoder_decoder": True,
    "d_model": WIDTH,
    "encoder_layers": SOURCE_LAYERS,
    "decoder_layers": TARGET_LAYERS,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 40,
    "activation_function": "swish",
    "max_position_embeddings": 130,
    "scale_embedding": True,
    "normalize_before": False,
    "static_position_embeddings": True,
    "share_encoder_decoder_embeddings": True,
    "tie_word_embeddings": True,
    "eos_token_id": 0,
    "forced_eos_token_id": 0,
}


@cache
def tiny_pieces(side: str) -> Pieces:
    """The pieces of one side: English for the source, French for the target."""
    is_ascii = side == "source"
    texts = [text for text in sample_texts() if text.isascii() == is_ascii and text < "\u0250"]
    return frequent_pieces(texts[:40], 260)


def tiny_vocabulary(codes: bool = True) -> dict[str, int]:
    """A joint vocabulary that lacks some pieces; padding comes last, as in OPUS-MT."""
    own = [token for token in OWN_TOKENS if codes or not token.startswith(">>")]
    pieces = [
        piece
        for side in ("source", "target")
        for i, piece in enumerate(tiny_pieces(side).scores)
        if i % LACKING
    ]
    texts = dict.fromkeys(["</s>", "<unk>", *own, *pieces, "<pad>"])
    return {text: i for i, text in enumerate(texts)}


def write_marian(folder: Path, codes: bool = False, varies: bool = False, **fields: Any) -> Path:
    """Write a checkpoint and return ``folder``. ``fields`` change the configuration.

    With ``codes``, the vocabulary has two language codes. With ``varies``, translations have
    different tokens and lengths.
    """
    folder.mkdir(parents=True)
    vocabulary = tiny_vocabulary(codes)
    size = len(vocabulary)
    for side in ("source", "target"):
        write_sentencepiece(folder / f"{side}.spm", tiny_pieces(side))
    write_json(folder / "vocab.json", vocabulary)
    write_json(folder / "tokenizer_config.json", {"source_lang": "en", "target_lang": "fr"})
    pad = {"pad_token_id": size - 1, "decoder_start_token_id": size - 1}
    config = {**FIELDS, "vocab_size": size, "bad_words_ids": [[size - 1]], **pad, **fields}
    write_json(folder / "config.json", {k: v for k, v in config.items() if v is not None})
    tensors = random_tensors(marian_shapes(config))
    if varies:
        for tensor in tensors.values():
            if len(tensor) > 1 and tensor.dim() > 1:
                tensor *= 2.5
    # Otherwise nearly all translations end at once, which makes imports fast.
    tensors["final_logits_bias"][0, 0] = 6.0 if varies else 4.0
    save_file(tensors, folder / "model.safetensors")
    (folder / "README.md").write_text("---\nlicense: cc0-1.0\n---\n# A tiny model\n")
    return folder


def write_generation(folder: Path, **fields: Any) -> Path:
    """Write search options into a file of their own."""
    write_json(folder / "generation_config.json", fields)
    return folder


def marian_shapes(config: dict[str, Any]) -> Shapes:
    """Names and shapes of the weights."""
    source_size = config["vocab_size"]
    target_size = config.get("decoder_vocab_size", source_size)
    shapes: Shapes = {"final_logits_bias": (1, target_size)}
    if config["share_encoder_decoder_embeddings"]:
        shapes["model.shared.weight"] = (source_size, WIDTH)
    else:
        shapes["model.encoder.embed_tokens.weight"] = (source_size, WIDTH)
        shapes["model.decoder.embed_tokens.weight"] = (target_size, WIDTH)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (target_size, WIDTH)
    for layer in range(SOURCE_LAYERS):
        shapes |= _layer(f"model.encoder.layers.{layer}", ["self_attn"], 48)
    for layer in range(TARGET_LAYERS):
        shapes |= _layer(f"model.decoder.layers.{layer}", ["self_attn", "encoder_attn"], 40)
    return shapes


def _layer(name: str, attentions: list[str], d_feed_forward: int) -> Shapes:
    shapes: Shapes = {}
    for attention in attentions:
        for each in ("k_proj", "v_proj", "q_proj", "out_proj"):
            shapes |= linear(f"{name}.{attention}.{each}", WIDTH, WIDTH)
        shapes |= norm(f"{name}.{attention}_layer_norm", WIDTH)
    return {
        **shapes,
        **linear(f"{name}.fc1", WIDTH, d_feed_forward),
        **linear(f"{name}.fc2", d_feed_forward, WIDTH),
        **norm(f"{name}.final_layer_norm", WIDTH),
    }
