"""What a job with files is, and how far it is: a record that survives a kill at any moment.

The record is in a hidden folder beside the output. `job.json` has the input and the options and is
written once; `done.json` has the place in the output and is replaced as a whole, after the output
up to that place is on the disk. A resumed job truncates the output to that place and goes on.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows: two processes with one output are not told apart there
    fcntl = None  # type: ignore[assignment]

FOLDER_SUFFIX = ".attendant"


@dataclass(slots=True)
class Done:
    """The place up to which a job is done."""

    file: int = 0
    """The index of the file that is being written; those before it are complete."""
    num_lines: int = 0
    """Lines of this file."""
    num_bytes: int = 0
    """Bytes of this file, as they are on the disk."""
    num_all_lines: int = 0
    """Lines of all files."""
    num_faults: int = 0
    """Lines of all files that failed."""
    is_complete: bool = False


class JobRecord:
    """The record of the job that writes an output; a second process is refused."""

    def __init__(self, output: Path) -> None:
        """Raises ValueError if another process writes the output."""
        self._output = output
        self.folder = output.with_name(f".{output.name}{FOLDER_SUFFIX}")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.folder, os.O_RDONLY) if fcntl else None
        try:
            if self._lock is not None:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise ValueError(f"{output}: another process is writing it") from None

    def close(self) -> None:
        """Let other processes write the output."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def begin(self, job: Mapping[str, Any]) -> Done:
        """Note a new job, in the place of an earlier one."""
        # A crash in between leaves a record that fits no output, since the output comes later.
        self._path("done").unlink(missing_ok=True)
        self._replace("job", job)
        done = Done()
        self.note(done)
        sync(self.folder.parent)
        return done

    def resume(self, job: Mapping[str, Any]) -> Done:
        """The place of an earlier job; raises ValueError that names what was different in it."""
        cannot = f"{self._output} cannot be continued"
        try:
            found, done = _job(self._read("job")), Done(**self._read("done"))
        except FileNotFoundError:
            raise ValueError(f"{cannot}: it has no record {self.folder}") from None
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{cannot}: the record {self.folder} is damaged: {error}") from error
        options, files = map(_different, found, _job(json.loads(json.dumps(job))))
        if options:
            raise ValueError(f"{cannot}: it was begun with other values of {', '.join(options)}")
        if files:
            more = f" and {len(files) - 1} more" if len(files) > 1 else ""
            raise ValueError(f"{cannot}: the input has changed: {files[0]}{more}")
        return done

    def note(self, done: Done) -> None:
        """Note how far the job is. The output up to there must be on the disk."""
        self._replace("done", asdict(done))

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _read(self, name: str) -> Any:
        return json.loads(self._path(name).read_text(encoding="utf-8"))

    def _replace(self, name: str, values: Mapping[str, Any]) -> None:
        temporary = self.folder / f"{name}.tmp"
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(values, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path(name))
        sync(self.folder)


def _job(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of a job, and its input files by their names."""
    return values["options"], {file["name"]: file for file in values["files"]}


def _different(some: Mapping[str, Any], others: Mapping[str, Any]) -> list[str]:
    return [name for name in {**some, **others} if some.get(name) != others.get(name)]


def sync(folder: Path) -> None:
    """Write the names in a folder to the disk, where the system can do so."""
    if fcntl is None:
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
