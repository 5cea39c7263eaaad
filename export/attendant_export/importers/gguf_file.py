"""The container of GGUF files of versions 2 and 3: metadata, and tensors that are read on demand.

The format is described in docs/gguf.md of the project ggml. Executes nothing.
"""

import mmap
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attendant_export.importers.checkpoint import CheckpointError
from attendant_export.importers.gguf_quantization import TYPES, TensorType

SUFFIX = ".gguf"
MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_DIMENSIONS = 4
_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
"""The form of a metadata value by the number of its type, as in `struct`."""


class GgufFile:
    """An open file: its metadata by key, and its tensors by name."""

    def __init__(self, path: Path) -> None:
        """Raises CheckpointError for a damaged file, another version and another byte order."""
        self.path = path
        self._read = _Reader(path)
        self._check_beginning()
        num_tensors, num_fields = self._read.number("Q"), self._read.number("Q")
        self.fields: dict[str, Any] = {}
        """The metadata."""
        for _ in range(num_fields):
            key = self._read.text()
            self.fields[key] = self._value(self._read.number("I"))
        self._tensors = dict(self._tensor() for _ in range(num_tensors))
        alignment = self.fields.get("general.alignment", DEFAULT_ALIGNMENT)
        if type(alignment) is not int or alignment < 1:
            raise CheckpointError(f"{path}: general.alignment is {alignment!r}")
        self._begin = -(-self._read.position // alignment) * alignment

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of every tensor, the dimension of adjacent values last."""
        return {name: shape for name, (shape, _, _) in self._tensors.items()}

    def read(self, name: str) -> Tensor:
        """One tensor in fp32; raises CheckpointError if the file is cut off."""
        shape, kind, offset = self._tensors[name]
        size = int(np.prod(shape, dtype=np.int64))
        first = self._begin + offset
        blocks = self._read.bytes_at(first, size // kind.block_size * kind.block_bytes)
        return torch.from_numpy(kind.dequantize(blocks).reshape(shape))

    def _check_beginning(self) -> None:
        if self._read.bytes(len(MAGIC)) != MAGIC:
            raise CheckpointError(f"{self.path} is not a GGUF file")
        version = self._read.number("I")
        if version not in VERSIONS:
            known = ", ".join(map(str, VERSIONS))
            raise CheckpointError(
                f"{self.path}: the version of GGUF is {version}, which is not supported; "
                f"supported: {known}, in little-endian byte order"
            )

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._read.text()
        if kind == _ARRAY:
            element, count = self._read.number("I"), self._read.number("Q")
            if element in _SCALARS:
                return self._read.numbers(_SCALARS[element], count)
            if element == _STRING:
                return [self._read.text() for _ in range(self._read.checked_count(count))]
            raise CheckpointError(f"{self.path}: arrays of type {element} are not supported")
        if kind not in _SCALARS:
            raise CheckpointError(f"{self.path}: a metadata value has the unknown type {kind}")
        return self._read.number(_SCALARS[kind])

    def _tensor(self) -> tuple[str, tuple[tuple[int, ...], TensorType, int]]:
        name = self._read.text()
        count = self._read.number("I")
        if not 1 <= count <= MAX_DIMENSIONS:
            raise CheckpointError(f"{self.path}: {name} has {count} dimensions")
        shape = tuple(self._read.number("Q") for _ in range(count))[::-1]
        number, offset = self._read.number("I"), self._read.number("Q")
        kind = TYPES.get(number)
        if kind is None:
            known = ", ".join(each.name for each in TYPES.values())
            raise CheckpointError(
                f"{self.path}: {name} has the type {number} of ggml, which is not supported; "
                f"supported: {known}"
            )
        if shape[-1] % kind.block_size:
            raise CheckpointError(
                f"{self.path}: {name} has rows of {shape[-1]} values, not a multiple of the "
                f"{kind.block_size} of {kind.name}"
            )
        return name, (shape, kind, offset)


class _Reader:
    """Reads values one after another. Raises CheckpointError at the end of the file."""

    def __init__(self, path: Path) -> None:
        self._path, self.position = path, 0
        with path.open("rb") as opened:
            is_empty = not opened.read(1)
            # Mapped, so that only the tensors that are read take memory.
            self._content: Any = (
                b"" if is_empty else mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
            )

    def bytes_at(self, first: int, count: int) -> bytes:
        """``count`` bytes from ``first`` on."""
        if not 0 <= first <= first + count <= len(self._content):
            raise CheckpointError(f"{self._path} is cut off")
        return bytes(self._content[first : first + count])

    def bytes(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        found = self.bytes_at(self.position, count)
        self.position += count
        return found

    def number(self, form: str) -> Any:
        """The next number, in a form of `struct`."""
        [value] = struct.unpack(f"<{form}", self.bytes(struct.calcsize(f"<{form}")))
        return value

    def numbers(self, form: str, count: int) -> list[Any]:
        """The next ``count`` numbers."""
        size = struct.calcsize(f"<{form}")
        content = self.bytes(count * size)
        return list(struct.unpack(f"<{count}{form}", content))

    def checked_count(self, count: int) -> int:
        """``count``, if the rest of the file can have as many texts."""
        if count * 8 > len(self._content) - self.position:
            raise CheckpointError(f"{self._path} is cut off")
        return count

    def text(self) -> str:
        """The next text, after its length."""
        try:
            return self.bytes(self.number("Q")).decode()
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{self._path}: a text is not UTF-8: {error}") from error
