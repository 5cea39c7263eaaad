"""SentencePiece BPE with pieces for bytes, as Llama and Llama 2 have it.

Runs of spaces may be tokens, and a character without a piece becomes the pieces of its bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

from attendant_export.importers.checkpoint import CheckpointError
from attendant_export.importers.sentencepiece_model import (
    BPE,
    BYTE,
    CONTROL,
    NORMAL,
    SPACE,
    UNKNOWN,
    USER_DEFINED,
    parse_sentencepiece,
)

START = "<s>"


@dataclass(frozen=True, slots=True)
class BytePieces:
    """The pieces of a model by id, with their scores and types."""

    title: str
    """The file, for messages."""
    texts: Sequence[str]
    scores: Sequence[float]
    """Priorities of merges."""
    types: Sequence[int]
    """Those of `sentencepiece_model`."""
    start_id: int | None
    """The token before a text, if the model states one."""
    adds_space: bool = True
    """Whether a space is put before every text."""


def read_byte_bpe(path: Path) -> BytePieces:
    """The pieces of a SentencePiece model; raises CheckpointError for another kind of model."""
    proto = parse_sentencepiece(path)
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    for name, value, supported in (
        ("trainer_spec.model_type", trainer.model_type, BPE),
        ("trainer_spec.byte_fallback", trainer.byte_fallback, True),
        ("trainer_spec.treat_whitespace_as_suffix", trainer.treat_whitespace_as_suffix, False),
        ("normalizer_spec.precompiled_charsmap", normalizer.precompiled_charsmap, b""),
        ("normalizer_spec.remove_extra_whitespaces", normalizer.remove_extra_whitespaces, False),
        ("normalizer_spec.escape_whitespaces", normalizer.escape_whitespaces, True),
    ):
        if value != supported:
            raise CheckpointError(
                f"{path}: {name} is {value!r}, which is not supported for a language model; "
                f"supported: {supported!r}"
            )
    texts = [each.piece for each in proto.pieces]
    return BytePieces(
        title=str(path),
        texts=texts,
        scores=[each.score for each in proto.pieces],
        types=[each.type for each in proto.pieces],
        start_id=texts.index(START) if START in texts else None,
        adds_space=normalizer.add_dummy_prefix,
    )


def byte_bpe_tokenizer(pieces: BytePieces) -> Tokenizer:
    """The tokenizer, which adds no special tokens; raises CheckpointError for pieces of no use."""
    texts = list(pieces.texts)
    ids = {text: i for i, text in enumerate(texts)}
    unknown = [text for text, kind in zip(texts, pieces.types, strict=True) if kind == UNKNOWN]
    if len(ids) < len(texts) or len(unknown) != 1:
        raise CheckpointError(f"{pieces.title}: a piece is given twice, or not one is unknown")
    merged = {
        text: score
        for text, score, kind in zip(texts, pieces.scores, pieces.types, strict=True)
        if kind == NORMAL
    }
    model = models.BPE(
        *(ids, _merges(merged, ids)), unk_token=unknown[0], fuse_unk=True, byte_fallback=True
    )
    tokenizer = Tokenizer(model)
    spaces: list[normalizers.Normalizer] = [normalizers.Replace(" ", SPACE)]
    if pieces.adds_space:
        spaces.insert(0, normalizers.Prepend(SPACE))
    tokenizer.normalizer = normalizers.Sequence(spaces)
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(
        [*steps, decoders.Strip(" ", 1, 0)] if pieces.adds_space else steps
    )
    _add_tokens(tokenizer, pieces)
    return tokenizer


def _merges(scores: dict[str, float], ids: dict[str, int]) -> list[tuple[str, str]]:
    """All merges that make pieces, the best score first."""
    found = [
        (-score, ids[text[:i]], ids[text[i:]], text[:i], text[i:])
        for text, score in scores.items()
        for i in range(1, len(text))
        if text[:i] in scores and text[i:] in scores
    ]
    return [(left, right) for *_, left, right in sorted(found)]


def _add_tokens(tokenizer: Tokenizer, pieces: BytePieces) -> None:
    """Add what texts have as a whole: special tokens, and pieces that users defined."""
    typed = list(zip(pieces.texts, pieces.types, strict=True))
    special = [text for text, kind in typed if kind in (UNKNOWN, CONTROL)]
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in special])
    tokenizer.add_tokens(
        [AddedToken(text, normalized=False) for text, kind in typed if kind == USER_DEFINED]
    )
    missing = [f"<0x{byte:02X}>" for byte in range(256)]
    known = {text for text, kind in typed if kind == BYTE}
    if not known.issuperset(missing):
        raise CheckpointError(f"{pieces.title}: a byte has no piece")
