"""Tiny checkpoints of M2M100, NLLB, BART, mBART and mBART-50, written file by file."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from attendant_export.bundle.importing import sample_texts
from attendant_export.importers.languages import known_codes
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from tests.support.checkpoints import Shapes, linear, norm, random_tensors, write_json
from tests.support.sentencepiece_files import Pieces, frequent_pieces, option, write_sentencepiece

WIDTH, SOURCE_LAYERS, TARGET_LAYERS = 32, 2, 1
FIRST = ("<s>", "<pad>", "</s>", "<unk>")
PAD, EOS, UNK = 1, 2, 3
BPE = option(3, 2)
"""The trainer's option that makes a SentencePiece model one of BPE."""
NLLB_CODES = ("eng_Latn", "deu_Latn", "zho_Hans", "zho_Hant")
"""The languages of a trimmed NLLB, whose tokenizer is in ``tokenizer.json``."""
CLASSES = {
    "m2m_100": "M2M100Tokenizer",
    "nllb": "NllbTokenizer",
    "bart": "BartTokenizer",
    "mbart": "MBartTokenizer",
    "mbart50": "MBart50Tokenizer",
}
FIELDS: dict[str, Any] = {
    "is_encoder_decoder": True,
    "d_model": WIDTH,
    "encoder_layers": SOURCE_LAYERS,
    "decoder_layers": TARGET_LAYERS,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 40,
    "max_position_embeddings": 130,
    "pad_token_id": PAD,
    "eos_token_id": EOS,
    "bad_words_ids": [[PAD]],
    "decoder_start_token_id": EOS,
    "forced_eos_token_id": EOS,
}


@cache
def tiny_pieces() -> Pieces:
    """The pieces of a joint vocabulary, all characters of the texts included."""
    texts = [text for text in sample_texts() if text < "\u0250"]
    found = frequent_pieces(texts, 300)
    rare = sorted({c for text in texts for c in text} - {" ", *found.scores})
    return replace(found, scores={**found.scores, **dict.fromkeys(rare, -15.0)})


def piece_texts() -> list[str]:
    """The tokens of the vocabulary, without languages, in the order of their ids."""
    return [*FIRST, *tiny_pieces().scores]


def language_id(family: str, code: str) -> int:
    """The id of a language's token, after a SentencePiece model's pieces."""
    codes = known_codes({"m2m_100": "m2m100"}.get(family, family))
    return len(piece_texts()) + codes.index(code)


def write_multilingual(
    folder: Path, family: str, trainer: bytes = b"", has_json: bool = False, **fields: Any
) -> Path:
    """Write a checkpoint and return ``folder``. ``fields`` change the configuration.

    ``trainer`` has options of the SentencePiece model. With ``has_json``, the tokenizer is in
    ``tokenizer.json`` instead.
    """
    folder.mkdir(parents=True)
    size = _write_tokenizer(folder, family, trainer, has_json)
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": CLASSES[family]})
    config = {"model_type": _model_type(family), **FIELDS, "vocab_size": size, **fields}
    if family == "mbart" and "decoder_start_token_id" not in fields:
        config["decoder_start_token_id"] = language_id("mbart", "ro_RO")
    write_json(folder / "config.json", {k: v for k, v in config.items() if v is not None})
    save_file(random_tensors(network_shapes(family, size)), folder / "model.safetensors")
    (folder / "README.md").write_text("---\nlicense: cc0-1.0\n---\n# A tiny model\n")
    return folder


def _model_type(family: str) -> str:
    return {"nllb": "m2m_100", "mbart50": "mbart"}.get(family, family)


def _write_tokenizer(folder: Path, family: str, trainer: bytes, has_json: bool) -> int:
    """Write the tokenizer and return the number of ids."""
    if family == "bart":
        return _write_byte_level_bpe(folder, has_json)
    if has_json:
        return _write_tokenizer_json(folder)
    write_sentencepiece(folder / "sentencepiece.bpe.model", tiny_pieces(), trainer=trainer)
    texts = piece_texts()
    if family == "m2m_100":
        write_json(folder / "vocab.json", {text: i for i, text in enumerate(texts)})
        return len(texts) + len(known_codes("m2m100")) + 8
    return len(texts) + len(known_codes(family)) + 1


def _write_byte_level_bpe(folder: Path, has_json: bool) -> int:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[*FIRST, "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample_texts(), trainer)
    if has_json:
        tokenizer.save(str(folder / "tokenizer.json"))
    else:
        content = json.loads(tokenizer.to_str())["model"]
        write_json(folder / "vocab.json", content["vocab"])
        merges = (
            merge if isinstance(merge, str) else " ".join(merge) for merge in content["merges"]
        )
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    return tokenizer.get_vocab_size()


def _write_tokenizer_json(folder: Path) -> int:
    """A trimmed NLLB: a BPE tokenizer with a few languages, and two ids without tokens."""
    texts = [*piece_texts(), *NLLB_CODES, "<mask>"]
    scores = tiny_pieces().scores
    merges = [
        (piece[:i], piece[i:])
        for piece in sorted(scores, key=len)
        for i in range(1, len(piece))
        if piece[:i] in scores and piece[i:] in scores
    ]
    ids = {text: i for i, text in enumerate(texts)}
    tokenizer = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([*FIRST, *NLLB_CODES, "<mask>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    return len(texts) + 2


def network_shapes(family: str, vocab_size: int) -> Shapes:
    """Names and shapes of the weights."""
    shapes: Shapes = {"model.shared.weight": (vocab_size, WIDTH)}
    if family not in ("m2m_100", "nllb"):
        shapes["final_logits_bias"] = (1, vocab_size)
    for stack, layers, size in (("encoder", SOURCE_LAYERS, 48), ("decoder", TARGET_LAYERS, 40)):
        name = f"model.{stack}"
        attentions = ["self_attn"] if stack == "encoder" else ["self_attn", "encoder_attn"]
        for layer in range(layers):
            shapes |= _layer(f"{name}.layers.{layer}", attentions, size)
        if family != "bart":
            shapes |= norm(f"{name}.layer_norm", WIDTH)
        if family not in ("m2m_100", "nllb"):
            shapes |= norm(f"{name}.layernorm_embedding", WIDTH)
            shapes[f"{name}.embed_positions.weight"] = (132, WIDTH)
    return shapes


def _layer(name: str, attentions: Sequence[str], d_feed_forward: int) -> Shapes:
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
