"""Folders of late interaction that ``MultiVectorEncoder`` of sentence-transformers 6 writes.

The modules are an encoder, dense layers for its tokens, the mask of the compared tokens, and a
normalization. Prompts are the markers of queries and documents: plain texts, or added tokens.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

from tokenizers import Tokenizer

from attendant_export.importers.checkpoint import Checkpoint, CheckpointError, Config
from attendant_export.importers.imported import ImportedEncoder
from attendant_export.importers.prompts import SETTINGS, read_prompts
from attendant_export.importers.role_settings import RoleSettings
from attendant_export.importers.sentence_transformers import (
    MAX_SEQ_LENGTH,
    MODULES,
    NO_LOWER_CASE,
    Module,
    check_encoder_settings,
    check_folders,
    listed_modules,
    module_config,
)

TOKENS = "token_embeddings"
"""What the modules read and write: the vectors of tokens."""
MASK, NORMALIZE = "MultiVectorMask", "Normalize"
DOCUMENT_PROMPTS = "document", "passage", "corpus"
"""Names of prompts of documents. The first one that a model has is used."""
OLD_SETTINGS = (
    "query_prefix",
    "document_prefix",
    "query_length",
    "document_length",
    "query_expansion",
    "do_query_expansion",
    "attend_to_expansion_tokens",
    "attend_to_mask_tokens",
    "skiplist_words",
)
"""Settings of PyLate, which the package still reads where the modules state none."""

logger = logging.getLogger(__name__)


def is_multi_vector(checkpoint: Checkpoint) -> bool:
    """Whether ``MultiVectorEncoder`` wrote the folder."""
    return bool(checkpoint.options(SETTINGS).get("model_type") == "MultiVectorEncoder")


def multi_vector_modules(checkpoint: Checkpoint) -> list[Module]:
    """The modules after the encoder. Raises CheckpointError for those that are not supported."""
    path = checkpoint.folder / MODULES
    first, *others = listed_modules(checkpoint) or [Module("", "")]
    names = [module.name for module in others]
    is_known = set(names) == {"Dense", MASK, NORMALIZE} and names.count(MASK) == 1
    is_ordered = ("Normalize", "Dense") not in pairwise(n for n in names if n != MASK)
    is_first = first.name == "Transformer" and first.path in ("", ".")
    if not (is_first and is_known and is_ordered):
        found = ", ".join([first.name, *names])
        raise CheckpointError(
            f"{path}: the modules {found} are not supported; supported of MultiVectorEncoder: "
            f"Transformer, one or more Dense, {NORMALIZE}, and {MASK} between or after these"
        )
    check_folders(path, others)
    for module in others:
        if module.name == NORMALIZE:
            _check_normalize(module_config(checkpoint, module))
    return others


def multi_vector_settings(checkpoint: Checkpoint, encoder: ImportedEncoder) -> RoleSettings:
    """The settings of a folder; raises CheckpointError for those that are not supported."""
    checkpoint.options(SETTINGS).require(**dict.fromkeys(OLD_SETTINGS))
    settings = check_encoder_settings(checkpoint, required=NO_LOWER_CASE)
    encoder = encoder.with_stated_limit(settings, MAX_SEQ_LENGTH)
    max_tokens = encoder.with_stated_limit(settings, "document_length").max_tokens
    expansion = _expansion(settings, encoder)
    prompts = read_prompts(checkpoint, encoder.tokenizer)
    return RoleSettings(
        markers=_with_document_prompt(prompts.texts),
        max_tokens=max_tokens,
        max_query_tokens=_query_length(settings, expansion, encoder, max_tokens),
        expands_queries=expansion is not None,
        attends_to_expansion=expansion is not None
        and expansion.flag("query_expansion.attend", default=False),
        skipped_token_ids=_skipped_token_ids(checkpoint, encoder.tokenizer),
        default_prompt=prompts.default,
    )


def with_plain_markers(encoder: ImportedEncoder, checkpoint: Checkpoint) -> ImportedEncoder:
    """``encoder`` with a tokenizer whose markers are no special tokens.

    The package makes the marker of a model of PyLate or ColBERT a special token. The server reads
    special tokens in texts as plain text; added tokens without this property stay tokens.
    """
    prompts: Any = checkpoint.options(SETTINGS).get("prompts", {})
    texts = list(map(str, prompts.values())) if isinstance(prompts, dict) else []
    tokens = encoder.model.tokens
    own = {tokens.pad_id, tokens.cls_id, tokens.sep_id, tokens.mask_id}
    content = json.loads(encoder.tokenizer.to_str())
    for token in content["added_tokens"]:
        if token["id"] not in own and any(token["content"] in text for text in texts):
            token["special"] = False
    return replace(encoder, tokenizer=Tokenizer.from_str(json.dumps(content)))


def _check_normalize(config: Config) -> None:
    """Raise CheckpointError for a normalization of anything but the vectors of tokens."""
    config.choice("module_input_name", {TOKENS: TOKENS}, default="sentence_embedding")
    config.require(module_output_name=TOKENS)


def _expansion(settings: Config, encoder: ImportedEncoder) -> Config | None:
    """The expansion of queries to a fixed length; None without any. Raises CheckpointError."""
    fields: Any = settings.get("query_expansion")
    if fields is None:
        return None
    if not isinstance(fields, dict):
        raise CheckpointError(f"{settings.path}: query_expansion is {fields!r}, want an object")
    expansion = Config(
        settings.path, {f"query_expansion.{name}": value for name, value in fields.items()}
    )
    length = expansion.integer("query_expansion.length")
    # The strategy "min" leaves longer queries as they are, so it is "fixed" if none may be longer.
    is_fixed = settings.get("query_length") == length
    strategies = {"fixed": True} | ({"min": True} if is_fixed else {})
    expansion.choice("query_expansion.strategy", strategies)
    mask = encoder.model.tokens.mask_id
    if mask is not None:
        token = encoder.tokenizer.id_to_token(mask)
        expansion.choice("query_expansion.token", {token: token}, default=token)
    return expansion


def _query_length(
    settings: Config, expansion: Config | None, encoder: ImportedEncoder, max_document_tokens: int
) -> int:
    """The limit of tokens of a query. If it is not stated, it is at most that of documents."""
    if expansion is not None:
        return expansion.integer("query_expansion.length")
    if "query_length" in settings:
        return encoder.with_stated_limit(settings, "query_length").max_tokens
    if encoder.max_tokens > max_document_tokens:
        logger.warning(
            "%s: query_length is not given: queries have at most %d tokens, as documents do, and "
            "not %d as in the original",
            *(settings.path, max_document_tokens, encoder.max_tokens),
        )
    return min(encoder.max_tokens, max_document_tokens)


def _with_document_prompt(prompts: Mapping[str, str]) -> dict[str, str]:
    """``prompts`` with the one that the package puts before documents as ``document``."""
    name = next((each for each in DOCUMENT_PROMPTS if each in prompts), None)
    return {**prompts, "document": prompts[name]} if name else dict(prompts)


def _skipped_token_ids(checkpoint: Checkpoint, tokenizer: Tokenizer) -> list[int]:
    """The ids of tokens that have no vectors in documents. Raises CheckpointError."""
    (mask,) = (each for each in multi_vector_modules(checkpoint) if each.name == MASK)
    config = module_config(checkpoint, mask)
    if kept := config.get("keep_only_token_ids"):
        raise CheckpointError(
            f"{config.path}: keep_only_token_ids is {kept!r}, which is not supported; supported: "
            "none, for which all tokens are kept"
        )
    words: Any = config.get("skiplist_words", [])
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise CheckpointError(f"{config.path}: skiplist_words is {words!r}, want a list of tokens")
    if not words:
        return []
    tasks = config.get("skiplist_tasks", ["document"])
    if tasks not in (["document"], "document", []):
        raise CheckpointError(
            f"{config.path}: skiplist_tasks is {tasks!r}, which is not supported; supported: "
            "['document'] or []"
        )
    # The package ignores words that the vocabulary lacks.
    ids = [tokenizer.token_to_id(word) for word in words] if tasks else []
    return [token_id for token_id in ids if token_id is not None]
