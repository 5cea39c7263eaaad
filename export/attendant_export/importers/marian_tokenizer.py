"""Tokenizers of MarianMT checkpoints: two SentencePiece models and a vocabulary for both."""

import logging

from attendant.v1.architecture_pb2 import Architecture
from attendant.v1.bundle_pb2 import Language, SpecialTokens
from tokenizers import Tokenizer

from attendant_export.importers.checkpoint import Checkpoint, CheckpointError, Config
from attendant_export.importers.languages import languages
from attendant_export.importers.sentencepiece_model import read_sentencepiece
from attendant_export.importers.sentencepiece_tokenizer import (
    Vocabulary,
    sentencepiece_tokenizer,
)
from attendant_export.importers.stated_tokens import check_tokenizer_class, stated_token
from attendant_export.importers.tokenizer_checks import stated_max_tokens
from attendant_export.importers.translation_tokenizers import TranslationTokenizers

logger = logging.getLogger(__name__)

SOURCE_MODEL, TARGET_MODEL = "source.spm", "target.spm"
VOCABULARY, TARGET_VOCABULARY = "vocab.json", "target_vocab.json"
SPECIAL = {"unk": "<unk>", "eos": "</s>", "pad": "<pad>"}
DEFAULT_MAX_TOKENS = 512


def read_marian_tokenizers(
    checkpoint: Checkpoint, architecture: Architecture
) -> TranslationTokenizers:
    """The tokenizers of a checkpoint; raises CheckpointError."""
    check_tokenizer_class(checkpoint, "MarianTokenizer")
    config = checkpoint.tokenizer_config
    config.require(do_lower_case=False)
    config.require_empty("sp_model_kwargs")
    if config.get("clean_up_tokenization_spaces", False):
        logger.warning("clean_up_tokenization_spaces is not applied: translations keep all spaces")
    is_separate = config.flag("separate_vocabs", default=False)
    sizes = [
        each.vocab_size for each in (architecture.source_embeddings, architecture.target_embeddings)
    ]
    source = _vocabulary(checkpoint, VOCABULARY, sizes[0])
    target = _vocabulary(checkpoint, TARGET_VOCABULARY if is_separate else VOCABULARY, sizes[1])
    return TranslationTokenizers(
        source=_tokenizer(checkpoint, SOURCE_MODEL, source),
        target=_tokenizer(checkpoint, TARGET_MODEL, target),
        source_tokens=_special_tokens(source),
        target_tokens=_special_tokens(target),
        max_tokens=stated_max_tokens(checkpoint) or DEFAULT_MAX_TOKENS,
        source_languages=_languages(config, "source_lang"),
        target_languages=coded_languages(source) or _languages(config, "target_lang"),
    )


def _vocabulary(checkpoint: Checkpoint, name: str, vocab_size: int) -> Vocabulary:
    ids, path = checkpoint.json_object(name), checkpoint.folder / name
    if not all(type(token_id) is int for token_id in ids.values()) or (
        sorted(ids.values()) != list(range(vocab_size))
    ):
        raise CheckpointError(
            f"{path}: the token ids are not 0 to {vocab_size - 1}, as the configuration states"
        )
    special = {
        each: stated_token(checkpoint, f"{each}_token", default)
        for each, default in SPECIAL.items()
    }
    for token in special.values():
        if token not in ids:
            raise CheckpointError(f"{path}: the special token {token} is missing")
    return Vocabulary(ids, special["unk"], special["eos"], special["pad"])


def _tokenizer(checkpoint: Checkpoint, name: str, vocabulary: Vocabulary) -> Tokenizer:
    return sentencepiece_tokenizer(read_sentencepiece(checkpoint.path(name)), vocabulary)


def _special_tokens(vocabulary: Vocabulary) -> SpecialTokens:
    names = {"pad_id": vocabulary.pad, "eos_id": vocabulary.eos, "unk_id": vocabulary.unk}
    return SpecialTokens(**{field: vocabulary.ids[token] for field, token in names.items()})


def _languages(config: Config, field: str) -> list[Language]:
    tag = config.get(field)
    return languages({tag: 0}) if isinstance(tag, str) and tag else []


def coded_languages(vocabulary: Vocabulary) -> list[Language]:
    """The languages that a code before a source chooses, such as ``>>fra<<``."""
    ids = {code[2:-2]: vocabulary.ids[code] for code in vocabulary.codes}
    return languages(ids, "source_prefix_ids")
