"""How a translation model reads and writes the texts of pairs. Knows tokenizers, but no models."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from attendant_export.data.batches import encode, truncated
from attendant_export.data.tokenizer import (
    BOS,
    PAD,
    TARGET_TOKENIZER,
    TOKENIZER,
    load_tokenizer,
    special_token_id,
)

Pairs = Sequence[tuple[str, str]]


class Marks(NamedTuple):
    """Token ids next to the texts of a pair, such as those of languages."""

    before_source: tuple[int, ...] = ()
    after_source: tuple[int, ...] = ()
    before_target: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        """Whether there are any."""
        return any(self)

    def around_source(self, token_ids: Sequence[int]) -> list[int]:
        """The tokens of a source with those next to it."""
        return [*self.before_source, *token_ids, *self.after_source]


NO_MARKS = Marks()


@dataclass(frozen=True, slots=True)
class Side:
    """The tokens of the sources or of the targets."""

    tokenizer: Tokenizer
    pad_id: int
    vocab_size: int | None = None
    """Number of tokens that the model has; None: those of the tokenizer. Larger ids are unknown."""
    unk_id: int | None = None

    @property
    def num_tokens(self) -> int:
        """Number of tokens that the model has."""
        return self.vocab_size or self.tokenizer.get_vocab_size()

    def encode(self, texts: Sequence[str]) -> Iterator[list[int]]:
        """The token ids of each text."""
        limit, unk_id, encoded = self.num_tokens, self.unk_id, encode(texts, self.tokenizer)
        if unk_id is None or self.tokenizer.get_vocab_size() <= limit:
            return encoded
        return ([i if i < limit else unk_id for i in ids] for ids in encoded)


@dataclass(frozen=True, slots=True)
class PairTokenizer:
    """The tokenizers of both sides, and what a target begins with."""

    source: Side
    target: Side
    """The same object as ``source`` if targets are tokenized like sources."""
    start_id: int
    """What the decoder reads first."""
    suppressed_ids: tuple[int, ...] = ()
    """Tokens that no target has."""

    @classmethod
    def of_run(cls, source: Tokenizer, target: Tokenizer | None = None) -> "PairTokenizer":
        """Tokenizers that the exporter has trained; without ``target``, one for both sides."""
        side = Side(source, special_token_id(source, PAD))
        other = side if target is None else Side(target, special_token_id(target, PAD))
        return cls(side, other, special_token_id(other.tokenizer, BOS))

    @property
    def is_joint(self) -> bool:
        """Whether both sides have the same tokenizer."""
        return self.target is self.source

    @property
    def token_type(self) -> Any:
        """The smallest type of integers that holds all token ids."""
        largest = max(side.num_tokens for side in (self.source, self.target))
        return np.uint16 if largest <= 1 << 16 else np.uint32

    def key(self) -> str:
        """A hash of all that the ids of a pair depend on, apart from marks."""
        content = self.source.tokenizer.to_str()
        if not self.is_joint:
            content += self.target.tokenizer.to_str()
        for side in (self.source, self.target):
            if side.vocab_size is not None:
                content += f" {side.vocab_size} {side.unk_id}"
        return hashlib.sha256(content.encode()).hexdigest()

    def encode(
        self, pairs: Pairs, marks: Sequence[Marks] = ()
    ) -> tuple[list[list[int]], list[list[int]]]:
        """The token ids of the sources and of the targets, with the ``marks`` of each pair."""
        sources, targets = (
            list(side.encode([pair[i] for pair in pairs]))
            for i, side in enumerate((self.source, self.target))
        )
        if any(marks):
            sources = [m.around_source(ids) for m, ids in zip(marks, sources, strict=True)]
            targets = [[*m.before_target, *ids] for m, ids in zip(marks, targets, strict=True)]
        return sources, targets

    def encode_sources(
        self, texts: Sequence[str], marks: Marks = NO_MARKS, max_tokens: int | None = None
    ) -> list[list[int]]:
        """The token ids of sources with ``marks``, `truncated` to ``max_tokens`` in all."""
        encoded = self.source.encode(texts)
        if max_tokens is not None:
            room = max_tokens - len(marks.around_source(()))
            encoded = (truncated(ids, room) for ids in encoded)
        return [marks.around_source(ids) for ids in encoded]

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of a target."""
        return str(self.target.tokenizer.decode(list(token_ids)))

    def save(self, folder: Path) -> None:
        """Write the files of the tokenizers."""
        other = None if self.is_joint else self.target.tokenizer
        save_tokenizers(folder, self.source.tokenizer, other)


def save_tokenizers(folder: Path, source: Tokenizer, target: Tokenizer | None) -> None:
    """Write the tokenizers of a run; None: targets have that of the sources."""
    source.save(str(folder / TOKENIZER))
    (folder / TARGET_TOKENIZER).unlink(missing_ok=True)
    if target is not None:
        target.save(str(folder / TARGET_TOKENIZER))


def load_tokenizers(folder: Path) -> tuple[Tokenizer, Tokenizer | None]:
    """The tokenizers in the folder of a run or bundle; None: targets have that of the sources."""
    target = folder / TARGET_TOKENIZER
    return (
        load_tokenizer(folder / TOKENIZER),
        load_tokenizer(target) if target.exists() else None,
    )
