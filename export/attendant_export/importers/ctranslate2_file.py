"""Reads ``model.bin`` of CTranslate2: arrays and scalars by name, and aliases of arrays.

Versions 1 to 6 of the format: ``python/ctranslate2/specs/model_spec.py`` of that project writes it.
Arrays are read from the file when they are asked for.
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attendant_export.importers.checkpoint import CheckpointError

MODEL_FILE = "model.bin"
MAX_VERSION = 6
Scalar: TypeAlias = int | float

_DTYPES = ("float32", "int8", "int16", "int32", "float16", "bfloat16")
"""Names of data types by their number in the file, from version 4 on."""
_EARLIER_DTYPES = {4: "float32", 2: "int16", 1: "int8"}
"""Names of data types by the size of an item, before version 4."""
_STORED = {"bfloat16": np.dtype("<u2")}
INT16_SCALE = 1000.0
"""Scale of int16 weights of early models, which do not state it."""
SCALE = "_scale"
"""Suffix of the name of a quantized weight's scales."""


@dataclass(frozen=True, slots=True)
class _Variable:
    shape: tuple[int, ...]
    dtype: str
    offset: int

    @property
    def stored(self) -> np.dtype[np.generic]:
        return _STORED.get(self.dtype) or np.dtype(self.dtype).newbyteorder("<")


class ModelFile:
    """The content of a file. Raises CheckpointError for a damaged or unknown one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        is_empty = not path.stat().st_size
        self._content: NDArray[np.uint8] = (
            np.empty(0, np.uint8) if is_empty else np.memmap(path, np.uint8, mode="r")
        )
        reader = _Reader(path, self._content.data)
        self.version = reader.integer("I", "the version")
        if not 1 <= self.version <= MAX_VERSION:
            raise CheckpointError(
                f"{path}: the version of the format is {self.version}, which is not supported; "
                f"supported: 1 to {MAX_VERSION}"
            )
        has_specification = self.version >= 2
        self.specification = reader.text("the specification") if has_specification else ""
        self.revision = reader.integer("I", "the revision") if has_specification else 1
        self._variables = _read_variables(reader, self.version)
        self._aliases = _read_aliases(reader, self._variables) if self.version >= 3 else {}
        reader.check_end()

    def rename(self, names: dict[str, str]) -> None:
        """Give variables and aliases other names."""
        self._variables = {names.get(name, name): v for name, v in self._variables.items()}
        self._aliases = {names.get(a, a): names.get(n, n) for a, n in self._aliases.items()}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of arrays by name, and by each alias. Scales are no arrays of their own."""
        found = {name: v.shape for name, v in self._variables.items() if v.shape}
        found |= {alias: found[name] for alias, name in self._aliases.items() if name in found}
        return {name: shape for name, shape in found.items() if not self._is_scale(name)}

    def scalars(self) -> dict[str, Scalar]:
        """The numbers without dimensions by name, which are options. Scales are not among them."""
        return {
            name: self._values(variable).item()
            for name, variable in self._variables.items()
            if not variable.shape and not self._is_scale(name)
        }

    def target(self, name: str) -> str:
        """The name of the array that ``name`` is an alias of, or ``name`` itself."""
        return self._aliases.get(name, name)

    def text(self, name: str) -> str:
        """An array of bytes as text."""
        return self._values(self._variables[name]).tobytes().decode("utf-8", errors="replace")

    def read(self, name: str) -> Tensor:
        """An array in fp32. Quantized values are multiplied by the reciprocals of their scales."""
        name = self.target(name)
        variable = self._variables[name]
        values = self._values(variable).astype(np.float32)
        if variable.dtype in ("int8", "int16"):
            reciprocals = np.float32(1) / self._scales(name, variable)
            values *= reciprocals.reshape(-1, *[1] * (len(variable.shape) - 1))
        return torch.from_numpy(values)

    def _scales(self, name: str, variable: _Variable) -> NDArray[np.float32]:
        """One scale for each row of int8 values, or a single one for int16 values."""
        found = self._variables.get(name + SCALE)
        if found is None and variable.dtype == "int16":
            return np.full(1, INT16_SCALE, np.float32)
        wanted = variable.shape[:1] if variable.dtype == "int8" else ()
        if found is None or (found.shape, found.dtype) != (wanted, "float32"):
            state = "missing" if found is None else f"{found.dtype} {found.shape}"
            raise CheckpointError(
                f"{self.path}: {name}{SCALE} is {state}, but {name} is {variable.dtype} "
                f"{variable.shape} and needs float32 {wanted}"
            )
        return np.atleast_1d(self._values(found)).astype(np.float32)

    def _values(self, variable: _Variable) -> NDArray[np.generic]:
        size = math.prod(variable.shape) * variable.stored.itemsize
        stored = self._content[variable.offset : variable.offset + size].view(variable.stored)
        if variable.dtype == "bfloat16":
            stored = (stored.astype(np.uint32) << 16).view(np.float32)
        return stored.reshape(variable.shape)

    def _is_scale(self, name: str) -> bool:
        scaled = self.target(name.removesuffix(SCALE))
        variable = self._variables.get(scaled)
        is_quantized = variable is not None and variable.dtype in ("int8", "int16")
        return name.endswith(SCALE) and is_quantized


