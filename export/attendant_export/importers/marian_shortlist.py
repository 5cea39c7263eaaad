"""Reads Marian's binary lexical shortlists (``lex.*.s2t.bin``).

A file has, all little-endian: magic number, checksum, number of frequent target tokens, limit of
target tokens of a source token, number of offsets, number of target tokens (uint64 each); the
offsets (uint64), where the target tokens of each source token begin, and the end; the target tokens
(uint32). The checksum is that of everything after it.
"""

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attendant_export.data.shortlists import Shortlists
from attendant_export.importers.checkpoint import CheckpointError

MAGIC = struct.pack("<Q", 0xF11A48D5013417F5)
"""The first bytes of a file."""
HEADER = struct.Struct("<8s5Q")
CHECKED = 16
"""Where the checked part begins."""
GOLDEN_RATIO, MASK = 0x9E3779B9, (1 << 64) - 1


class LexicalShortlist:
    """The target tokens of each source token, and the number of frequent target tokens.

    Marian's vocabularies are in the order of frequency, so these are the first ones.
    """

    def __init__(self, path: Path) -> None:
        """Raises CheckpointError for a damaged file."""
        self.path = path
        content = path.read_bytes()
        try:
            self._read(content)
        except (ValueError, struct.error) as error:
            raise CheckpointError(f"{path} is not a binary shortlist: {error}") from error

    def _read(self, content: bytes) -> None:
        magic, stated, self.num_frequent, _, num_offsets, num_tokens = HEADER.unpack_from(content)
        if magic != MAGIC:
            raise ValueError("it begins with another magic number")
        wanted = HEADER.size + 8 * num_offsets + 4 * num_tokens
        if len(content) != wanted:
            raise ValueError(f"it has {len(content)} bytes, want {wanted}")
        if checksum(content[CHECKED:]) != stated:
            raise ValueError("its checksum is wrong")
        self.offsets = np.frombuffer(content, "<u8", num_offsets, HEADER.size).astype(np.int64)
        self.tokens = np.frombuffer(content, "<u4", num_tokens, wanted - 4 * num_tokens)
        if (
            num_offsets < 2
            or self.offsets[0] != 0
            or self.offsets[-1] != num_tokens
            or (np.diff(self.offsets) < 0).any()
        ):
            raise ValueError("its offsets do not fit its tokens")

    def tokens_of(self, source_token: int) -> NDArray[np.uint32]:
        """The target tokens of a source token."""
        return self.tokens[self.offsets[source_token] : self.offsets[source_token + 1]]

    def tables(
        self, source_size: int, target_size: int, num_rows: int, is_shared: bool, eos_id: int
    ) -> Shortlists:
        """The tables of a bundle, for Marian's vocabularies of these sizes.

        A bundle has ``num_rows`` source tokens. Those that Marian lacks add nothing. Every source
        ends with EOS, whose target tokens therefore belong to everyone's. With one vocabulary for
        both sides, a source token may be copied. Raises CheckpointError for a list of other
        vocabularies.
        """
        num_listed = len(self.offsets) - 1
        if num_listed != source_size or self.tokens.max(initial=0) >= target_size:
            raise CheckpointError(
                f"{self.path}: its {num_listed} source tokens or its target tokens up to "
                f"{self.tokens.max(initial=0)} do not fit the vocabularies of {source_size} and "
                f"{target_size} tokens"
            )
        frequent = np.union1d(
            np.arange(min(self.num_frequent, target_size)), self.tokens_of(eos_id)
        ).astype(np.int32)
        if not len(frequent):
            raise CheckpointError(f"{self.path}: it has no frequent tokens")
        rows = [self._row(i, is_shared, frequent) for i in range(source_size)]
        rows[eos_id] = frequent[:0]
        translations = np.full((num_rows, max(1, *map(len, rows))), frequent[0], np.int32)
        for source_token, row in enumerate(rows):
            translations[source_token, : len(row)] = row
        return Shortlists(frequent, translations)

    def _row(
        self, source_token: int, is_shared: bool, frequent: NDArray[np.int32]
    ) -> NDArray[np.int32]:
        """What a source token adds to the frequent tokens."""
        tokens = self.tokens_of(source_token).astype(np.int32)
        if is_shared:
            tokens = np.append(tokens, np.int32(source_token))
        return np.setdiff1d(tokens, frequent)


def checksum(content: bytes) -> int:
    """Marian's hash of the 8-byte words of ``content``, without an incomplete one at the end."""
    value = 0
    for (word,) in struct.iter_unpack("<Q", content[: len(content) // 8 * 8]):
        value ^= (word + GOLDEN_RATIO + (value << 6 & MASK) + (value >> 2)) & MASK
    return value
