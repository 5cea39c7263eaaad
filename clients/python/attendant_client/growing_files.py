"""Files that grow while a job runs: lines, lines compressed by gzip, or rows of vectors.

Each is opened with the size up to which it is valid, and truncated to that size.
"""

import gzip
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from attendant_client.input_files import COMPRESSED

VECTORS = ".npy"
GZIP_LEVEL = 6


class LinesFile:
    """Lines of text."""

    def __init__(self, path: Path, num_bytes: int) -> None:
        """Raises ValueError for a file that is shorter than `num_bytes`."""
        size = path.stat().st_size if path.exists() else 0
        if size < num_bytes:
            raise ValueError(f"{path} is damaged: it has {size} bytes, want at least {num_bytes}")
        self._path = path
        # Without a buffer, so that nothing of a write that fails is written later.
        self._file = path.open("r+b" if path.exists() else "x+b", buffering=0)
        self._file.truncate(num_bytes)
        self._file.seek(num_bytes)

    def write(self, values: Sequence[Any]) -> None:
        """Write lines, so that the operating system has them."""
        self._append(_joined(values))

    def sync(self) -> int | None:
        """Write everything to the disk; returns the size, or None if that cannot be done yet."""
        os.fsync(self._file.fileno())
        return self._file.tell()

    def finish(self) -> None:
        """Nothing more will be written."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _append(self, content: bytes) -> None:
        remaining = memoryview(content)
        while remaining:
            remaining = remaining[self._file.write(remaining) :]


class CompressedLinesFile(LinesFile):
    """Lines of text in members of gzip, one for each time that the file is written to the disk."""

    def __init__(self, path: Path, num_bytes: int) -> None:
        """Raises as `LinesFile`."""
        super().__init__(path, num_bytes)
        self._pending: list[bytes] = []

    def write(self, values: Sequence[Any]) -> None:
        """Keep lines for the next member."""
        self._pending.append(_joined(values))

    def sync(self) -> int | None:
        """Write a member to the disk; returns the size."""
        if self._pending:
            self._append(gzip.compress(b"".join(self._pending), GZIP_LEVEL, mtime=0))
            self._pending = []
        return super().sync()

    def finish(self) -> None:
        """Programs refuse a file without a member."""
        if not self._file.tell() and not self._pending:
            self._pending.append(b"")


class VectorsFile(LinesFile):
    """Rows of vectors, in a file of NumPy; rows without a vector are NaN, or 0 in integers."""

    def __init__(self, path: Path, num_bytes: int) -> None:
        """Raises as `LinesFile`."""
        super().__init__(path, num_bytes)
        self._num_unwritten = 0
        """Rows without a vector before the first vector, which tells their size."""
        self._nothing: np.ndarray | None = None
        if num_bytes:
            self._file.seek(0)
            np.lib.format.read_magic(self._file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(self._file)
            self._begin = self._file.tell()
            self._nothing = _nothing(shape[1], dtype)
            self._file.seek(num_bytes)

    def write(self, values: Sequence[Any]) -> None:
        """Write rows; None or an empty vector for a row without one."""
        vectors = [v if v is not None and len(v) else None for v in values]
        if self._nothing is None:
            first = next((v for v in vectors if v is not None), None)
            if first is None:
                self._num_unwritten += len(vectors)
                return
            self._start(first)
        rows = [self._nothing if v is None else v for v in vectors]
        self._append(np.stack(cast(list[np.ndarray], rows)).tobytes())

    def sync(self) -> int | None:
        """Write all rows to the disk; None while the size of rows is unknown."""
        if self._nothing is None:
            return None
        end = self._file.tell()
        self._write_header((end - self._begin) // max(1, self._nothing.nbytes))
        self._file.seek(end)
        return super().sync()

    def finish(self) -> None:
        """Raises ValueError, and removes the file, if there was no vector."""
        if self._nothing is None:
            self._path.unlink()
            raise ValueError("there is no text to embed")

    def _start(self, first: np.ndarray) -> None:
        self._nothing = _nothing(len(first), first.dtype)
        self._write_header(0)
        self._begin = self._file.tell()
        self._append(self._nothing.tobytes() * self._num_unwritten)

    def _write_header(self, num_rows: int) -> None:
        """NumPy leaves room, so that the size of the header does not depend on the rows."""
        assert self._nothing is not None
        self._file.seek(0)
        header = {
            "descr": np.lib.format.dtype_to_descr(self._nothing.dtype),
            "fortran_order": False,
            "shape": (num_rows, len(self._nothing)),
        }
        np.lib.format.write_array_header_1_0(self._file, header)


def growing_file(path: Path, num_bytes: int) -> LinesFile:
    """The file of the kind that its name says. Raises as `LinesFile`."""
    kinds = {COMPRESSED: CompressedLinesFile, VECTORS: VectorsFile}
    return kinds.get(path.suffix, LinesFile)(path, num_bytes)


def _joined(values: Sequence[Any]) -> bytes:
    return "".join(f"{line}\n" for line in values).encode("utf-8", "backslashreplace")


def _nothing(width: int, dtype: Any) -> np.ndarray:
    return np.full(width, np.nan if np.dtype(dtype).kind == "f" else 0, dtype)
