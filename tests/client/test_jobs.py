"""Jobs of `attendant` with files: folders, several calls at a time, and continued jobs."""

import gzip
import io
import json
import threading

import numpy as np
import pytest
from attendant_client import input_files, input_lines
from attendant_client.progress import Progress
from attendant_client.side_by_side import SideBySide
from google.rpc import code_pb2, status_pb2

from tests.client.script import Fault


@pytest.fixture
def source(tmp_path):
    return tmp_path / "in.txt"


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out.txt"


@pytest.fixture
def job(attendant, source, output):
    """Translate the file."""
    return lambda *flags: attendant("translate", f"--input={source}", f"--output={output}", *flags)


def test_lines_are_in_order_though_calls_end_and_go_on(job, source, output, script):
    texts = [f"text {number}" for number in range(700)]
    source.write_text("\n".join(texts))
    script.breaks = {f"text {i}": Fault(code_pb2.UNAVAILABLE) for i in (0, 133, 134, 699)}
    assert job("--batch-size=40", "--parallel=3") == (0, "", "")
    assert output.read_text().split("\n") == [*map(str.upper, texts), ""]
    assert set(script.calls) == {"BulkTranslate"}


def test_a_folder_gives_a_folder_with_the_same_files(attendant, tmp_path):
    source, output = tmp_path / "in", tmp_path / "out"
    (source / "a" / "deep").mkdir(parents=True)
    (source / "empty.txt").touch()
    (source / ".hidden").write_text("x")
    (source / "b.txt").write_text("b one\n\nb three")
    (source / "a" / "deep" / "c.txt.gz").write_bytes(gzip.compress(b"c one\nc two\n"))
    (source / "a" / "none.gz").write_bytes(gzip.compress(b""))
    command = ["translate", f"--input={source}", f"--output={output}"]
    assert attendant(*command) == (0, "", "")
    found = {p.relative_to(output).as_posix(): p for p in output.rglob("*") if p.is_file()}
    assert sorted(found) == ["a/deep/c.txt.gz", "a/none.gz", "b.txt", "empty.txt"]
    assert gzip.decompress(found["a/deep/c.txt.gz"].read_bytes()) == b"C ONE\nC TWO\n"
    assert gzip.decompress(found["a/none.gz"].read_bytes()) == b""
    assert found["b.txt"].read_text() == "B ONE\n\nB THREE\n"
    assert found["empty.txt"].read_text() == ""


def test_faults_of_a_folder_name_the_file(attendant, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    (source / "a.txt").write_bytes(b"a\n\xff\n")
    (source / "b.txt").write_bytes(b"\xff\n")
    code, _, err = attendant("translate", f"--input={source}", f"--output={tmp_path / 'out'}")
    assert code == 1
    assert err == (
        "attendant: a.txt, line 2: is not UTF-8 at byte 0\n"
        "attendant: b.txt, line 1: is not UTF-8 at byte 0\n"
    )


@pytest.mark.parametrize("output", ["in/out", "in", None, "x.npy"])
def test_a_folder_needs_another_folder_for_its_output(attendant, tmp_path, output):
    (tmp_path / "in").mkdir()
    flags = [] if output is None else [f"--output={tmp_path / output}"]
    with pytest.raises(SystemExit) as ended:
        attendant("embed", f"--input={tmp_path / 'in'}", *flags)
    assert ended.value.code == 2


def stop_after(script, num_texts):
    """Let all calls fail once so many texts were answered."""
    seen = []

    def change(response):
        seen.extend(response.ids)
        if len(seen) >= num_texts:
            script.faults = [Fault(code_pb2.INTERNAL)] * 99

    script.change = change


@pytest.fixture
def stopped(job, source, output, script):
    """A job that has failed after some of its lines."""
    source.write_text("".join(f"text {number}\n" for number in range(90)))
    stop_after(script, 40)
    assert job("--batch-size=10", "--parallel=1", "--beam=2")[0] == 1
    script.change, script.faults = None, []
    assert 20 <= output.read_text().count("\n") < 90
    script.requests.clear()


def test_a_job_that_failed_goes_on_where_it_ended(stopped, job, source, output, script):
    num_lines = output.read_text().count("\n")
    assert job("--resume", "--beam=2") == (0, "", "")
    assert output.read_text() == source.read_text().upper()
    sent = sum(len(request.texts) for request in script.requests if request.texts)
    assert sent == 90 - num_lines
    script.faults = [Fault(code_pb2.INTERNAL)]
    assert job("--resume", "--beam=2") == (0, "", ""), "a complete job needs no server"


def test_another_input_is_refused_by_name(stopped, job, source, output):
    before = output.read_text()
    source.write_text(source.read_text() + "one more\n")
    code, _, err = job("--resume", "--beam=2")
    assert (code, err) == (
        1,
        f"attendant: {output} cannot be continued: the input has changed: in.txt\n",
    )
    assert output.read_text() == before


def test_other_options_are_refused_by_name(stopped, job, output):
    before = output.read_text()
    code, _, err = job("--resume", "--beam=3", "--to=fr", "--json", "--timeout=9")
    assert code == 1
    assert err.endswith("it was begun with other values of --json, --to, --beam\n")
    assert output.read_text() == before


def test_an_output_without_a_record_is_not_continued(job, source, output):
    source.write_text("a\nb\n")
    output.write_text("A\n")
    code, _, err = job("--resume")
    assert code == 1
    assert "cannot be continued: it has no record" in err
    assert output.read_text() == "A\n"


def test_an_output_that_another_process_writes_is_refused(stopped, job, output):
    from attendant_client.job_record import JobRecord

    record = JobRecord(output)
    code, _, err = job("--resume", "--beam=2")
    assert (code, err) == (1, f"attendant: {output}: another process is writing it\n")
    record.close()


def test_a_failed_line_before_the_interruption_counts_for_the_exit_code(
    job, source, output, script
):
    source.write_bytes(b"\xff\n" + b"a\n" * 30)
    stop_after(script, 10)
    assert job("--batch-size=5", "--parallel=1")[0] == 1
    script.change, script.faults = None, []
    assert job("--resume") == (1, "", "")
    assert output.read_text() == "\n" + "A\n" * 30


def test_vectors_of_a_stopped_job_are_continued(attendant, tmp_path, source, script):
    source.write_text("\n" + "aab\nb\n" * 20)
    path = tmp_path / "vectors.npy"
    command = ["embed", f"--input={source}", f"--output={path}", "--batch-size=4", "--parallel=1"]
    stop_after(script, 12)
    assert attendant(*command)[0] == 1
    script.change, script.faults = None, []
    assert attendant(*command, "--resume") == (0, "", "")
    vectors = np.load(path)
    assert np.isnan(vectors[0]).all()
    assert vectors[1:].tolist() == [[3, 2, 1], [1, 0, 1]] * 20


def test_a_line_that_is_too_long_fails_alone(job, source, output, monkeypatch):
    for module in (input_files, input_lines):
        monkeypatch.setattr(module, "MAX_LINE_BYTES", 10)
    source.write_text("0123456789\n" + "123456789\n" + "x" * 3_000_000 + "\nshort\n" + "y" * 11)
    code, _, err = job()
    assert code == 1
    assert [line.partition(": line ")[2] for line in err.splitlines()] == [
        "1: has 11 bytes, at most 10",
        "3: has 3000001 bytes, at most 10",
        "5: has 11 bytes, at most 10",
    ]
    assert output.read_text() == "\n123456789\n\nSHORT\n\n"


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(b"a\n" * 999)[:-9]])
def test_a_damaged_gzip_file_is_refused_before_anything_is_written(
    attendant, tmp_path, output, content
):
    source = tmp_path / "in.gz"
    source.write_bytes(content)
    code, _, err = attendant("translate", f"--input={source}", f"--output={output}")
    assert code == 1
    assert "the gzip file is damaged" in err
    assert not output.exists()


