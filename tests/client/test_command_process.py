"""The process of the `attendant` command: Ctrl-C and readers that go away."""

import signal
import subprocess
import sys


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
