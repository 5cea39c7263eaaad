"""The files of a job after a kill: it goes on from whatever is there, each line exactly once.

A kill is an exception that nothing catches, in the place of each step that reaches the disk.
"""

import gzip
import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
from attendant_client.growing_files import LinesFile
from attendant_client.input_files import InputFile
from attendant_client.job_record import Done
from attendant_client.line_output import JobOutput

JOB = {"options": {"--beam": 2}, "files": [{"name": "a", "sha256": "1"}]}
SECONDS_OF_A_WRITE = 1.0
"""Less than the time between two records, so that there are lines behind the record."""


class Killed(BaseException):
    """The end of the process."""


class Killer:
    """Kills at one of the steps that reach the disk; a write is done by half."""

    def __init__(self, monkeypatch):
        self.step, self.last_step = 0, None
        append, replace = LinesFile._append, Path.replace

        def half(file, content):
            if self._is_now():
                append(file, content[: len(content) // 2])
                raise Killed
            append(file, content)

        def other(done):
            def step(*arguments):
                if self._is_now():
                    raise Killed
                return done(*arguments)

            return step

        monkeypatch.setattr(LinesFile, "_append", half)
        monkeypatch.setattr(os, "fsync", other(lambda _: None))  # thousands would take long
        monkeypatch.setattr(Path, "replace", other(replace))
        monkeypatch.setattr(JobOutput, "close", close_only)

    def _is_now(self):
        self.step += 1
        return self.step == self.last_step


def close_only(output):
    """What the system does at the end of a process."""
    if output._file is not None:
        output._file.close()
    output._record.close()


def run(path, names, values, resume):
    """Write each value into the file of its index, from the place on where the job is."""
    clock = itertools.count(0, SECONDS_OF_A_WRITE)
    files = [InputFile(Path(name), name) for name in names]
    output = JobOutput(path, files, JOB, resume, clock=lambda: next(clock))
    try:
        if not output.done.is_complete:
            write_rest(output, values)
    finally:
        output.close()


def write_rest(output, values):
    begin = output.begin
    rest = [v for v in values if v[0] > begin.file]
    rest = [v for v in values if v[0] == begin.file][begin.num_lines :] + rest
    assert len(rest) == len(values) - output.done.num_all_lines
    for value in rest:
        output.write([value], 0)
    output.finish()


LINES = [(file, f"{file} {number} ä") for file in (0, 2, 3) for number in range(5)]
FOLDER = ["a.txt", "b/empty.gz", "b/c.gz", "d/e/f.txt", "d/last.txt"]
VECTORS = [(0, None), (0, None), *((0, np.array([n, 1], "f4")) for n in range(6)), (0, None)]


def contents(path):
    return {
        p.relative_to(path).as_posix(): gzip.decompress(p.read_bytes())
        if p.suffix == ".gz"
        else p.read_bytes()
        for p in path.rglob("*")
        if p.is_file()
    }


def rows(path):
    return {path.name: np.load(path).tobytes()}


@pytest.mark.parametrize(
    ("names", "values", "name", "read"),
    [(FOLDER, LINES, "out", contents), ([""], VECTORS, "out.npy", rows)],
)
def test_a_job_that_is_killed_at_any_step_goes_on(tmp_path, monkeypatch, names, values, name, read):
    (tmp_path / "whole").mkdir()
    killer = Killer(monkeypatch)
    run(tmp_path / "whole" / name, names, values, resume=False)
    wanted, num_steps = read(tmp_path / "whole" / name), killer.step
    assert num_steps > 30
    for last_step in range(1, num_steps + 1):
        folder = tmp_path / str(last_step)
        folder.mkdir()
        killer.step, killer.last_step = 0, last_step
        with pytest.raises(Killed):
            run(folder / name, names, values, resume=True)
        killer.last_step = None
        run(folder / name, names, values, resume=True)
        assert read(folder / name) == wanted


def test_a_job_that_is_killed_again_and_again_comes_to_its_end(tmp_path, monkeypatch):
    killer = Killer(monkeypatch)
    run(tmp_path / "whole", FOLDER, LINES, resume=False)
    killer.last_step = 13  # enough for a few lines
    for _ in range(100):
        killer.step = 0
        try:
            run(tmp_path / "out", FOLDER, LINES, resume=True)
        except Killed:
            continue
        break
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize(("suffix", "step"), [(".txt", 1), (".gz", 41)])
def test_whatever_is_behind_the_record_is_cut_off(tmp_path, monkeypatch, suffix, step):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # thousands would take long
    path = tmp_path / f"out{suffix}"
    values = [(0, f"line {number} " + "é" * (number % 50)) for number in range(40)]
    run(path, [""], values, resume=False)
    whole = path.read_bytes()
    wanted = gzip.decompress(whole) if suffix == ".gz" else whole
    record = tmp_path / f".out{suffix}.attendant" / "done.json"
    path.unlink()
    clock = itertools.count()
    output = JobOutput(path, [], JOB, False, clock=lambda: 3 * next(clock))
    for value in values[:20]:
        output.write([value], 0)
    close_only(output)
    done, good = record.read_text(), path.read_bytes()
    assert json.loads(done)["num_lines"] == 20
    behind = (whole[len(good) :] + os.urandom(1024))[:1024]
    for length in range(0, len(behind) + 1, step):
        path.write_bytes(good + behind[:length])
        record.write_text(done)
        output = JobOutput(path, [], JOB, True)
        assert (output.begin.num_lines, path.read_bytes()) == (20, good)
        close_only(output)
        if length % 256 in (0, 5):
            run(path, [""], values, resume=True)
            found = path.read_bytes()
            assert (gzip.decompress(found) if suffix == ".gz" else found) == wanted
    for length in (0, 1, len(good) - 1):
        path.write_bytes(good[:length])
        record.write_text(done)
        with pytest.raises(ValueError, match="is damaged: it has"):
            JobOutput(path, [], JOB, True)


def test_a_write_that_fails_is_not_noted(tmp_path, monkeypatch):
    path = tmp_path / "out.txt"
    output = JobOutput(path, [], JOB, False)
    output.write([(0, "first")], 0)
    append = LinesFile._append

    def full(file, content):
        append(file, content[:3])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LinesFile, "_append", full)
    with pytest.raises(OSError, match="No space"):
        output.write([(0, "second")], 0)
    output.close()
    monkeypatch.undo()
    run(path, [""], [(0, "first"), (0, "second")], resume=True)
    assert path.read_text() == "first\nsecond\n"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"no": 1}', "null"])
@pytest.mark.parametrize("name", ["job", "done"])
def test_a_damaged_record_is_an_error(tmp_path, name, content):
    path = tmp_path / "out.txt"
    JobOutput(path, [], JOB, False).close()
    (tmp_path / ".out.txt.attendant" / f"{name}.json").write_text(content)
    with pytest.raises(ValueError, match=r"cannot be continued: the record .* is damaged"):
        JobOutput(path, [], JOB, True)


def test_a_record_whose_output_was_removed_does_not_count(tmp_path):
    path = tmp_path / "out.txt"
    run(path, [""], [(0, "old")], resume=False)
    path.unlink()
    output = JobOutput(path, [], {"options": {}, "files": []}, True)
    assert output.done == Done()
    output.close()