def test_a_fault_of_the_moment_is_asked_for_once_more(job, source, output, script):
    source.write_text("a\nb\n")

    def change(response):
        if hasattr(response, "ids"):
            late = status_pb2.Status(code=code_pb2.DEADLINE_EXCEEDED, message="late")
            response.answer.translations[0].Clear()
            response.answer.translations[0].error.CopyFrom(late)

    script.change = change
    assert job() == (0, "", "")
    assert output.read_text() == "A\nB\n"
    assert script.calls == ["BulkTranslate", "Translate"]


def test_a_text_that_fails_each_time_is_a_fault_of_its_line(job, source, output, script):
    source.write_text("a\nb\n")

    def change(response):
        fault = status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message="too long")
        response.answer.translations[0].Clear()
        response.answer.translations[0].error.CopyFrom(fault)

    script.change = change
    assert job("--json") == (1, "", "attendant: line 1: too long\n")
    first, second = map(json.loads, output.read_text().splitlines())
    assert (first["error"], first["hypotheses"], second["error"]) == ("too long", None, None)


def side_by_side(items, work, num_workers=2, max_weight=10**9):
    return SideBySide(iter(items), work, num_workers, lambda: None, lambda item: item, max_weight)


def test_results_are_in_order_and_few_items_are_read_ahead():
    num_read, blocked = [], threading.Event()

    def items():
        for item in range(50):
            num_read.append(item)
            yield item

    def work(item):
        if item == 0:
            assert blocked.wait(30)
        elif item == 5:
            blocked.set()
        return item * item

    found = []
    for item, result in side_by_side(items(), work):
        found.append((item, result))
        assert len(num_read) - len(found) <= 6
    assert found == [(item, item * item) for item in range(50)]


def test_heavy_items_are_not_read_ahead():
    read = []

    def items():
        for item in (5, 5, 5, 5):
            read.append(item)
            yield item

    for number, _ in enumerate(side_by_side(items(), str, num_workers=4, max_weight=6), 1):
        assert len(read) <= number + 2


@pytest.mark.parametrize("fails", ["work", "reading"])
def test_a_failure_comes_after_the_results_before_it(fails):
    def items():
        yield from range(7)
        if fails == "reading":
            raise KeyError(7)
        yield from range(7, 20)

    def work(item):
        if item == 7:
            raise KeyError(7)
        return item

    results = iter(side_by_side(items(), work))
    assert [next(results)[0] for _ in range(7)] == list(range(7))
    with pytest.raises(KeyError, match="7"):
        next(results)


def test_a_log_gets_a_line_of_progress_now_and_then():
    now = [0.0]
    log = io.StringIO()
    progress = Progress(log, 1000, 21_000, clock=lambda: now[0])
    for _ in range(100):
        now[0] += 1
        progress.advance(10)
    progress.finish()
    lines = log.getvalue().splitlines()
    assert lines[0] == "attendant: 1,300 of 21,000 lines, 10.0 lines/s, 33 min left"
    assert len(lines) == 4
    assert lines[-1].startswith("attendant: 2,000 of 21,000 lines")


def test_a_short_job_writes_no_progress_into_a_log():
    log = io.StringIO()
    progress = Progress(log, 0, 10, clock=lambda: 0.0)
    progress.advance(10)
    progress.finish()
    assert log.getvalue() == ""
