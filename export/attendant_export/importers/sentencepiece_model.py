"""Reads SentencePiece models (``.spm``, ``.model``), which are protobuf messages.

The few fields that an import needs are declared here, with the numbers and defaults of
``sentencepiece_model.proto``. This takes no dependency on the SentencePiece library.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto
from google.protobuf.message import DecodeError

from attendant_export.importers.checkpoint import CheckpointError

SPACE = "\u2581"
"""The symbol that pieces have in place of a space."""
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
PIECE_TYPES = {1: "NORMAL", 2: "UNKNOWN", 3: "CONTROL", 4: "USER_DEFINED", 5: "UNUSED", 6: "BYTE"}
UNIGRAM, BPE = 1, 2
MODEL_TYPES = {1: "UNIGRAM", 2: "BPE", 3: "WORD", 4: "CHAR"}

# Message: field: (number, type, default). Messages are "optional" but for the pieces.
_MESSAGES: dict[str, dict[str, tuple[int, str, str]]] = {
    "Piece": {"piece": (1, "string", ""), "score": (2, "float", "0"), "type": (3, "int32", "1")},
    "Trainer": {
        "model_type": (3, "int32", "1"),
        "treat_whitespace_as_suffix": (24, "bool", "false"),
        "byte_fallback": (35, "bool", "false"),
    },
    "Normalizer": {
        "precompiled_charsmap": (2, "bytes", ""),
        "add_dummy_prefix": (3, "bool", "true"),
        "remove_extra_whitespaces": (4, "bool", "true"),
        "escape_whitespaces": (5, "bool", "true"),
    },
    "Model": {
        "pieces": (1, "Piece", ""),
        "trainer_spec": (2, "Trainer", ""),
        "normalizer_spec": (3, "Normalizer", ""),
        "denormalizer_spec": (5, "Normalizer", ""),
    },
}


@dataclass(frozen=True, slots=True)
class SentencePieceModel:
    """A unigram or BPE model with its normalization."""

    path: Path
    is_bpe: bool
    pieces: tuple[str, ...]
    """All pieces by id, control symbols included."""
    unknown: str
    """The piece of unknown text."""
    scores: dict[str, float]
    """The score of each piece that can match text, in the order of the file: its log-probability,
    or in a BPE model the priority of merges to it."""
    has_bytes: bool
    """Whether unknown text becomes the pieces of its bytes in UTF-8."""
    character_map: bytes
    """The precompiled character map; empty for no normalization of characters."""
    adds_dummy_prefix: bool
    """Whether a space is put before every text."""
    removes_extra_spaces: bool
    """Whether spaces at both ends are removed and runs of spaces are collapsed."""


def read_sentencepiece(path: Path, allows_symbols: bool = False) -> SentencePieceModel:
    """Read a model; raises CheckpointError for a damaged or unsupported one.

    With ``allows_symbols``, user-defined pieces may also be single characters. The normalization of
    texts must not change these characters.
    """
    proto = parse_sentencepiece(path)
    _check_options(path, proto)
    _check_types(path, proto, allows_symbols)
    normalizer = proto.normalizer_spec
    return SentencePieceModel(
        path=path,
        is_bpe=proto.trainer_spec.model_type == BPE,
        pieces=tuple(each.piece for each in proto.pieces),
        unknown=next(each.piece for each in proto.pieces if each.type == UNKNOWN),
        scores=_scores(proto.pieces),
        has_bytes=proto.trainer_spec.byte_fallback,
        character_map=normalizer.precompiled_charsmap,
        adds_dummy_prefix=normalizer.add_dummy_prefix,
        removes_extra_spaces=normalizer.remove_extra_whitespaces,
    )


def parse_sentencepiece(path: Path) -> Any:
    """The message in a file, of any kind of model; raises CheckpointError for a damaged one."""
    proto = _message_class()()
    try:
        proto.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise CheckpointError(f"{path} is not a SentencePiece model: {error}") from error
    if not proto.pieces:
        raise CheckpointError(f"{path} is not a SentencePiece model: it has no pieces")
    return proto


def _check_options(path: Path, proto: Any) -> None:
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    if trainer.model_type not in (UNIGRAM, BPE):
        kind = MODEL_TYPES.get(trainer.model_type, trainer.model_type)
        raise CheckpointError(
            f"{path}: trainer_spec.model_type is {kind}, which is not supported; supported: "
            "UNIGRAM, BPE"
        )
    if trainer.model_type == BPE and trainer.byte_fallback:
        raise CheckpointError(
            f"{path}: trainer_spec.byte_fallback is True in a BPE model, which is not supported"
        )
    for name, value, supported in (
        ("trainer_spec.treat_whitespace_as_suffix", trainer.treat_whitespace_as_suffix, False),
        ("normalizer_spec.escape_whitespaces", normalizer.escape_whitespaces, True),
        ("denormalizer_spec", bool(proto.denormalizer_spec.precompiled_charsmap), False),
    ):
        if value != supported:
            raise CheckpointError(
                f"{path}: {name} is {value}, which is not supported; supported: {supported}"
            )


def _check_types(path: Path, proto: Any, allows_symbols: bool) -> None:
    pieces, is_bpe = proto.pieces, proto.trainer_spec.model_type == BPE
    if sum(each.type == UNKNOWN for each in pieces) != 1:
        raise CheckpointError(f"{path} has not exactly one UNKNOWN piece")
    for each in pieces:
        is_plain = re.fullmatch(f"{SPACE}?<?[A-Za-z0-9_]+>?", each.piece) is not None
        is_symbol = allows_symbols and len(each.piece) == 1
        if each.type in (NORMAL, UNKNOWN, CONTROL, BYTE) or (
            each.type == USER_DEFINED and not is_bpe and (is_plain or is_symbol)
        ):
            continue
        kind = PIECE_TYPES.get(each.type, each.type)
        raise CheckpointError(
            f"{path}: the piece {each.piece!r} is {kind}, which is not supported; supported: "
            "NORMAL, UNKNOWN, CONTROL, BYTE, and in UNIGRAM models USER_DEFINED of ASCII letters, "
            f"digits and _, which may be in angle brackets and follow {SPACE}"
        )


def _scores(pieces: Sequence[Any]) -> dict[str, float]:
    """The scores of pieces that match text. A user-defined piece is likelier than any other."""
    return {
        each.piece: 0.0 if each.type == USER_DEFINED else each.score
        for each in pieces
        if each.type in (NORMAL, USER_DEFINED)
    }


def _message_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="attendant_export/sentencepiece.proto", package="attendant_export", syntax="proto2"
    )
    for message, fields in _MESSAGES.items():
        declared = file.message_type.add(name=message)
        for name, (number, kind, default) in fields.items():
            declared.field.append(_field(name, number, kind, default))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    model = pool.FindMessageTypeByName("attendant_export.Model")
    return message_factory.GetMessageClass(model)


def _field(name: str, number: int, kind: str, default: str) -> FieldDescriptorProto:
    field = FieldDescriptorProto(name=name, number=number)
    field.label = field.LABEL_REPEATED if name == "pieces" else field.LABEL_OPTIONAL
    if kind in _MESSAGES:
        field.type, field.type_name = field.TYPE_MESSAGE, f".attendant_export.{kind}"
    else:
        field.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
        field.default_value = default
    return field
