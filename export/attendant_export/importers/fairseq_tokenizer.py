"""Tokenizers of multilingual checkpoints that were trained with fairseq.

The tokenizer is in ``tokenizer.json``, or in a SentencePiece model whose pieces have other ids than
in the checkpoint. Languages are tokens around a text: none of them is a part of the tokenizer.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attendant.v1.architecture_pb2 import Architecture
from attendant.v1.bundle_pb2 import Language, SpecialTokens
from tokenizers import Tokenizer, processors

from attendant_export.data.tokenizer import TOKENIZER, unknown_token_id
from attendant_export.importers.checkpoint import Checkpoint, CheckpointError, Config
from attendant_export.importers.fairseq_pieces import MASK, SENTENCEPIECE, shifted_pieces
from attendant_export.importers.languages import known_codes
from attendant_export.importers.sentencepiece_model import SentencePieceModel, read_sentencepiece
from attendant_export.importers.sentencepiece_tokenizer import Vocabulary, sentencepiece_tokenizer
from attendant_export.importers.special_tokens import read_tokenizer
from attendant_export.importers.stated_tokens import stated_token
from attendant_export.importers.tokenizer_checks import largest_id, stated_max_tokens
from attendant_export.importers.translation_tokenizers import TranslationTokenizers

SPECIAL = {"unk": "<unk>", "eos": "</s>", "pad": "<pad>"}
UNUSED = "<unused{}>"
"""Tokens for ids without a token: tables of embeddings may be longer than vocabularies."""
DEFAULT_MAX_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class FairseqTokenizer:
    """A tokenizer whose encodings end with EOS, and the ids of its languages by code."""

    tokenizer: Tokenizer
    special_tokens: SpecialTokens
    language_ids: Mapping[str, int]
    max_tokens: int
    """Limit of tokens of a text."""

    def with_languages(
        self, sources: Sequence[Language], targets: Sequence[Language]
    ) -> TranslationTokenizers:
        """The tokenizers of a model with these languages."""
        return TranslationTokenizers(
            source=self.tokenizer,
            target=self.tokenizer,
            source_tokens=self.special_tokens,
            target_tokens=self.special_tokens,
            max_tokens=self.max_tokens,
            source_languages=sources,
            target_languages=targets,
        )


def read_fairseq_tokenizer(
    checkpoint: Checkpoint, architecture: Architecture, codes: str, pattern: str
) -> FairseqTokenizer:
    """The tokenizer of a checkpoint whose languages are tokens that match ``pattern``.

    ``codes`` names the languages that follow the pieces of a SentencePiece model. Raises
    CheckpointError.
    """
    vocab_size = architecture.source_embeddings.vocab_size
    if not checkpoint.has(TOKENIZER):
        model, listed = read_sentencepiece(checkpoint.path(SENTENCEPIECE)), known_codes(codes)
        texts = [*shifted_pieces(model), *listed, MASK]
        ids = {text: i for i, text in enumerate(texts)}
        tokens = {code: code for code in listed}
        return sentencepiece_with_ids(checkpoint, model, ids, tokens, vocab_size)
    tokenizer = read_tokenizer(checkpoint)
    added = tokenizer.get_added_tokens_decoder()
    found = {token.content: i for i, token in added.items() if re.fullmatch(pattern, token.content)}
    path = checkpoint.folder / TOKENIZER
    if not found:
        raise CheckpointError(f"{path} has no tokens of languages")
    if (largest := max(largest_id(tokenizer), *found.values())) >= vocab_size:
        raise CheckpointError(f"{path}: token id {largest} exceeds the vocab_size {vocab_size}")
    special, ids = _special_texts(checkpoint), tokenizer.get_vocab()
    for text in special.values():
        if text not in ids:
            raise CheckpointError(f"{path}: the special token {text} has no id")
    tokenizer.add_special_tokens([*special.values(), *found])
    end_with(tokenizer, special["eos"])
    if (unk_id := unknown_token_id(tokenizer)) != ids[special["unk"]]:
        raise CheckpointError(f"{path}: the unknown token is {unk_id}, not {special['unk']}")
    return _described(checkpoint, tokenizer, ids, special, found)


def end_with(tokenizer: Tokenizer, eos: str, bos: str = "") -> None:
    """Let encodings end with ``eos``, and begin with ``bos`` if it is given."""
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A {eos}".strip(),
        special_tokens=[(text, tokenizer.token_to_id(text)) for text in (bos, eos) if text],
    )


def sentencepiece_with_ids(
    checkpoint: Checkpoint,
    model: SentencePieceModel,
    ids: dict[str, int],
    tokens: Mapping[str, str],
    vocab_size: int,
) -> FairseqTokenizer:
    """The tokenizer of a SentencePiece model with these ids, and the tokens of languages by code.

    Raises CheckpointError.
    """
    special, config = _special_texts(checkpoint), checkpoint.tokenizer_config
    config.require_empty("sp_model_kwargs")
    if sorted(ids.values()) != list(range(len(ids))) or len(ids) > vocab_size:
        raise CheckpointError(
            f"{model.path}: the tokens and languages have {len(ids)} ids up to "
            f"{max(ids.values())}, which do not fit the vocab_size {vocab_size}"
        )
    _check_stated_ids(config, ids)
    unused = [UNUSED.format(i) for i in range(len(ids), vocab_size)]
    ids = ids | {text: len(ids) + i for i, text in enumerate(unused)}
    for text in special.values():
        if text not in ids:
            raise CheckpointError(f"{checkpoint.folder}: the special token {text} has no id")
    others = [*tokens.values(), *unused, *(text for text in ("<s>", MASK) if text in ids)]
    tokenizer = sentencepiece_tokenizer(
        model,
        Vocabulary(ids, special["unk"], special["eos"], special["pad"], others=others),
    )
    language_ids = {code: ids[token] for code, token in tokens.items()}
    return _described(checkpoint, tokenizer, ids, special, language_ids)


def _check_stated_ids(config: Config, ids: Mapping[str, int]) -> None:
    """Raise CheckpointError if the tokenizer's options state another id of a token."""
    stated = config.get("added_tokens_decoder", {})
    for token_id, token in stated.items():
        text = str(token.get("content") if isinstance(token, dict) else token)
        if str(ids.get(text)) != token_id:
            raise CheckpointError(
                f"{config.path}: added_tokens_decoder has {text!r} with the id {token_id}; "
                f"supported: {ids.get(text)}"
            )


def _special_texts(checkpoint: Checkpoint) -> dict[str, str]:
    return {
        name: stated_token(checkpoint, f"{name}_token", default)
        for name, default in SPECIAL.items()
    }


def _described(
    checkpoint: Checkpoint,
    tokenizer: Tokenizer,
    ids: Mapping[str, int],
    special: Mapping[str, str],
    language_ids: Mapping[str, int],
) -> FairseqTokenizer:
    return FairseqTokenizer(
        tokenizer=tokenizer,
        special_tokens=SpecialTokens(**{f"{name}_id": ids[text] for name, text in special.items()}),
        language_ids=language_ids,
        max_tokens=stated_max_tokens(checkpoint) or DEFAULT_MAX_TOKENS,
    )
