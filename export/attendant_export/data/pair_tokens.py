"""The token ids of sentence pairs in mapped files. Depends on tokenizers, not on models."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import Tokenizer

from attendant_export.data.array_folders import FolderWriter, open_or_build
from attendant_export.data.bad_lines import MAX_SHOWN, BadLine, BadLines
from attendant_export.data.batches import encode
from attendant_export.data.pair_filters import RATIO, LengthFilters
from attendant_export.data.pair_texts import BLOCK_PAIRS, PairTexts, key_of
from attendant_export.data.sequences import Sequences

FORMAT = 2
"""Version of the files; others are not read."""


@dataclass(frozen=True, slots=True)
class TokenPairs:
    """Token ids of both sides of pairs."""

    source: Sequences
    target: Sequences

    def __len__(self) -> int:
        return len(self.source)

    def lengths(self, rows: NDArray[Any]) -> NDArray[np.int64]:
        """The number of tokens of the longer side of the pairs ``rows``."""
        return np.maximum(self.source.lengths(rows), self.target.lengths(rows))


@dataclass(frozen=True, slots=True)
class EncodedPairs:
    """The pairs of a file or folder that are trained on."""

    tokens: TokenPairs
    texts: PairTexts
    rows: NDArray[Any]  # (pairs), where the text of each pair is in ``texts``
    left_out: Mapping[str, int]
    """How many lines are left out, by reason: by their text and by their lengths."""
    too_long: BadLines
    """The lines of which a side has more tokens than the longest that is trained on."""

    def __len__(self) -> int:
        return len(self.rows)

    def text(self, index: int) -> tuple[str, str]:
        """Source and target of the pair ``index``."""
        return self.texts[int(self.rows[index])]


def open_tokens(
    texts: PairTexts, tokenizer: Tokenizer, cache_dir: Path, filters: LengthFilters
) -> EncodedPairs:
    """The encoded pairs of ``texts``, from ``cache_dir`` if they are there.

    Otherwise encodes them to a new folder there.
    """
    key = key_of(
        {
            "format": FORMAT,
            "texts": texts.key,
            "tokenizer": hashlib.sha256(tokenizer.to_str().encode()).hexdigest(),
            "tokenizers": tokenizers.__version__,
            "filters": asdict(filters),
        }
    )
    folder = open_or_build(
        cache_dir / f"tokens-{key}", lambda writer: _write(writer, texts, tokenizer, filters)
    )
    tokens = TokenPairs(folder.sequences("source"), folder.sequences("target"))
    too_long, num_too_long = filters.too_long, folder.facts["num_too_long"]
    listed = [BadLine(*texts.place(row), too_long) for row in folder.facts["too_long"]]
    bad_lines = BadLines(Counter({too_long: num_too_long} if num_too_long else {}), listed)
    left_out = {**texts.left_out, **bad_lines.counts, **folder.facts["left_out"]}
    return EncodedPairs(tokens, texts, folder.arrays["rows"], left_out, bad_lines)


def encode_pairs(
    pairs: Sequence[tuple[str, str]], tokenizer: Tokenizer
) -> tuple[list[list[int]], list[list[int]]]:
    """The token ids of the sources and of the targets of ``pairs``."""
    sources, targets = (list(encode([pair[side] for pair in pairs], tokenizer)) for side in (0, 1))
    return sources, targets


def token_type(tokenizer: Tokenizer) -> Any:
    """The smallest type of integers that holds the token ids of a tokenizer."""
    return np.uint16 if tokenizer.get_vocab_size() <= 1 << 16 else np.uint32


def _write(
    writer: FolderWriter, texts: PairTexts, tokenizer: Tokenizer, filters: LengthFilters
) -> dict[str, Any]:
    dtype = token_type(tokenizer)
    num_exceeding = num_too_long = 0
    too_long: list[int] = []
    for start in range(0, max(1, len(texts)), BLOCK_PAIRS):
        numbers = np.arange(start, min(start + BLOCK_PAIRS, len(texts)), dtype=np.uint32)
        sides = encode_pairs([texts[i] for i in numbers.tolist()], tokenizer)
        lengths = [np.fromiter(map(len, side), np.int64) for side in sides]
        are_too_long = filters.are_too_long(*lengths)
        exceed_ratio = filters.exceed_ratio(*lengths) & ~are_too_long
        num_too_long += int(are_too_long.sum())
        too_long = [*too_long, *numbers[are_too_long].tolist()][:MAX_SHOWN]
        num_exceeding += int(exceed_ratio.sum())
        kept = np.flatnonzero(~(are_too_long | exceed_ratio))
        writer.append("rows", numbers[kept])
        for name, side in zip(("source", "target"), sides, strict=True):
            writer.append_sequences(name, [side[i] for i in kept], dtype)
    left_out = {RATIO: num_exceeding} if num_exceeding else {}
    return {"left_out": left_out, "num_too_long": num_too_long, "too_long": too_long}
