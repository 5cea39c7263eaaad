"""A training text and its validation text: documents, and their tokens in mapped files.

Depends on files and tokenizers, not on models.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import Tokenizer

from attendant_export.data.array_folders import FolderWriter, open_or_build
from attendant_export.data.bad_lines import BadLines
from attendant_export.data.pair_texts import key_of
from attendant_export.data.text_files import digest, files_of, numbered_lines

FORMAT = 1
"""Version of the files; others are not read."""
BLOCK_DOCUMENTS = 1000
"""Number of documents that are encoded together."""


@dataclass(frozen=True, slots=True)
class TextCorpus:
    """The files of a training text and of its validation text."""

    train: tuple[Path, ...]
    """Files or folders of files."""
    valid: Path
    """A file of the same form."""
    are_documents: bool = False
    """Whether a file is one document. Otherwise each of its lines is one."""
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

    @property
    def inputs(self) -> list[tuple[str, str]]:
        """Name and hash of each file of training text."""
        files = [each for source in self.train for each in files_of(source)]
        return [(path.name, digest(path)) for path in files]


Around = tuple[Sequence[int], Sequence[int]]
"""The tokens before and after each document."""


def stream_key(
    data: TextCorpus, paths: Sequence[Path], tokenizer: Tokenizer, around: Around
) -> str:
    """A hash of all that the tokens of `open_stream` depend on."""
    files = [each for source in paths for each in files_of(source)]
    return key_of(
        {
            "format": FORMAT,
            "files": [digest(path) for path in files],
            "are_documents": data.are_documents,
            "tokenizer": tokenizer.to_str(),
            "tokenizers": tokenizers.__version__,
            "around": [list(each) for each in around],
        }
    )


def open_stream(
    data: TextCorpus,
    paths: Sequence[Path],
    tokenizer: Tokenizer,
    around: Around,
    cache_dir: Path,
) -> NDArray[np.integer]:
    """The tokens of all documents of ``paths``, from ``cache_dir`` if they are there.

    Otherwise writes them there. Raises ValueError as `TextCorpus.documents`, and for files without
    text.
    """

    def build(writer: FolderWriter) -> dict[str, int]:
        ids_around = [token_id for ids in around for token_id in ids]
        num_ids = max(tokenizer.get_vocab_size(), *(token_id + 1 for token_id in ids_around))
        dtype = np.uint16 if num_ids <= 2**16 else np.uint32
        for block in _blocks(data.documents(paths), BLOCK_DOCUMENTS):
            encodings = tokenizer.encode_batch_fast(block)
            for encoding in encodings:
                ids = [*around[0], *encoding.ids, *around[1]]
                writer.append("tokens", np.array(ids, dtype))
        return {}

    key = stream_key(data, paths, tokenizer, around)
    stream = open_or_build(cache_dir / f"stream-{key}", build).arrays.get("tokens")
    if stream is None or len(stream) < 2:
        raise ValueError(f"{', '.join(map(str, paths))}: there is no text")
    return stream


def _blocks(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(texts)
    while block := list(islice(iterator, size)):
        yield block
