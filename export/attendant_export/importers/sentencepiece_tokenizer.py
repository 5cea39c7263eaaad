"""SentencePiece models with a vocabulary, as tokenizers of the ``tokenizers`` library.

The vocabulary gives the ids of pieces. It also has tokens that are no pieces of the model, such as
those of the other language, and may lack pieces. These get the ids after the vocabulary, which
stand for the unknown token.

SentencePiece joins a run of unknown characters to one token, whose text may be in the vocabulary.
The library does not look there, so marks enclose each run: the vocabulary's token for it is a piece
of the marks and the run. A model with pieces for bytes has no unknown text and needs no marks.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from tokenizers.normalizers import Normalizer

from attendant_export.importers.character_map import (
    BETWEEN_MATCHES,
    WITHIN_MATCH,
    character_class,
    map_normalizers,
    pattern_of,
)
from attendant_export.importers.checkpoint import CheckpointError
from attendant_export.importers.sentencepiece_model import SPACE, SentencePieceModel

RUN, CODE, CODE_END, REPLACEMENT = "\ufdd0", "\ufdd1", "\ufdd2", "\ufdd3"
"""Noncharacters: the marks around runs of unknown characters, in a language code and after it, and
the character that a text has in the place of each of them."""
MARKS = f"{RUN}{CODE}{CODE_END}"
MAX_LEADING_SPACES = 1024
BYTE_NAME = "<>0123456789ABCDEFx"
"""The characters of the names of pieces for bytes, such as ``<0x41>``."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Token ids by text, with the texts of the special tokens."""

    ids: Mapping[str, int]
    unk: str
    eos: str
    pad: str
    has_codes: bool = True
    """Whether a text may begin with a language code, such as ``>>fra<<``."""
    others: Sequence[str] = field(default=())
    """Further special tokens, such as those of languages."""

    @property
    def special(self) -> list[str]:
        """All special tokens, none of which a text can have."""
        return [self.eos, self.unk, self.pad, *self.others]

    @property
    def codes(self) -> list[str]:
        """The known language codes."""
        return self.has_codes * [text for text in self.ids if re.fullmatch(r">>[^<]+<<", text)]


def sentencepiece_tokenizer(model: SentencePieceModel, vocabulary: Vocabulary) -> Tokenizer:
    """The tokenizer of a model with a vocabulary; an encoding ends with EOS.

    A language code at the beginning of a text is one token. Raises CheckpointError.
    """
    known = {character for piece in model.scores for character in piece}
    _check(model, vocabulary, known)
    try:
        normalizer = normalizers.Sequence(
            [
                _replace(f"[{MARKS}{REPLACEMENT}{BETWEEN_MATCHES}{WITHIN_MATCH}]", REPLACEMENT),
                *(_code_normalizers(vocabulary.codes) if vocabulary.has_codes else []),
                *map_normalizers(model.character_map),
                *_space_normalizers(model),
                *_unknown_normalizers(model, known),
            ]
        )
    except ValueError as error:
        raise CheckpointError(f"{model.path}: {error}") from error
    tokenizer = Tokenizer(
        _bpe(model, vocabulary, known)
        if model.is_bpe
        else _unigram(model, vocabulary, known, normalizer)
    )
    tokenizer.normalizer = normalizer
    if not any(SPACE in piece[1:] for piece in model.scores):
        # Words are separate then, and the library caches them.
        tokenizer.pre_tokenizer = pre_tokenizers.Split(SPACE, "merged_with_next")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {vocabulary.eos}",
        special_tokens=[(vocabulary.eos, vocabulary.ids[vocabulary.eos])],
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(Regex(f"[{MARKS}]"), ""),
            decoders.Replace(SPACE, " "),
            *([decoders.ByteFallback()] if model.has_bytes else []),
            decoders.Fuse(),
            decoders.Strip(" ", MAX_LEADING_SPACES, 0),
        ]
    )
    tokenizer.add_special_tokens(vocabulary.special)
    return tokenizer


def _check(model: SentencePieceModel, vocabulary: Vocabulary, known: set[str]) -> None:
    parts = sorted(known - model.scores.keys())
    if parts and not model.has_bytes:
        raise CheckpointError(
            f"{model.path}: pieces have the character {parts[0]!r}, which is no piece itself; this "
            "is not supported"
        )
    if model.has_bytes and _without_piece(known) is None:
        for each in BYTE_NAME:
            if each not in model.scores:
                raise CheckpointError(
                    f"{model.path}: {each!r} is no piece; this is not supported with bytes"
                )
    reserved = {*MARKS, REPLACEMENT, BETWEEN_MATCHES, WITHIN_MATCH}
    for text in (*vocabulary.ids, *model.scores):
        if not reserved.isdisjoint(text):
            raise CheckpointError(f"{model.path}: the token {text!r} has a reserved character")
    for text in vocabulary.special:
        if known.isdisjoint(text) and not model.is_bpe:
            raise CheckpointError(
                f"{model.path}: no piece has a character of the special token {text!r}; this is "
                "not supported"
            )


