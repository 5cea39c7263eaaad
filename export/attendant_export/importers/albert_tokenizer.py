"""The SentencePiece model of ALBERT checkpoints that lack a ``tokenizer.json``.

Texts are normalized as the original does it before and in its SentencePiece model. The result has
the form of the ``tokenizer.json`` of published checkpoints.
"""

import re

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from attendant_export.data.tokenizer import TOKENIZER
from attendant_export.importers.checkpoint import Checkpoint, CheckpointError
from attendant_export.importers.sentencepiece_model import (
    SPACE,
    SentencePieceModel,
    read_sentencepiece,
)
from attendant_export.importers.stated_tokens import check_tokenizer_class

SENTENCEPIECE = "spiece.model"
CLS, SEP, PAD, MASK = "[CLS]", "[SEP]", "<pad>", "[MASK]"
NUMBER_WITH_COMMA = 100.0
"""Loss of the score of a piece such as ``9,``: the original splits it."""


def is_albert_sentencepiece(checkpoint: Checkpoint) -> bool:
    """Whether the tokenizer is a SentencePiece model of ALBERT."""
    if checkpoint.has(TOKENIZER) or checkpoint.config.get("model_type") != "albert":
        return False
    return checkpoint.has(SENTENCEPIECE)


def read_albert_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """The tokenizer of a checkpoint; an encoding begins with CLS, ends with SEP.

    Raises CheckpointError.
    """
    check_tokenizer_class(checkpoint, "AlbertTokenizer")
    model = read_sentencepiece(checkpoint.path(SENTENCEPIECE), allows_symbols=True)
    if model.is_bpe or model.has_bytes:
        raise CheckpointError(
            f"{model.path}: a BPE model or pieces of bytes are not supported for ALBERT; "
            "supported: UNIGRAM without byte_fallback"
        )
    for token in (CLS, SEP, PAD, MASK):
        if token not in model.pieces:
            raise CheckpointError(f"{model.path} has no piece {token}")
    tokenizer = Tokenizer(_unigram(model))
    tokenizer.normalizer = _normalizer(checkpoint, model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(SPACE),
            # Control symbols match no text: their first characters are separate words.
            pre_tokenizers.Split(Regex(_first_characters(model)), "merged_with_previous"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(SPACE)
    tokenizer.add_special_tokens(
        [
            *(AddedToken(text, normalized=False) for text in (PAD, model.unknown, CLS, SEP)),
            AddedToken(MASK, normalized=False, lstrip=True),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}",
        pair=f"{CLS} $A {SEP} $B:1 {SEP}:1",
        special_tokens=[(text, tokenizer.token_to_id(text)) for text in (CLS, SEP)],
    )
    return tokenizer


def _unigram(model: SentencePieceModel) -> models.Model:
    pieces = [(piece, model.scores.get(piece, 0.0)) for piece in model.pieces]
    scored = [
        (piece, score - NUMBER_WITH_COMMA if _is_number_with_comma(piece) else score)
        for piece, score in pieces
    ]
    return models.Unigram(scored, unk_id=model.pieces.index(model.unknown), byte_fallback=False)


def _first_characters(model: SentencePieceModel) -> str:
    """A pattern of the first characters of pieces that match no text."""
    return "|".join(
        f"{re.escape(piece[0])}(?={re.escape(piece[1:])})"
        for piece in model.pieces
        if piece not in model.scores
    )


def _is_number_with_comma(piece: str) -> bool:
    return len(piece) > 1 and piece[-1] == "," and piece[-2].isdigit()


def _normalizer(checkpoint: Checkpoint, model: SentencePieceModel) -> normalizers.Normalizer:
    config = checkpoint.tokenizer_config
    config.require(remove_space=True)
    config.require_empty("sp_model_kwargs")
    steps: list[normalizers.Normalizer] = [
        normalizers.Replace("``", '"'),
        normalizers.Replace("''", '"'),
    ]
    if not config.flag("keep_accents", default=False):
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if config.flag("do_lower_case", default=True):
        steps.append(normalizers.Lowercase())
    if model.character_map:
        steps.append(normalizers.Precompiled(model.character_map))
    return normalizers.Sequence(steps)
