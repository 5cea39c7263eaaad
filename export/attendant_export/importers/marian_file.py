"""Reads Marian's model files: its binary format and ``.npz``. Executes nothing from them.

A binary file has, all little-endian: version and number of tensors (uint64 each); for each tensor
the length of its name, its type, its number of dimensions and the bytes of its data (uint64 each);
all names, ending in NUL; all dimensions (int32); the length of a padding (uint64) and the padding;
all data. Both kinds of files hold the configuration as a tensor of characters.
"""

import struct
import zipfile
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from attendant_export.importers.checkpoint import CheckpointError

VERSION = 1
MAGIC = struct.pack("<Q", VERSION)
"""The first bytes of a binary file."""
CONFIG = "special:model.yml"
INT8, INT16 = 0x4101, 0x4102
"""Types of quantized matrices: integers, and behind them their multiplier in float32."""
CHARACTERS = 0x101
DTYPES: Mapping[int, type[np.generic]] = {
    0x404: np.float32,
    0x402: np.float16,
    INT8: np.int8,
    INT16: np.int16,
    CHARACTERS: np.int8,
}
TYPE_NAMES = "float32 (0x404), float16 (0x402), intgemm8 (0x4101), intgemm16 (0x4102)"
TABLE = "Wemb"
"""A part of the name of each table of embeddings. Other quantized matrices are transposed."""

FloatArray = NDArray[np.float32]
Stored = tuple[int, tuple[int, ...], bytes | memoryview]
"""Type, shape and data of a tensor."""


class MarianFile:
    """The tensors of a model by name, and its configuration."""

    def __init__(self, path: Path, tensors: Mapping[str, Stored]) -> None:
        self.path, self._tensors = path, dict(tensors)
        self.config = _config(path, self._tensors.pop(CONFIG, None))

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of every tensor."""
        return {name: shape for name, (_, shape, _) in self._tensors.items()}

    def array(self, name: str) -> FloatArray:
        """One tensor in float32. A quantized value is the integer divided by the multiplier.

        Raises CheckpointError for a multiplier that is not a positive number.
        """
        kind, shape, data = self._tensors[name]
        values = np.frombuffer(data, DTYPES[kind], prod(shape)).astype(np.float32)
        if kind not in (INT8, INT16):
            return values.reshape(shape)
        (multiplier,) = np.frombuffer(data, "<f4", 1, offset=_num_bytes(kind, shape))
        if not (np.isfinite(multiplier) and multiplier > 0):
            raise CheckpointError(
                f"{self.path}: {name} has the quantization multiplier {multiplier}"
            )
        values /= multiplier
        if TABLE in name:
            return values.reshape(shape)
        return np.ascontiguousarray(values.reshape(shape[::-1]).T)


def read_marian_file(path: Path) -> MarianFile:
    """Read a model; raises CheckpointError for a damaged file or an unsupported type."""
    tensors = _read_npz(path) if path.suffix == ".npz" else _read_binary(path)
    return MarianFile(path, tensors)


def _read_npz(path: Path) -> dict[str, Stored]:
    tensors: dict[str, Stored] = {}
    types = {np.dtype(dtype): kind for kind, dtype in DTYPES.items() if kind not in (INT8, INT16)}
    try:
        with np.load(path, allow_pickle=False) as content:
            for name in content.files:
                array = content[name]
                if array.dtype not in types:
                    raise ValueError(f"{name} has the type {array.dtype}, want float32 or float16")
                tensors[name] = (types[array.dtype], array.shape, array.tobytes())
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} is not a Marian model: {error}") from error
    return tensors


def _read_binary(path: Path) -> dict[str, Stored]:
    try:
        return _tensors(path.read_bytes())
    except (ValueError, struct.error) as error:
        raise CheckpointError(f"{path} is not a Marian model: {error}") from error


def _tensors(content: bytes) -> dict[str, Stored]:
    """All tensors of a binary file; raises ValueError for a damaged one."""
    reader = _Reader(content)
    version, number = reader.integers(2, "Q")
    if version != VERSION:
        raise ValueError(f"it has the version {version}, want {VERSION}")
    reader.check(4 * 8 * number)
    heads = [reader.integers(4, "Q") for _ in range(number)]
    names = [_name(reader.take(length)) for length, *_ in heads]
    shapes = [reader.integers(num_dimensions, "i") for _, _, num_dimensions, _ in heads]
    reader.take(*reader.integers(1, "Q"))
    tensors: dict[str, Stored] = {}
    for name, shape, (_, kind, _, num_bytes) in zip(names, shapes, heads, strict=True):
        data = reader.take(num_bytes)
        _check(name, kind, shape, num_bytes)
        if name in tensors:
            raise ValueError(f"{name} is there twice")
        tensors[name] = (kind, shape, data)
    if rest := len(reader):
        raise ValueError(f"{rest} bytes follow the last tensor")
    return tensors


class _Reader:
    """Reads a content from its beginning on."""

    def __init__(self, content: bytes) -> None:
        self._rest = memoryview(content)

    def __len__(self) -> int:
        """Number of bytes that were not read yet."""
        return len(self._rest)

    def check(self, num_bytes: int) -> None:
        """Raise ValueError if fewer bytes are left."""
        if num_bytes > len(self._rest):
            raise ValueError(f"it is cut off: {num_bytes} bytes wanted, {len(self._rest)} left")

    def take(self, num_bytes: int) -> memoryview:
        self.check(num_bytes)
        taken, self._rest = self._rest[:num_bytes], self._rest[num_bytes:]
        return taken

    def integers(self, number: int, code: str) -> tuple[int, ...]:
        size = struct.calcsize(f"<{code}")
        return struct.unpack(f"<{number}{code}", self.take(number * size))


def _name(data: memoryview) -> str:
    text = bytes(data)
    if not text.endswith(b"\0"):
        raise ValueError(f"the name {text!r} does not end in NUL")
    return text[:-1].decode()


def _check(name: str, kind: int, shape: tuple[int, ...], num_bytes: int) -> None:
    if kind not in DTYPES:
        raise ValueError(f"{name} has the type {kind:#x}, supported: {TYPE_NAMES}")
    if min(shape, default=1) < 1:
        raise ValueError(f"{name} has the shape {shape}")
    wanted = _num_bytes(kind, shape) + (4 if kind in (INT8, INT16) else 0)
    if num_bytes < wanted:
        raise ValueError(f"{name} has {num_bytes} bytes, want at least {wanted} for {shape}")


def _num_bytes(kind: int, shape: tuple[int, ...]) -> int:
    return prod(shape) * np.dtype(DTYPES[kind]).itemsize


def _config(path: Path, stored: Stored | None) -> dict[str, Any]:
    if stored is None:
        raise CheckpointError(f"{path}: it has no configuration, {CONFIG}")
    text = bytes(stored[2]).rstrip(b"\0").decode(errors="replace")
    return parse_yaml(f"{path}: {CONFIG}", text)


def parse_yaml(name: str, text: str) -> dict[str, Any]:
    """The object of a YAML file; raises CheckpointError that begins with ``name``."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{name} is not YAML: {reason}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{name} is not a YAML object")
    return content
