"""Text of causal language models: documents as one stream of tokens in mapped files.

Depends on files and tokenizers, not on models.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import tokenizers
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from attendant_export.data.array_folders import FolderWriter, open_or_build
from attendant_export.data.bad_lines import BadLines
from attendant_export.data.pair_texts import key_of
from attendant_export.data.text_files import digest, files_of, numbered_lines
from attendant_export.data.tokenizer import train_language_model_tokenizer

FORMAT = 1
"""Version of the files; others are not read."""
BLOCK_DOCUMENTS = 1000
"""Number of documents that are encoded together."""


@dataclass(frozen=True, slots=True)
class LanguageData:
    """The text of a training."""

    train: tuple[Path, ...]
    """Files or folders of files."""
    valid: Path
    """A file of the same form."""
    are_documents: bool = False
    """Whether a file is one document. Otherwise each of its lines is one."""
    vocab_size: int = 8000
    """Vocabulary size of a new tokenizer."""
    max_tokens: int = 256
    """Tokens of a sequence that is trained on."""
    max_batch_tokens: int = 4096
    skip_bad_lines: bool = False
    """Whether lines that are not UTF-8 are left out instead of refused."""

    def documents(self, paths: Sequence[Path]) -> Iterator[str]:
        """The documents of some files; empty ones are left out.

        Raises ValueError that lists bad lines, unless they are skipped.
        """
        bad_lines = BadLines()
        for path in (each for source in paths for each in files_of(source)):
            lines = (line for _, line in numbered_lines(path, bad_lines))
            yield from filter(str.strip, ["\n".join(lines)] if self.are_documents else lines)
        if not self.skip_bad_lines:
            bad_lines.refuse()

    def train_tokenizer(self) -> Tokenizer:
        """A new tokenizer of the training text; raises ValueError as `documents`."""
        return train_language_model_tokenizer(self.documents(self.train), self.vocab_size)

    @property
    def inputs(self) -> list[tuple[str, str]]:
        """Name and hash of each file of training text."""
        files = [each for source in self.train for each in files_of(source)]
        return [(path.name, digest(path)) for path in files]


def open_stream(
    data: LanguageData,
    paths: Sequence[Path],
    tokenizer: Tokenizer,
    around: tuple[Sequence[int], Sequence[int]],
    cache_dir: Path,
) -> NDArray[np.integer]:
    """The tokens of all documents of ``paths``, from ``cache_dir`` if they are there.

    ``around`` are the tokens before and after each document. Otherwise writes them there. Raises
    ValueError as `LanguageData.documents`, and for files without text.
    """
    files = [each for source in paths for each in files_of(source)]
    key = key_of(
        {
            "format": FORMAT,
            "files": [digest(path) for path in files],
            "are_documents": data.are_documents,
            "tokenizer": tokenizer.to_str(),
            "tokenizers": tokenizers.__version__,
            "around": [list(each) for each in around],
        }
    )

    def build(writer: FolderWriter) -> dict[str, int]:
        dtype = np.uint16 if tokenizer.get_vocab_size() <= 2**16 else np.uint32
        for block in _blocks(data.documents(paths), BLOCK_DOCUMENTS):
            encodings = tokenizer.encode_batch_fast(block)
            for encoding in encodings:
                ids = [*around[0], *encoding.ids, *around[1]]
                writer.append("tokens", np.array(ids, dtype))
        return {}

    stream = open_or_build(cache_dir / f"stream-{key}", build).arrays.get("tokens")
    if stream is None or len(stream) < 2:
        raise ValueError(f"{', '.join(map(str, paths))}: there is no text")
    return stream


def _blocks(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(texts)
    while block := list(islice(iterator, size)):
        yield block


@dataclass(frozen=True, slots=True)
class LanguageBatch:
    """Sequences of a stream, or one process's share of them."""

    token_ids: Tensor  # (batch, length)
    targets: Tensor  # (batch, length), the tokens that follow
    num_targets: int  # of the whole batch, not of the share

    def share(self, rows: Callable[[Tensor], Tensor], device: torch.device) -> "LanguageBatch":
        """One process's share, on ``device``; ``rows`` selects its rows of a tensor."""
        own = (rows(self.token_ids).to(device), rows(self.targets).to(device))
        return LanguageBatch(*own, self.num_targets)


class LanguageDataset:
    """Sequences of equal length, cut from a stream of tokens without regard to documents."""

    def __init__(self, stream: NDArray[np.integer], length: int, max_batch_tokens: int) -> None:
        """``length`` is that of a sequence; a shorter stream is a single sequence."""
        self._stream, self._length = stream, min(length, len(stream) - 1)
        self._size = max(1, max_batch_tokens // self._length)

    def num_batches(self) -> int:
        """The number of batches of an epoch."""
        return -(-self._num_sequences(0) // self._size)

    def batches(self, rng: np.random.Generator | None = None) -> Iterator[LanguageBatch]:
        """One epoch of batches: in order, or shuffled and cut at other places with ``rng``."""
        first, order = 0, np.arange(self._num_sequences(0))
        if rng is not None:
            spare = (len(self._stream) - 1) % self._length
            first = int(rng.integers(spare + 1))
            order = rng.permutation(self._num_sequences(first))
        for start in range(0, len(order), self._size):
            chosen = order[start : start + self._size] * self._length + first
            rows = chosen[:, None] + np.arange(self._length + 1)
            tokens = torch.from_numpy(self._stream[rows].astype(np.int64))
            yield LanguageBatch(tokens[:, :-1], tokens[:, 1:], len(chosen) * self._length)

    def _num_sequences(self, first: int) -> int:
        return (len(self._stream) - 1 - first) // self._length
