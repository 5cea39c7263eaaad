"""Vocabularies of CTranslate2 folders: lists of tokens in the order of their ids."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from attendant.v1.bundle_pb2 import SpecialTokens

from attendant_export.importers.checkpoint import Checkpoint, CheckpointError
from attendant_export.importers.ctranslate2_options import TokenOptions

SHARED, SOURCE, TARGET = "shared_vocabulary", "source_vocabulary", "target_vocabulary"
PADDINGS = ("<blank>", "<pad>")
"""Tokens of vocabularies that no text has, in the order of preference."""
ADDED = ("<pad>", "<start>")
"""Names for a token that the vocabulary lacks, in the order of preference."""


@dataclass(frozen=True, slots=True)
class Side:
    """The tokens of sources or of targets."""

    tokens: Sequence[str]
    """By id. The last one is an additional token if ``has_added``."""
    unk: str
    eos: str
    pad: str
    has_added: bool = False
    """Whether the last token is not in the folder's vocabulary."""

    @property
    def ids(self) -> dict[str, int]:
        """Ids by token."""
        return {token: token_id for token_id, token in enumerate(self.tokens)}

    @property
    def special_tokens(self) -> SpecialTokens:
        """The ids of the special tokens."""
        ids = self.ids
        return SpecialTokens(pad_id=ids[self.pad], eos_id=ids[self.eos], unk_id=ids[self.unk])


@dataclass(frozen=True, slots=True)
class Vocabularies:
    """The vocabularies of both sides."""

    source: Side
    target: Side
    start: str
    """The target token that the decoder begins with."""
    is_shared: bool


def read_vocabularies(
    checkpoint: Checkpoint, options: TokenOptions, starts_from_zero: bool
) -> Vocabularies:
    """The vocabularies of a folder; raises CheckpointError.

    Sources need a token that no text has, for padding. A decoder whose first input is a vector of
    zeros (``starts_from_zero``) needs a token with that vector. Either is added if necessary.
    """
    is_shared = _file(checkpoint, SHARED) is not None
    names = (SHARED, SHARED) if is_shared else (SOURCE, TARGET)
    source, target = (_read_side(checkpoint, name, options) for name in names)
    if is_shared and (starts_from_zero or not source.pad):
        source = target = _with_added(source)
    if not source.pad:
        source = _with_added(source)
    if starts_from_zero and not target.has_added:
        target = _with_added(target)
    if not target.pad:
        target = replace(target, pad=target.eos)  # Tokens after EOS are not read.
    start = target.tokens[-1] if starts_from_zero else options.start
    if start is None:
        raise CheckpointError(
            f"{checkpoint.folder}: decoder_start_token is null, so that each text needs a first "
            "token of its translation, which is not supported"
        )
    for side, token in ((target, start), *((source, t) for t in _added_to_texts(options))):
        if token not in side.tokens:
            raise CheckpointError(f"{checkpoint.folder}: the token {token} is in no vocabulary")
    return Vocabularies(source, target, start, is_shared)


def _added_to_texts(options: TokenOptions) -> list[str]:
    return [options.bos] if options.adds_bos else []


def _with_added(side: Side) -> Side:
    name = next((name for name in ADDED if name not in side.tokens), None)
    if name is None:
        raise CheckpointError(f"the vocabulary has {', '.join(ADDED)}, which are needed as names")
    return replace(side, tokens=[*side.tokens, name], pad=side.pad or name, has_added=True)


def has_vocabulary(checkpoint: Checkpoint) -> bool:
    """Whether a folder has a vocabulary of CTranslate2."""
    return any(_file(checkpoint, name) for name in (SHARED, SOURCE, TARGET))


def _file(checkpoint: Checkpoint, name: str) -> str | None:
    return next(filter(checkpoint.has, (f"{name}.json", f"{name}.txt")), None)


def _read_side(checkpoint: Checkpoint, name: str, options: TokenOptions) -> Side:
    file = _file(checkpoint, name)
    if file is None:
        raise CheckpointError(
            f"{checkpoint.folder}: {name}.json is missing, and so is {name}.txt; vocabularies of "
            "several source features are not supported"
        )
    path = checkpoint.path(file)
    tokens = _json_tokens(path, checkpoint.json(file)) if file.endswith("json") else _lines(path)
    if options.unk not in tokens:
        tokens.append(options.unk)
    if len(set(tokens)) < len(tokens):
        twice = next(token for i, token in enumerate(tokens) if token in tokens[:i])
        raise CheckpointError(f"{path}: the token {twice!r} is given twice, which is not supported")
    if options.eos not in tokens:
        raise CheckpointError(f"{path}: the end token {options.eos} is missing")
    pad = next((token for token in PADDINGS if token in tokens), "")
    return Side(tokens, options.unk, options.eos, pad)


def _json_tokens(path: Path, content: Any) -> list[str]:
    if not isinstance(content, list) or not all(isinstance(token, str) for token in content):
        raise CheckpointError(f"{path} is not a JSON list of tokens")
    return content


def _lines(path: Path) -> list[str]:
    """The lines of a text. A carriage return at the end of every line is no part of it."""
    try:
        lines = path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is not UTF-8: {error}") from error
    if all(line.endswith("\r") for line in lines):
        return [line[:-1] for line in lines]
    return lines
