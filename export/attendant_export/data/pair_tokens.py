"""The token ids of sentence pairs in mapped files. Depends on tokenizers, not on models."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray

from attendant_export.data.array_folders import FolderWriter, open_or_build
from attendant_export.data.bad_lines import MAX_SHOWN, BadLine, BadLines
from attendant_export.data.pair_filters import RATIO, LengthFilters
from attendant_export.data.pair_texts import BLOCK_PAIRS, PairTexts, key_of
from attendant_export.data.pair_tokenizer import NO_MARKS, Marks, PairTokenizer
from attendant_export.data.sequences import Sequences

FORMAT = 3
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
    marks: Marks = NO_MARKS
    """The tokens next to each text, which ``tokens`` have."""

    def __len__(self) -> int:
        return len(self.rows)

    def text(self, index: int) -> tuple[str, str]:
        """Source and target of the pair ``index``."""
        return self.texts[int(self.rows[index])]


def open_tokens(
    texts: PairTexts,
    tokenizer: PairTokenizer,
    cache_dir: Path,
    filters: LengthFilters,
    marks: Marks = NO_MARKS,
) -> EncodedPairs:
    """The encoded pairs of ``texts``, with ``marks``, from ``cache_dir`` if they are there.

    Otherwise encodes them to a new folder there.
    """
    key = key_of(
        {
            "format": FORMAT,
            "texts": texts.key,
            "tokenizer": tokenizer.key(),
            "tokenizers": tokenizers.__version__,
            "filters": asdict(filters),
            **({"marks": marks} if marks else {}),
        }
    )
    folder = open_or_build(
        cache_dir / f"tokens-{key}", lambda writer: _write(writer, texts, tokenizer, filters, marks)
    )
    tokens = TokenPairs(folder.sequences("source"), folder.sequences("target"))
    too_long, num_too_long = filters.too_long, folder.facts["num_too_long"]
    listed = [BadLine(*texts.place(row), too_long) for row in folder.facts["too_long"]]
    bad_lines = BadLines(Counter({too_long: num_too_long} if num_too_long else {}), listed)
    left_out = {**texts.left_out, **bad_lines.counts, **folder.facts["left_out"]}
    return EncodedPairs(tokens, texts, folder.arrays["rows"], left_out, bad_lines, marks)


def _write(
    writer: FolderWriter,
    texts: PairTexts,
    tokenizer: PairTokenizer,
    filters: LengthFilters,
    marks: Marks,
) -> dict[str, Any]:
    dtype = tokenizer.token_type
    num_exceeding = num_too_long = 0
    too_long: list[int] = []
    for start in range(0, max(1, len(texts)), BLOCK_PAIRS):
        numbers = np.arange(start, min(start + BLOCK_PAIRS, len(texts)), dtype=np.uint32)
        pairs = [texts[i] for i in numbers.tolist()]
        sides = tokenizer.encode(pairs, [marks] * len(pairs))
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
