"""A file of sentence pairs that grows piece by piece, and survives a kill at any moment.

The pairs are in a hidden file until the last text is done. A record beside it says how many bytes
belong to how many texts. It is replaced as a whole, after the bytes are on the disk, so bytes
behind it are cut off and their texts translated again.
"""

import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from attendant_export.bundle.exchange import sync

PART, RECORD = ".part", ".json"
"""Suffixes of the hidden files beside the output."""
COMPRESSED = ".gz"
OTHER_COMPRESSED = (".xz", ".bz2", ".zst")


@dataclass(slots=True)
class OutputRecord:
    """How far a file of pairs is."""

    settings: dict[str, Any]
    """All that the pairs depend on, by the names of options; JSON values."""
    model: str = ""
    """The name and version of the model; empty before the first text."""
    num_texts: int = 0
    """How many texts are done, the first ones of the corpus."""
    num_pairs: int = 0
    num_bytes: int = 0
    """Size of the file after these texts."""
    left_out: Counter[str] = field(default_factory=Counter)
    """How many of these texts give no pair, by reason."""
    scores: Counter[str] = field(default_factory=Counter)
    """How many translations have each score, rounded down to tenths."""

    def values(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


class PairOutput:
    """The file of pairs of one process; a second process is refused."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError for a compressed file that cannot be written, and for a folder."""
        if path.suffix in OTHER_COMPRESSED:
            raise ValueError(f"--output {path}: only {COMPRESSED} and plain files can be written")
        if path.is_dir():
            raise ValueError(f"--output {path}: is a folder, want a file")
        self.path = path
        # The trainer skips hidden files of a folder.
        self._part, self._record = _hidden(path, PART), _hidden(path, RECORD)

    @contextmanager
    def opened(self, settings: Callable[[], Mapping[str, Any]]) -> Iterator["OpenOutput"]:
        """The file, to be continued where it ended unless it is complete.

        ``settings`` returns those of this process; it reads the corpus, so it is called last.
        Creates no file of pairs, and does not open a complete one. Raises ValueError if another
        process writes it, if a file that this command has not written is there, if it was begun
        with other settings, or if it is damaged.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(_hidden(self.path, ".lock"), timeout=0):
                record = self._found()
                wanted = dict(settings())
                if record is not None:
                    self._refuse_other(record.settings, wanted)
                yield OpenOutput(self.path, record or OutputRecord(wanted))
        except Timeout as error:
            raise ValueError(f"{self.path}: another process is writing it") from error

    def _found(self) -> OutputRecord | None:
        """The record of earlier processes, or None to begin. Raises as `opened`."""
        if not self.path.exists() and not self._part.exists():
            self._record.unlink(missing_ok=True)  # Of a file that was removed since.
            return None
        if not self._record.exists():
            if self.path.exists():
                raise ValueError(f"{self.path} exists and was not written by this command")
            return None  # Killed before anything was done.
        try:
            values = json.loads(self._record.read_text(encoding="utf-8"))
            record = OutputRecord(**values)
            record.left_out, record.scores = Counter(record.left_out), Counter(record.scores)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self._record} is damaged: {error}; {self._remedy()}") from error
        written = self.path if self.path.exists() else self._part
        if written.stat().st_size < record.num_bytes:
            raise ValueError(f"{written} is damaged: it is too short; {self._remedy()}")
        return record

    def _refuse_other(self, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        different = [name for name in {**found, **wanted} if found.get(name) != wanted.get(name)]
        if different:
            raise ValueError(
                f"{self.path} was begun with other values of {', '.join(different)}; choose "
                f"another --output, or {self._remedy()}"
            )

    def _remedy(self) -> str:
        files = [str(each) for each in (self.path, self._part, self._record) if each.exists()]
        return f"remove {' and '.join(files)} to begin anew"


class OpenOutput:
    """A file of pairs that is being written, or is complete."""

    def __init__(self, path: Path, record: OutputRecord) -> None:
        """``record`` says which part of the file is done."""
        self.record = record
        self._path, self._part = path, _hidden(path, PART)

    @property
    def is_complete(self) -> bool:
        """Whether all texts are done."""
        return self._path.exists()

    def append(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Append pairs, and write the record, in which their texts are done already."""
        content = "".join(f"{source}\t{target}\n" for source, target in pairs).encode()
        if content and self._path.suffix == COMPRESSED:
            content = gzip.compress(content, mtime=0)
        self._write(content)
        self.record.num_pairs += len(pairs)
        self.record.num_bytes += len(content)
        temporary = _hidden(self._path, ".tmp")
        temporary.write_text(json.dumps(self.record.values(), indent=1) + "\n", encoding="utf-8")
        sync(temporary)
        temporary.replace(_hidden(self._path, RECORD))
        sync(self._path.parent)

    def finish(self) -> None:
        """Give the file its name: all texts are done."""
        if not self.record.num_bytes and self._path.suffix == COMPRESSED:
            self._write(gzip.compress(b"", mtime=0))  # Programs refuse a file without a member.
        self._part.replace(self._path)
        sync(self._path.parent)

    def _write(self, content: bytes) -> None:
        """Write what comes after the bytes of the record. Cuts off what a kill has left there."""
        with self._part.open("ab") as file:
            file.truncate(self.record.num_bytes)
            file.write(content)
        sync(self._part)
        sync(self._path.parent)  # The file may be new.


def _hidden(path: Path, suffix: str) -> Path:
    return path.with_name(f".{path.name}{suffix}")
