"""The process of the `attendant` command: Ctrl-C and readers that go away."""

import os
import pty
import signal
import subprocess
import sys

import pytest


def start(address, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "attendant_client", "--target", address, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_ctrl_c_in_a_stream_is_quiet_and_cancels_the_call(address, script):
    with start(address, "translate", "--stream", "a slow text") as process:
        assert process.stdout.read(2) == b"A "
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, b"")
    assert script.ended.wait(10)


def test_ctrl_c_while_waiting_is_quiet_and_cancels_the_call(address, script):
    with start(address, "translate", "slow") as process:
        assert script.reached.wait(30)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30) == (b"", b"")
    assert process.returncode == 130
    assert script.ended.wait(10)


def test_a_reader_that_goes_away_is_no_error_message(address):
    with start(address, "translate", "--batch-size", "1") as process:
        process.stdout.close()
        process.stdin.write(b"a\n" * 50)
        process.stdin.close()
        assert process.wait(30) == 1
        assert process.stderr.read() == b""


def run(address, arguments, environment=None, redirect="", stdin=b"a \xe2\x86\x92 b\n"):
    """The exit code, output and errors of the command in a shell."""
    command = f'exec "{sys.executable}" -m attendant_client --target {address} {arguments}'
    return subprocess.run(
        ["sh", "-c", f"{command} {redirect}"],
        input=stdin,
        capture_output=True,
        env=os.environ | (environment or {}),
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("arguments", ["translate", "embed", "models", "health"])
@pytest.mark.parametrize("redirect", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_end_without_a_traceback(address, arguments, redirect):
    ended = run(address, arguments, redirect=redirect)
    reads = arguments in ("translate", "embed")
    assert ended.returncode == (1 if reads and ">&-" in redirect.split() else 0)
    assert b"Traceback" not in ended.stderr
    assert b"Exception" not in ended.stderr
    if redirect == ">&-" and reads:
        assert ended.stderr == b"attendant: the standard output is closed\n"
    if redirect == "2>&-":
        assert ended.stdout


@pytest.mark.parametrize("arguments", ["translate", "models"])
def test_a_full_disk_is_one_line_on_the_standard_error(address, arguments):
    ended = run(address, arguments, redirect=">/dev/full")
    assert (ended.returncode, ended.stderr.count(b"\n")) == (1, 1)
    assert b"No space left on device" in ended.stderr


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_output_that_is_no_terminal_is_utf8(address, encoding):
    environment = {"PYTHONIOENCODING": encoding}
    ended = run(address, "translate", environment)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout.decode() == "A → B\n"


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", b"A \\u2192 B"), ("utf-8", "A → B".encode())]
)
def test_characters_that_a_terminal_lacks_are_escaped(address, encoding, shown):
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "attendant_client", "--target", address, "translate", "a → b"]
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    with subprocess.Popen(command, stdout=follower, env=environment) as process:
        os.close(follower)
        assert process.wait(60) == 0
        assert os.read(leader, 1000) == shown + b"\r\n"
    os.close(leader)


def test_a_killed_run_is_resumed_without_losing_or_repeating_a_line(address, tmp_path):
    source, output = tmp_path / "in.txt", tmp_path / "out.txt"
    texts = [f"text {number}" for number in range(400)]
    source.write_text("\n".join(texts))
    flags = ["--input", str(source), "--output", str(output), "--batch-size", "1"]
    with start(address, "translate", *flags) as process:
        while not output.exists() or output.read_text().count("\n") < 5:
            assert process.poll() is None
        process.kill()
    num_lines = output.read_text().count("\n")
    assert 5 <= num_lines < 400
    assert run(address, f"translate {' '.join(flags)} --resume").returncode == 0
    assert output.read_text().split("\n") == [*map(str.upper, texts), ""]


def test_ctrl_c_in_a_job_is_quiet_and_keeps_what_is_done(address, script, tmp_path):
    source, output = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_text("a\nb\nslow\n" + "c\n" * 9)
    flags = [f"--input={source}", f"--output={output}", "--batch-size=1"]
    with start(address, "translate", *flags) as process:
        while not output.exists() or output.read_text().count("\n") < 2:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30) == (b"", b"")
    assert process.returncode == 130
    assert output.read_text() == "A\nB\n"
    source.write_text(source.read_text().replace("slow", "quick"))
    assert (
        b"the input has changed: in.txt"
        in run(address, f"translate {' '.join(flags)} --resume").stderr
    )