def _replace(pattern: str, content: str) -> Normalizer:
    return normalizers.Replace(Regex(f"(?m){pattern}"), content)


def _code_normalizers(codes: Sequence[str]) -> list[Normalizer]:
    """Put marks into and after a known language code, and one in the place of an unknown code.

    No mark is put before a code, because NFC fails in a text that begins with an insertion.
    """
    steps = []
    if codes:
        rests = "|".join(pattern_of(code[1:]) for code in codes)
        steps += [
            _replace(f"\\A>\\K(?={rests})", CODE),
            _replace(f"\\A>{CODE}.*?<<\\K", CODE_END),
        ]
    return [*steps, _replace("\\A>>.*?<<", CODE_END)]


def _space_normalizers(model: SentencePieceModel) -> list[Normalizer]:
    start = f"(?:\\A(?!>?[{CODE}{CODE_END}])|{CODE_END})\\K"
    if not model.removes_extra_spaces:
        prefix = [_replace(f"{start}(?=.)", " ")] if model.adds_dummy_prefix else []
        return [*prefix, normalizers.Replace(" ", SPACE)]
    prefix = [
        _replace(f"{start}(?=[^ ])", " ") if model.adds_dummy_prefix else _replace(f"{start} +", "")
    ]
    return [*prefix, _replace(" +", SPACE), _replace(f"{SPACE}+\\z", "")]


def _unknown_normalizers(model: SentencePieceModel, known: set[str]) -> list[Normalizer]:
    if not model.has_bytes:
        unknown = f"[^{character_class(known)}]"
        return [_replace(f"(?<!{unknown})(?={unknown})|(?<={unknown})(?!{unknown})", RUN)]
    bracket = _without_piece(known)
    return [] if bracket is None else [normalizers.Replace(bracket, f"<0x{ord(bracket):02X}>")]


def _without_piece(known: set[str]) -> str | None:
    """An angle bracket that no piece has.

    A text such as <0x41> must not match the piece of a byte, which is worse than known characters,
    but better than an unknown one. The text is therefore given the name of the bracket's byte.
    """
    return next((each for each in "<>" if each not in known), None)


def _unigram(
    model: SentencePieceModel, vocabulary: Vocabulary, known: set[str], normalizer: Normalizer
) -> models.Model:
    """The piece and the score of each id, those of the vocabulary first."""
    scores, codes = model.scores, set(vocabulary.codes)
    # Less than the score of any text's single characters: these tokens match no text.
    never = (min(scores.values()) - 1) * (max(map(len, vocabulary.ids)) + 1)
    special = set(vocabulary.special)
    pieces = []
    for text in _ordered(vocabulary):
        if text in scores and text not in special:
            pieces.append((text, scores[text]))
        elif text in codes:
            pieces.append((normalizer.normalize_str(text), 0.0))
        elif text and text not in special and known.isdisjoint(text) and not model.has_bytes:
            pieces.append((f"{RUN}{text}{RUN}", 0.0))
        else:
            pieces.append((text, never))
    pieces += [each for each in scores.items() if each[0] not in vocabulary.ids]
    unk_id = vocabulary.ids[vocabulary.unk]
    return models.Unigram(pieces, unk_id=unk_id, byte_fallback=model.has_bytes)


def _bpe(model: SentencePieceModel, vocabulary: Vocabulary, known: set[str]) -> models.Model:
    """Pieces by id, and all merges that make pieces, the best score first."""
    for text in vocabulary.ids:
        if text and text not in vocabulary.special and known.isdisjoint(text):
            raise CheckpointError(
                f"{model.path}: the token {text!r} is no piece of this BPE model, which is not "
                "supported"
            )
    scores = model.scores
    ids = dict(vocabulary.ids)
    for piece in scores:
        ids.setdefault(piece, len(ids))
    merges = [
        (piece[:i], piece[i:])
        for piece in sorted(scores, key=lambda piece: -scores[piece])
        for i in range(1, len(piece))
        if piece[:i] in scores and piece[i:] in scores
    ]
    return models.BPE(ids, merges, unk_token=vocabulary.unk, fuse_unk=True)


def _ordered(vocabulary: Vocabulary) -> list[str]:
    return sorted(vocabulary.ids, key=vocabulary.ids.__getitem__)
