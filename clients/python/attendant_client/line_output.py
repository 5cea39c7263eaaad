"""Where the lines of the `attendant` command go: standard output, or files that can be continued.

Faults go to the standard error.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from attendant_client.growing_files import LinesFile, growing_file
from attendant_client.input_files import InputFile
from attendant_client.input_lines import Place
from attendant_client.job_record import Done, JobRecord, sync

COMMIT_SECONDS = 2.0
"""How much work a kill may lose, besides what is on its way to the servers and back."""


def complain(message: str) -> None:
    """Write one line to the standard error, if there is one."""
    if sys.stderr is not None:
        print(f"attendant: {' '.join(message.split())}", file=sys.stderr)


class StandardOutput:
    """Lines on the standard output."""

    done = Done()
    begin = Place()

    def __init__(self) -> None:
        """Raises ValueError if the standard output is closed."""
        if sys.stdout is None:
            raise ValueError("the standard output is closed")

    def write(self, values: Sequence[tuple[int, Any]], num_faults: int) -> None:
        """Write lines."""
        print("\n".join(line for _, line in values), flush=True)

    def finish(self) -> None:
        """Nothing is left to be done."""

    def close(self) -> None:
        """Nothing is left to be done."""


class JobOutput:
    """The file of a job, or the files of a folder, each beside the input file of its name.

    Lines are given to the operating system at once. Every `COMMIT_SECONDS`, and at the end, they
    are written to the disk, and then the record. So after a kill or a loss of power, everything up
    to the record is there, and later lines are written again.
    """

    def __init__(
        self,
        path: Path,
        files: Sequence[InputFile],
        job: Mapping[str, Any],
        resume: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin the job or, with `resume`, go on where an earlier one with the same `job` ended.

        `files` are those of the input; there are none for another input. Raises ValueError for an
        existing output without `resume`, one without a record, and one of another job.
        """
        self._root, self._names = path, [file.name for file in files] or [""]
        exists = self._exists()
        if exists and not resume:
            raise ValueError(f"{path} exists; continue it with --resume, or remove it")
        self._record = JobRecord(path)
        self._file: LinesFile | None = None
        self._index = -1
        self._clock = clock
        self._is_whole = False
        """Whether the files have what `_new` says, and not a part of a line more."""
        try:
            self.done = self._record.resume(job) if exists else self._record.begin(job)
            if not self.done.is_complete:
                self._open(self.done.file, self.done.num_bytes)
        except BaseException:
            self.close()
            raise
        self._new = replace(self.done)
        """As far as lines were written, which may not be on the disk yet."""
        self._committed, self._is_whole = clock(), True

    @property
    def num_all_lines(self) -> int:
        """Lines of all files that were written so far."""
        return self._new.num_all_lines

    @property
    def begin(self) -> Place:
        """Where the input goes on."""
        return Place(self.done.file, self.done.num_lines)

    def write(self, values: Sequence[tuple[int, Any]], num_faults: int) -> None:
        """Write lines or vectors, each after the index of its file; so many of them are faults."""
        self._is_whole = False
        for index, group in groupby(values, key=lambda value: value[0]):
            self._advance(index)
            assert self._file is not None
            content = [value for _, value in group]
            self._file.write(content)
            self._new.num_lines += len(content)
            self._new.num_all_lines += len(content)
        self._new.num_faults += num_faults
        self._is_whole = True
        if self._clock() - self._committed >= COMMIT_SECONDS:
            self._commit()

    def finish(self) -> None:
        """Note that all lines were written."""
        if self.done.is_complete:
            return
        self._is_whole = False
        self._advance(len(self._names) - 1)
        assert self._file is not None
        self._file.finish()
        self._new.is_complete = self._is_whole = True
        self._commit()

    def close(self) -> None:
        """Write everything to the disk, and let other processes go on."""
        try:
            if self._file is not None and self._is_whole:
                self._commit()
        finally:
            if self._file is not None:
                self._file.close()
            self._file = None
            self._record.close()

    def _exists(self) -> bool:
        if self._root.is_dir():
            return any(self._root.iterdir())
        return self._root.exists()

    def _commit(self) -> None:
        assert self._file is not None
        num_bytes = self._file.sync()
        if num_bytes is not None:
            self._new.num_bytes = num_bytes
            if self._new != self.done:
                self._record.note(self._new)
            self.done = replace(self._new)
        self._committed = self._clock()

    def _advance(self, index: int) -> None:
        """Go on to a file; those before it have all their lines."""
        while self._index < index:
            assert self._file is not None
            self._file.finish()
            self._file.sync()
            self._file.close()
            self._open(self._index + 1, 0)
            self._new.file, self._new.num_lines, self._new.num_bytes = self._index, 0, 0

    def _open(self, index: int, num_bytes: int) -> None:
        path = self._root / self._names[index] if self._names[index] else self._root
        missing = [each for each in path.parents if not each.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file, self._index = growing_file(path, num_bytes), index
        for folder in {path.parent, *(each.parent for each in missing)}:
            sync(folder)
