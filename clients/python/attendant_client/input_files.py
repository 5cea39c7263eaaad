"""The files that ``--input`` of `attendant` names: one, or all files of a folder.

Knows nothing of texts: a file has lines of bytes. Names that end in ``.gz`` mean gzip.
"""

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path

CHUNK_BYTES = 1 << 20
MAX_LINE_BYTES = 16 << 20
"""A longer line is skipped, so that memory is bounded; no server takes such a text by default."""
COMPRESSED = ".gz"
OTHER_COMPRESSED = (".bz2", ".xz", ".zst")


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file of lines."""

    path: Path
    name: str = ""
    """Its place in the folder of the input, with ``/`` between folders; empty for a single file."""


@dataclass(frozen=True, slots=True)
class FileContent:
    """What a file has."""

    num_lines: int
    digest: str
    """The SHA-256 of its bytes as they are on the disk, in hexadecimal digits."""


def input_files(path: Path) -> list[InputFile]:
    """The file itself, or all files of a folder and its folders, in the order of their names.

    Hidden files and folders are left out. Raises OSError if it cannot be read, and ValueError for a
    folder without files and for compressed files that cannot be read.
    """
    files = _files_of_folder(path) if path.is_dir() else [InputFile(path)]
    for file in files:
        if file.path.suffix in OTHER_COMPRESSED:
            raise ValueError(f"{file.path}: only {COMPRESSED} and plain files can be read")
    if not files:
        raise ValueError(f"{path}: the folder has no files")
    return files


def _files_of_folder(root: Path) -> list[InputFile]:
    found = []
    for folder, folders, names in os.walk(root, onerror=_fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = [Path(folder, name) for name in names if not name.startswith(".")]
        found += [InputFile(p, p.relative_to(root).as_posix()) for p in paths if p.is_file()]
    return sorted(found, key=lambda file: file.name.split("/"))


def _fail(error: OSError) -> None:
    raise error


def content_of(path: Path) -> FileContent | None:
    """Reads a file once; None for one that can be read only once, such as a pipe.

    Raises ValueError for a damaged file, and OSError for one that cannot be read.
    """
    if not path.is_file():
        return None
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    last, count = b"", 0
    with opened(path) as lines:
        while chunk := lines.read(CHUNK_BYTES):
            count, last = count + chunk.count(b"\n"), chunk
    return FileContent(count + (not last.endswith(b"\n") and last != b""), digest)


@contextmanager
def opened(path: Path) -> Iterator[BufferedIOBase]:
    """The bytes of a file, decompressed; raises ValueError within the block if it is damaged."""
    if path.suffix != COMPRESSED:
        with path.open("rb") as file:
            yield file
        return
    try:
        with gzip.open(path, "rb") as packed:
            yield packed
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: the gzip file is damaged: {error}") from error


def raw_lines(file: BufferedIOBase) -> Iterator[tuple[bytes, int]]:
    """Each line with its line end, and its number of bytes.

    Only line feeds end lines, so that there are as many lines out as in. The content of a line of
    more than `MAX_LINE_BYTES` is left out, and never in memory as a whole.
    """
    while content := file.readline(MAX_LINE_BYTES + 1):
        num_bytes = len(content)
        if num_bytes > MAX_LINE_BYTES:
            chunk, content = content, b""
            while not chunk.endswith(b"\n") and (chunk := file.readline(CHUNK_BYTES)):
                num_bytes += len(chunk)
        yield content, num_bytes
