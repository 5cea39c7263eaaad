"""Folders of arrays that are written once and then mapped into memory.

Each array is a plain file, and ``index.json`` has its type, length and checksum. Knows nothing of
text, tokenizers or models.
"""

import json
import logging
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from attendant_export.data.sequences import Sequences, join_sequences

logger = logging.getLogger(__name__)

INDEX, LOCK = "index.json", ".lock"
OFFSETS = ".offsets"
"""Suffix of the array of offsets of sequences."""
_CHECKED_BYTES = 1 << 20
"""How much of a file is read at a time to check it."""


@dataclass(slots=True)
class _ArrayFile:
    """The entry of one array in the index."""

    dtype: str
    length: int = 0
    crc32: int = 0


class FolderWriter:
    """Writes the arrays of a new folder, each piece by piece."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self._files: dict[str, tuple[IO[bytes], _ArrayFile]] = {}

    def append(self, name: str, values: NDArray[Any]) -> None:
        """Append to the array ``name``. All pieces must have the type of the first."""
        if name not in self._files:
            opened = self._stack.enter_context((self._folder / name).open("wb"))
            self._files[name] = opened, _ArrayFile(values.dtype.newbyteorder("<").str)
        file, entry = self._files[name]
        content = np.ascontiguousarray(values, entry.dtype).tobytes()
        file.write(content)
        entry.length += len(values)
        entry.crc32 = zlib.crc32(content, entry.crc32)

    def append_sequences(self, name: str, arrays: Sequence[Any], dtype: Any) -> None:
        """Append to the sequences ``name``; see `ArrayFolder.sequences`."""
        joined = join_sequences(arrays, dtype)
        start = self._files[name][1].length if name in self._files else 0
        if not start and name + OFFSETS not in self._files:
            self.append(name + OFFSETS, np.zeros(1, np.uint64))
        self.append(name, joined.values)
        self.append(name + OFFSETS, joined.offsets[1:].astype(np.uint64) + np.uint64(start))

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Write the index, which makes the folder valid."""
        for file, _ in self._files.values():
            file.close()
        arrays = {name: asdict(entry) for name, (_, entry) in self._files.items()}
        content = json.dumps({"facts": dict(facts), "arrays": arrays}, indent=1)
        (self._folder / INDEX).write_text(content + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class ArrayFolder:
    """The mapped arrays of a folder, and facts about them."""

    path: Path
    arrays: Mapping[str, NDArray[Any]]
    facts: Mapping[str, Any]

    def sequences(self, name: str) -> Sequences:
        """The sequences ``name`` of `FolderWriter.append_sequences`."""
        return Sequences(self.arrays[name], self.arrays[name + OFFSETS])


def read_folder(path: Path) -> ArrayFolder:
    """Map the arrays of a folder.

    Raises FileNotFoundError if the folder does not exist, and ValueError that names the first
    damaged file.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder")
    try:
        content = json.loads((path / INDEX).read_text(encoding="utf-8"))
        entries = {name: _ArrayFile(**entry) for name, entry in content["arrays"].items()}
        arrays = {name: _mapped(path / name, entry) for name, entry in entries.items()}
        return ArrayFolder(path, arrays, content["facts"])
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _mapped(path: Path, entry: _ArrayFile) -> NDArray[Any]:
    dtype = np.dtype(entry.dtype)
    if path.stat().st_size != entry.length * dtype.itemsize:
        raise ValueError(f"{path.name} has a wrong size")
    if _crc32(path) != entry.crc32:
        raise ValueError(f"{path.name} has a wrong checksum")
    if entry.length == 0:
        return np.empty(0, dtype)  # Nothing can be mapped.
    # A plain view of the map: indexing an instance of np.memmap costs more.
    return np.asarray(np.memmap(path, dtype, mode="r", shape=(entry.length,)))


def _crc32(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(_CHECKED_BYTES):
            crc = zlib.crc32(block, crc)
    return crc


def open_or_build(path: Path, build: Callable[[FolderWriter], Mapping[str, Any]]) -> ArrayFolder:
    """The folder ``path``; ``build`` writes its arrays first if it does not exist or is damaged.

    ``build`` returns the facts. The folder appears only when it is complete. Several processes may
    call this at the same time: one builds and the others wait.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.parent / LOCK):
        try:
            return read_folder(path)
        except FileNotFoundError:
            pass
        except ValueError as error:
            logger.warning("%s; it is written anew", error)
        with _replacing(path) as new, ExitStack() as stack:
            writer = FolderWriter(new, stack)
            writer.finish(build(writer))
        return read_folder(path)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A new folder that takes the place of ``path`` unless an error ends the block."""
    new = path.with_name(path.name + ".new")
    shutil.rmtree(new, ignore_errors=True)  # A process that was killed may have left it.
    new.mkdir()
    try:
        yield new
        shutil.rmtree(path, ignore_errors=True)
        new.rename(path)
    finally:
        shutil.rmtree(new, ignore_errors=True)
