"""Checks that ``tokenizer.json``, which a bundle takes as it is, fits the rest of a checkpoint."""

import json
from typing import Any

from attendant.v1.architecture_pb2 import Architecture
from tokenizers import Tokenizer

from attendant_export.data.tokenizer import TOKENIZER
from attendant_export.importers.checkpoint import TOKENIZER_CONFIG, Checkpoint, CheckpointError
from attendant_export.importers.special_tokens import read_tokenizer
from attendant_export.models.special_tokens import EncoderTokens

NORMALIZER_FIELDS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
"""Fields of BERT's normalizer in ``tokenizer.json``, by name in ``tokenizer_config.json``."""

NORMALIZER_DEFAULTS = {
    "do_lower_case": True,
    "strip_accents": None,
    "tokenize_chinese_chars": True,
}
"""The values by which the original builds that normalizer if its configuration states none."""
CLASSES_WITH_DEFAULTS = (
    "BertTokenizer",
    "DistilBertTokenizer",
    "ElectraTokenizer",
    "MPNetTokenizer",
)
FAMILIES_WITH_DEFAULTS = ("bert", "distilbert", "electra", "mpnet")
"""Tokenizers with these values, and families whose tokenizer is one of them unless stated."""
OWN_TOKENIZERS = ("BertJapaneseTokenizer", "BertweetTokenizer", "PhobertTokenizer")
"""Tokenizers that the original has in Python only, whatever is in ``tokenizer.json``."""
GENERIC_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Tokenizers that give no types of tokens unless the configuration states them."""


def check_tokenizer(checkpoint: Checkpoint, tokens: EncoderTokens, vocab_size: int) -> None:
    """Raise CheckpointError if the tokenizer does not fit the model or its configuration."""
    config = checkpoint.tokenizer_class
    if (name := config.get("tokenizer_class")) in OWN_TOKENIZERS:
        raise CheckpointError(
            f"{config.path}: tokenizer_class is {name!r}, which is not supported: it does not read "
            f"{TOKENIZER}"
        )
    tokenizer = read_tokenizer(checkpoint)
    path = checkpoint.folder / TOKENIZER
    content = json.loads(tokenizer.to_str())
    if (largest := largest_id(tokenizer)) >= vocab_size:
        raise CheckpointError(f"{path}: token id {largest} exceeds the vocab_size {vocab_size}")
    ids = tokenizer.encode("a").ids
    if tokens.cls_id not in (None, ids[0]) or tokens.sep_id not in (None, ids[-1]):
        raise CheckpointError(
            f"{path}: a text does not begin with the cls_token and end with the sep_token"
        )
    _check_normalizer(checkpoint, content.get("normalizer") or {})


def check_token_types(checkpoint: Checkpoint, architecture: Architecture) -> None:
    """Raise CheckpointError if the tokenizer gives tokens of a single text another type than 0."""
    if architecture.source_embeddings.num_token_types < 2:
        return
    if any(read_tokenizer(checkpoint).encode("a").type_ids):
        raise CheckpointError(
            f"{checkpoint.folder / TOKENIZER}: a single text has tokens of another type than 0"
        )


def gives_token_types(checkpoint: Checkpoint) -> bool:
    """Whether the original gives the second text of a pair tokens of another type."""
    config = _config(checkpoint)
    names = config.get("model_input_names")
    if isinstance(names, list):
        return "token_type_ids" in names
    return checkpoint.tokenizer_class.get("tokenizer_class") not in GENERIC_CLASSES


def stated_max_tokens(checkpoint: Checkpoint) -> int | None:
    """The limit of tokens that the tokenizer's configuration states. None: no limit."""
    limit = _config(checkpoint).get("model_max_length")
    return limit if isinstance(limit, int) and limit > 0 else None


def largest_id(tokenizer: Tokenizer) -> int:
    """The largest id in texts, in which the server recognizes no special tokens."""
    ids = tokenizer.get_vocab(with_added_tokens=False).values()
    tokens = tokenizer.get_added_tokens_decoder().items()
    added = (token_id for token_id, token in tokens if not token.special)
    return max([*ids, *added], default=0)


def _check_normalizer(checkpoint: Checkpoint, normalizer: dict[str, Any]) -> None:
    """Raise CheckpointError if the configuration states another normalization."""
    if normalizer.get("type") != "BertNormalizer":
        return
    stated = _config(checkpoint)
    config = (NORMALIZER_DEFAULTS if _has_normalizer_defaults(checkpoint) else {}) | stated
    for theirs, ours in NORMALIZER_FIELDS.items():
        if theirs not in config:
            continue
        values = [config[theirs], normalizer[ours]]
        if theirs == "strip_accents" and None in values:  # as lower case
            values = [normalizer["lowercase"] if each is None else each for each in values]
        if values[0] != values[1]:
            default = "" if theirs in stated else " by default"
            raise CheckpointError(
                f"{checkpoint.folder / TOKENIZER_CONFIG}: {theirs} is {config[theirs]!r}{default}, "
                f"but {ours} in {TOKENIZER} is {normalizer[ours]!r}"
            )


def _has_normalizer_defaults(checkpoint: Checkpoint) -> bool:
    name = checkpoint.tokenizer_class.get("tokenizer_class")
    if name is None:
        return checkpoint.config.get("model_type") in FAMILIES_WITH_DEFAULTS
    return str(name).removesuffix("Fast") in CLASSES_WITH_DEFAULTS


def _config(checkpoint: Checkpoint) -> dict[str, Any]:
    return checkpoint.json_object(TOKENIZER_CONFIG) if checkpoint.has(TOKENIZER_CONFIG) else {}
