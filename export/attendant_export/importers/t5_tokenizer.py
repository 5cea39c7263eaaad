"""Tokenizers of T5 checkpoints, and the prefixes that select the language of a translation."""

import logging
import re

from attendant.v1.bundle_pb2 import Language, SpecialTokens
from tokenizers import Tokenizer

from attendant_export.data.tokenizer import TOKENIZER, unknown_token_id
from attendant_export.importers.byte_tokenizer import byte_tokenizer, reads_bytes
from attendant_export.importers.checkpoint import Checkpoint, CheckpointError, Config
from attendant_export.importers.languages import language_tags
from attendant_export.importers.sentencepiece_model import read_sentencepiece
from attendant_export.importers.sentencepiece_tokenizer import (
    Vocabulary,
    sentencepiece_tokenizer,
)
from attendant_export.importers.special_tokens import read_tokenizer
from attendant_export.importers.stated_tokens import check_tokenizer_class, stated_token
from attendant_export.importers.tokenizer_checks import stated_max_tokens
from attendant_export.importers.translation_tokenizers import TranslationTokenizers

logger = logging.getLogger(__name__)

SENTENCEPIECE = "spiece.model"
DEFAULT_MAX_TOKENS = 512
LANGUAGE_TOKEN = re.compile(r"<2([a-z]{2,3}(?:_[A-Za-z0-9]{2,8})*)>")
"""A token of MADLAD-400 that selects the language of the target."""
NO_LANGUAGE = "zxx"
TASK = re.compile(r"translation_([A-Za-z]{2,3})_to_([A-Za-z]{2,3})")
"""The name of a translation in ``task_specific_params``."""
TEXTS = ("a", "The train, at 9:30.", "\u00c9t\u00e9", "1", "?", "\u4e2d\u6587", "-", "<x>")
"""Texts whose tokens must not depend on a prefix."""


def read_t5_tokenizers(checkpoint: Checkpoint, vocab_size: int) -> TranslationTokenizers:
    """The tokenizers of a checkpoint; raises CheckpointError."""
    config = checkpoint.tokenizer_config
    if config.get("clean_up_tokenization_spaces", False):
        logger.warning("clean_up_tokenization_spaces is not applied: translations keep all spaces")
    if checkpoint.has(TOKENIZER):
        tokenizer = read_tokenizer(checkpoint)
    elif reads_bytes(checkpoint):
        tokenizer = byte_tokenizer(checkpoint)
    else:
        tokenizer = _from_sentencepiece(checkpoint, config)
    tokens = _special_tokens(checkpoint, tokenizer, vocab_size)
    sources, targets = _languages(checkpoint, tokenizer)
    return TranslationTokenizers(
        source=tokenizer,
        target=tokenizer,
        source_tokens=tokens,
        target_tokens=tokens,
        max_tokens=min(
            stated_max_tokens(checkpoint) or DEFAULT_MAX_TOKENS,
            checkpoint.config.integer("n_positions", default=DEFAULT_MAX_TOKENS),
        ),
        source_languages=sources,
        target_languages=targets,
    )


def _from_sentencepiece(checkpoint: Checkpoint, config: Config) -> Tokenizer:
    """The pieces, whose positions are the token ids, and the extra ids after them."""
    check_tokenizer_class(checkpoint, "T5Tokenizer")
    config.require_empty("sp_model_kwargs")
    config.require(add_prefix_space=True)
    model = read_sentencepiece(checkpoint.path(SENTENCEPIECE))
    num_extra = config.integer("extra_ids", default=100, minimum=0)
    extra = [f"<extra_id_{i}>" for i in reversed(range(num_extra))]
    ids = {piece: i for i, piece in enumerate((*model.pieces, *extra))}
    if len(ids) < len(model.pieces) + num_extra:
        raise CheckpointError(f"{model.path}: a piece is given twice, or is an extra id")
    special = [stated_token(checkpoint, f"{n}_token", f"<{n}>") for n in ("unk", "pad")]
    eos = stated_token(checkpoint, "eos_token", "</s>")
    for token in (*special, eos):
        if token not in ids:
            raise CheckpointError(f"{model.path}: the special token {token} is missing")
    if special[0] != model.unknown:
        raise CheckpointError(
            f"{model.path}: the unknown piece is {model.unknown}, and the unk_token {special[0]}"
        )
    unk, pad = special
    vocabulary = Vocabulary(ids, unk, eos, pad, has_codes=False, others=extra)
    return sentencepiece_tokenizer(model, vocabulary)


