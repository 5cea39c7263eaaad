"""Imported causal language models: their weights, special tokens and defaults."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from attendant.v1.architecture_pb2 import Architecture
from attendant.v1.bundle_pb2 import DecodingDefaults
from attendant_manifest.part_rules import MAX_TOKENS
from tokenizers import Tokenizer

from attendant_export.graphs.attention import check_decoder_heads
from attendant_export.importers.checkpoint import Checkpoint, CheckpointError, Config
from attendant_export.importers.generation import generation_config, read_search_defaults
from attendant_export.importers.language_tokenizer import read_language_tokenizer
from attendant_export.importers.stated_tokens import stated_token
from attendant_export.importers.tokenizer_checks import largest_id
from attendant_export.importers.weight_names import Weights, WeightTable
from attendant_export.models.causal_language_model import CausalLanguageModel
from attendant_export.models.embeddings import longest_text
from attendant_export.models.special_tokens import LanguageModelTokens

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ImportedLanguageModel:
    """A causal language model of a checkpoint."""

    family: str
    """Name of the family, such as ``llama``."""
    model: CausalLanguageModel
    tokenizer: Tokenizer
    """It adds no special tokens."""
    max_tokens: int
    """Limit of tokens of a prompt and its continuation together."""
    decoding: DecodingDefaults


def load_language_model(
    family: str,
    architecture: Architecture,
    checkpoint: Checkpoint,
    table: WeightTable,
    weights: Weights,
    longest: int = MAX_TOKENS,
) -> ImportedLanguageModel:
    """The model of a folder of ``architecture`` with ``weights``; raises CheckpointError.

    ``longest`` limits the tokens of a text beside the positions.
    """
    tokenizer, start_id = read_language_tokenizer(checkpoint)
    eos_id = _eos_id(checkpoint, tokenizer)
    tokens = LanguageModelTokens(_pad_id(checkpoint, tokenizer, eos_id), start_id, eos_id)
    vocab_size = architecture.target_embeddings.vocab_size
    if (largest := largest_id(tokenizer)) >= vocab_size:
        raise CheckpointError(
            f"{checkpoint.title}: token id {largest} exceeds the vocab_size {vocab_size}"
        )
    model = new_language_model(architecture, tokens, table, weights, checkpoint.title)
    max_tokens = longest_text(architecture, min(longest, MAX_TOKENS))
    decoding = read_search_defaults(checkpoint)
    return ImportedLanguageModel(family, model, tokenizer, max_tokens, decoding)


def new_language_model(
    architecture: Architecture,
    tokens: LanguageModelTokens,
    table: WeightTable,
    weights: Weights,
    title: str,
) -> CausalLanguageModel:
    """The model with ``weights``, whose names are those of ``table``.

    Raises CheckpointError that begins with ``title`` if graphs do not support the network, and for
    weights that do not fit.
    """
    try:
        check_decoder_heads(architecture)
        with torch.device("meta"):  # no memory for sizes that the weights may not have
            model = CausalLanguageModel(architecture, tokens).eval()
    except ValueError as error:
        raise CheckpointError(f"{title}: {error}") from error
    table.load(model, weights)
    return model


def _eos_id(checkpoint: Checkpoint, tokenizer: Tokenizer) -> int:
    """The token that ends texts: of several, that of the tokenizer or the first one."""
    config = generation_config(checkpoint)
    stated: Any = config.get("eos_token_id", checkpoint.config.get("eos_token_id"))
    ids = stated if isinstance(stated, list) else [stated]
    if not ids or not all(type(each) is int and each >= 0 for each in ids):
        raise CheckpointError(f"{config.path}: eos_token_id is {stated!r}, want the id of a token")
    named = tokenizer.token_to_id(stated_token(checkpoint, "eos_token", ""))
    eos_id: int = ids[ids.index(named) if named in ids else 0]
    if others := sorted(set(ids) - {eos_id}):
        logger.warning(
            "%s: eos_token_id is %s, but a bundle has one end token, %d: %s do not end texts",
            *(config.path, ids, eos_id, ", ".join(map(str, others))),
        )
    return eos_id


def _pad_id(checkpoint: Checkpoint, tokenizer: Tokenizer, eos_id: int) -> int:
    """The padding, which no token attends to: the one that is stated, or else the end token."""
    named = tokenizer.token_to_id(stated_token(checkpoint, "pad_token", ""))
    for pad_id in (checkpoint.config.get("pad_token_id"), named):
        if isinstance(pad_id, int) and pad_id >= 0:  # -1 stands for none.
            return pad_id
    return eos_id


def check_is_decoder(config: Config, defaults: Mapping[str, Any]) -> None:
    """Raise CheckpointError unless fields, if they are given, have the values of ``defaults``."""
    config.require(is_encoder_decoder=False, add_cross_attention=False, **defaults)