class _Reader:
    """Reads the parts of a file in order."""

    def __init__(self, path: Path, content: memoryview) -> None:
        self._path, self._content, self.offset = path, content, 0

    def integer(self, kind: str, what: str) -> int:
        """An integer, whose size ``kind`` gives as in `struct`."""
        part = self.skip(struct.calcsize(kind), what)
        value: int = struct.unpack(f"<{kind}", part)[0]
        return value

    def text(self, what: str) -> str:
        """A text with its length, which counts a zero byte at its end."""
        part = bytes(self.skip(self.integer("H", what), what))
        if not part.endswith(b"\0"):
            raise self._damaged(f"{what} does not end with a zero byte")
        try:
            return part[:-1].decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._damaged(f"{what} is not UTF-8") from error

    def skip(self, size: int, what: str) -> memoryview:
        """The next ``size`` bytes."""
        begin, self.offset = self.offset, self.offset + size
        if self.offset > len(self._content):
            raise self._damaged(
                f"{what} ends at byte {self.offset}, but the file has {len(self._content)}"
            )
        return self._content[begin : self.offset]

    def check_end(self) -> None:
        """Raise CheckpointError if there are more bytes."""
        if (rest := len(self._content) - self.offset) > 0:
            raise self._damaged(f"{rest} bytes follow after the last variable")

    def _damaged(self, problem: str) -> CheckpointError:
        return CheckpointError(f"{self._path} is damaged or incomplete: {problem}")


def _read_variables(reader: _Reader, version: int) -> dict[str, _Variable]:
    found: dict[str, _Variable] = {}
    for number in range(reader.integer("I", "the number of variables")):
        name = reader.text(f"the name of variable {number}")
        rank = reader.integer("B", name)
        shape = tuple(reader.integer("I", name) for _ in range(rank))
        kind, size = reader.integer("B", name), reader.integer("I", name)
        dtype = _dtype(name, kind, version)
        variable = _Variable(shape, dtype, reader.offset)
        if version < 4:
            size *= kind
        wanted = math.prod(shape) * variable.stored.itemsize
        if size != wanted:
            raise CheckpointError(f"{name}: {dtype} {shape} has {size} bytes, not {wanted}")
        if name in found:
            raise CheckpointError(f"{name} is in the file twice")
        reader.skip(size, name)
        found[name] = variable
    return found


def _dtype(name: str, kind: int, version: int) -> str:
    known = dict(enumerate(_DTYPES)) if version >= 4 else _EARLIER_DTYPES
    if kind not in known:
        listed = ", ".join(f"{number} ({dtype})" for number, dtype in sorted(known.items()))
        raise CheckpointError(
            f"{name}: the data type is {kind}, which is not supported; supported: {listed}"
        )
    return known[kind]


def _read_aliases(reader: _Reader, variables: dict[str, _Variable]) -> dict[str, str]:
    found = {}
    for number in range(reader.integer("I", "the number of aliases")):
        what = f"alias {number}"
        alias, name = reader.text(what), reader.text(what)
        if name not in variables:
            raise CheckpointError(f"{alias} is an alias of {name}, which is not in the file")
        found[alias] = name
    return found
