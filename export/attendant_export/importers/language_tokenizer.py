"""Tokenizers of language models, which add no special tokens to a text in a bundle."""

import json
from typing import Any

from tokenizers import Tokenizer

from attendant_export.data.tokenizer import TOKENIZER
from attendant_export.importers import byte_level_bpe
from attendant_export.importers.checkpoint import Checkpoint, CheckpointError
from attendant_export.importers.sentencepiece_bytes import byte_bpe_tokenizer, read_byte_bpe
from attendant_export.importers.special_tokens import added_tokens, read_tokenizer

SENTENCEPIECE = "tokenizer.model"
TEMPLATES = ("TemplateProcessing", "BertProcessing", "RobertaProcessing")
"""Steps after tokenization that add special tokens."""


def read_language_tokenizer(checkpoint: Checkpoint) -> tuple[Tokenizer, int | None]:
    """The tokenizer of a folder without its special tokens, and the token that it puts first.

    Raises CheckpointError, also for a tokenizer that ends texts with a token.
    """
    if not checkpoint.has(TOKENIZER):
        return _read_vocabulary(checkpoint)
    tokenizer = read_tokenizer(checkpoint)
    before, after = added_tokens(checkpoint, tokenizer)
    if after or len(before) > 1:
        raise CheckpointError(
            f"{checkpoint.folder}: {TOKENIZER} puts {len(before)} special tokens before a text and "
            f"{len(after)} after it; supported for a language model: at most one before"
        )
    return without_special_tokens(tokenizer), before[0] if before else None


def without_special_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer without the steps that add special tokens to a text."""
    content = json.loads(tokenizer.to_str())
    content["post_processor"] = _without_templates(content.get("post_processor"))
    return Tokenizer.from_str(json.dumps(content))


def _without_templates(step: Any) -> Any:
    if step is None or step["type"] in TEMPLATES:
        return None
    if step["type"] != "Sequence":
        return step
    kept = [each for each in map(_without_templates, step["processors"]) if each is not None]
    return {**step, "processors": kept} if kept else None


def _read_vocabulary(checkpoint: Checkpoint) -> tuple[Tokenizer, int | None]:
    """The tokenizer of other files than ``tokenizer.json``."""
    if checkpoint.has(byte_level_bpe.MERGES):
        checkpoint.tokenizer_config.require(add_bos_token=False, add_eos_token=False)
        tokenizer = byte_level_bpe.read_byte_level_bpe(checkpoint)
        special = checkpoint.tokenizer_config.get("eos_token", "<|endoftext|>")
        tokenizer.add_special_tokens([special if isinstance(special, str) else special["content"]])
        return tokenizer, None
    if not checkpoint.has(SENTENCEPIECE):
        names = f"{TOKENIZER}, {byte_level_bpe.MERGES} or {SENTENCEPIECE}"
        raise CheckpointError(f"{checkpoint.title} has no tokenizer: none of {names}")
    checkpoint.tokenizer_config.require(add_eos_token=False)
    pieces = read_byte_bpe(checkpoint.path(SENTENCEPIECE))
    adds_start = checkpoint.tokenizer_config.flag("add_bos_token", default=True)
    return byte_bpe_tokenizer(pieces), pieces.start_id if adds_start else None