def _special_tokens(checkpoint: Checkpoint, tokenizer: Tokenizer, vocab_size: int) -> SpecialTokens:
    path, ids = checkpoint.folder, tokenizer.get_vocab()
    if (largest := max(ids.values())) >= vocab_size:
        raise CheckpointError(f"{path}: token id {largest} exceeds the vocab_size {vocab_size}")
    found = {}
    for name, default in (("pad", "<pad>"), ("eos", "</s>")):
        token = stated_token(checkpoint, f"{name}_token", default)
        if token not in ids:
            raise CheckpointError(f"{path}: the tokenizer lacks the {name}_token {token}")
        found[f"{name}_id"] = ids[token]
    unk_id = unknown_token_id(tokenizer)
    tokens = SpecialTokens(**found, **({} if unk_id is None else {"unk_id": unk_id}))
    if tokenizer.encode("").ids != [tokens.eos_id] or tokenizer.encode("a").ids[-1:] != (
        [tokens.eos_id]
    ):
        raise CheckpointError(f"{path}: the tokenizer does not add the eos_token, and only that")
    return tokens


def _languages(
    checkpoint: Checkpoint, tokenizer: Tokenizer
) -> tuple[list[Language], list[Language]]:
    """The source languages, and the target languages with the tokens that select them."""
    ids = tokenizer.get_vocab()
    tokens = {match[1]: match[0] for match in map(LANGUAGE_TOKEN.fullmatch, ids) if match}
    codes = [code for code in tokens if not code.startswith(NO_LANGUAGE)]
    codes.sort(key=lambda code: ids[tokens[code]])
    texts, sources = {code: f"{tokens[code]} " for code in codes}, codes
    if not texts:
        sources, texts = _tasks(checkpoint)
    prefixes = {code: _prefix_ids(tokenizer, text) for code, text in texts.items()}
    for code, text in texts.items():
        if not prefixes[code] or (tokens and ids[text.strip()] not in prefixes[code]):
            raise CheckpointError(
                f"{checkpoint.folder}: the prefix {text!r} is not a sequence of tokens that is the "
                "same before every text"
            )
    tags = language_tags([*dict.fromkeys([*sources, *texts])])
    return (
        [Language(tag=tags[code]) for code in sources],
        [Language(tag=tags[code], source_prefix_ids=prefixes[code]) for code in texts],
    )


def _tasks(checkpoint: Checkpoint) -> tuple[list[str], dict[str, str]]:
    """The source languages and the prefix for each target language that the configuration states.

    There are none if prefixes depend on both languages. Options of the search for one task are not
    applied.
    """
    tasks = checkpoint.config.get("task_specific_params", {})
    prefixes = {
        (match[1], match[2]): task["prefix"]
        for name, task in (tasks.items() if isinstance(tasks, dict) else ())
        if (match := TASK.fullmatch(name)) and isinstance(task, dict) and "prefix" in task
    }
    for (source, target), prefix in prefixes.items():
        if not isinstance(prefix, str):
            raise CheckpointError(
                f"{checkpoint.config.path}: task_specific_params.translation_{source}_to_{target}."
                f"prefix is {prefix!r}, want a text"
            )
    sources = list(dict.fromkeys(source for source, _ in prefixes))
    if len(sources) > 1:
        logger.warning("callers must write the prefixes, which depend on both languages")
        return [], {}
    return sources, {target: prefix for (_, target), prefix in prefixes.items()}


def _prefix_ids(tokenizer: Tokenizer, prefix: str) -> list[int]:
    """The tokens of a prefix before any text; empty if they depend on the text."""
    ids = tokenizer.encode(prefix).ids[:-1]  # without EOS
    whole = tokenizer.encode_batch([prefix + text for text in TEXTS])
    alone = tokenizer.encode_batch(TEXTS)
    is_fixed = all(a.ids == ids + b.ids for a, b in zip(whole, alone, strict=True))
    return ids if is_fixed else []
