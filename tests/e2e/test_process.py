"""The command in unusual environments: variables, addresses and standard streams."""

import json
import os
import platform
import signal
import socket
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attendant_server
import grpc
import onnxruntime
import pytest
from attendant_server.system.priorities import WORKER_NICENESS
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from tests.support.application import TINY_BUNDLES
from tests.support.processes import last_line, line_of, server_command, server_process
from tests.support.serving import TIMEOUT_SECONDS, wait_until


def addresses_of(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """The addresses of gRPC and of the metrics from the server's log."""
    fields = dict(field.split("=", 1) for field in line_of("serving", process).split()[4:])
    return fields["address"], fields["metrics_address"]


def status_at(address: str) -> int:
    with grpc.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        return int(stub.Check(HealthCheckRequest(), timeout=TIMEOUT_SECONDS).status)


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as listener:
            listener.bind(("::1", 0))
    except OSError:
        return False
    return True


MAX_NICENESS = 19

needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="NOT CHECKED: no IPv6 on this machine")


@needs_ipv6
@pytest.mark.parametrize("host", ["::", "[::]", "::1", "[::1]"])
def test_a_server_listens_on_ipv6_for_calls_and_for_metrics(bundles: Path, host: str):
    with server_process(bundles, "--host", host, "--metrics-host", host) as process:
        address, metrics_address = addresses_of(process)
        for shown in (address, metrics_address):
            assert shown.rpartition(":")[0] == f"[{host.strip('[]')}]"
        port, metrics_port = (shown.rpartition(":")[2] for shown in (address, metrics_address))
        assert status_at(f"[::1]:{port}") == HealthCheckResponse.SERVING
        with urllib.request.urlopen(f"http://[::1]:{metrics_port}/metrics") as page:
            assert b"attendant_serving 1.0" in page.read()


@pytest.mark.parametrize("form", ["unix:{path}", "unix://{path}"])
def test_a_server_listens_on_a_unix_socket_and_says_so(bundles: Path, tmp_path: Path, form: str):
    path = tmp_path / "attendant.sock"
    address = form.format(path=path)
    with server_process(bundles, "--host", address, "--lame-duck-seconds", "0") as process:
        assert addresses_of(process)[0] == address
        assert process.stdout is not None
        assert process.stdout.readline().startswith(f"attendant is serving on {address}: ")
        assert path.is_socket()
        assert status_at(address) == HealthCheckResponse.SERVING
        with server_process(bundles, "--host", address) as second:
            assert second.wait(TIMEOUT_SECONDS) == 1
            assert "another process listens on it" in last_line(second)
        assert status_at(address) == HealthCheckResponse.SERVING
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_SECONDS) == 0
        assert not path.exists()


def test_a_socket_that_a_killed_server_left_is_used_again(bundles: Path, tmp_path: Path):
    address = f"unix:{tmp_path / 'attendant.sock'}"
    for _ in range(2):
        with server_process(bundles, "--host", address) as process:
            assert addresses_of(process)[0] == address
            assert status_at(address) == HealthCheckResponse.SERVING


def test_a_server_starts_beside_a_kubernetes_service_of_its_name(bundles: Path):
    variables = {
        "ATTENDANT_SERVICE_HOST": "10.0.0.1",
        "ATTENDANT_SERVICE_PORT": "50051",
        "ATTENDANT_PORT": "tcp://10.0.0.1:50051",
        "ATTENDANT_PORT_50051_TCP": "tcp://10.0.0.1:50051",
    }
    with server_process(bundles, variables=variables) as process:
        assert status_at(addresses_of(process)[0]) == HealthCheckResponse.SERVING


STREAMS = [">/dev/full", ">&-", "2>&-", "2>/dev/full", "<&-", "<&- >&- 2>&-", ">/dev/full 2>&1"]


@pytest.mark.parametrize("streams", STREAMS)
def test_a_server_needs_none_of_its_standard_streams(bundles: Path, tmp_path: Path, streams: str):
    address = f"unix:{tmp_path / 'attendant.sock'}"
    command = server_command(bundles, "--host", address, "--lame-duck-seconds", "0")
    with subprocess.Popen(["bash", "-c", f'exec "$@" {streams}', "bash", *command]) as process:
        try:
            with grpc.insecure_channel(address) as channel:
                stub: Any = health_pb2_grpc.HealthStub(channel)
                watch = stub.Watch(
                    HealthCheckRequest(), timeout=TIMEOUT_SECONDS, wait_for_ready=True
                )
                while next(watch).status != HealthCheckResponse.SERVING:
                    pass
                process.send_signal(signal.SIGTERM)
                assert [answer.status for answer in watch] == [HealthCheckResponse.NOT_SERVING]
            assert process.wait(TIMEOUT_SECONDS) == 0
        finally:
            process.kill()


def test_a_log_for_machines_has_no_line_for_people_beside_it(bundles: Path):
    flags = ("--log-format", "json", "--lame-duck-seconds", "0")
    with server_process(bundles, *flags) as process:
        assert process.stderr is not None
        lines = [process.stderr.readline()]
        while json.loads(lines[-1])["event"] != "serving":
            lines.append(process.stderr.readline())
        process.send_signal(signal.SIGTERM)
        output, rest = process.communicate(timeout=TIMEOUT_SECONDS)
        assert output == ""
        assert all(json.loads(line)["event"] for line in rest.splitlines())


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no niceness of their own")
def test_two_workers_have_a_lower_priority_than_all_other_threads(bundles: Path):
    niceness: Counter[int] = Counter()
    with server_process(bundles, "--num-workers", "2", "--lame-duck-seconds", "0") as process:
        line_of("serving", process)
        for task in Path(f"/proc/{process.pid}/task").iterdir():
            with suppress(ProcessLookupError):  # the thread has just ended
                niceness[os.getpriority(os.PRIO_PROCESS, int(task.name))] += 1
        own = os.getpriority(os.PRIO_PROCESS, process.pid)  # that of the event loop
    of_workers = min(MAX_NICENESS, own + WORKER_NICENESS)
    assert niceness.keys() == {own, of_workers}
    assert niceness[of_workers] == 2


def test_the_command_tells_its_version(bundles: Path):
    command = server_command(bundles, "--version")
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    versions = dict(line.split(" ") for line in shown.splitlines())
    assert next(iter(versions)) == "attendant-server"
    assert versions["attendant-server"] == attendant_server.__version__
    builds = {"onnxruntime", "onnxruntime-gpu"} & versions.keys()
    assert [versions[build] for build in builds] == [onnxruntime.__version__]
    assert versions["protocol"] == "attendant.v1"
    assert versions["python"] == platform.python_version()


def test_bad_settings_end_the_start_with_code_two_where_nobody_can_be_told(bundles: Path):
    command = server_command(bundles, "--max-texts", "none")
    for streams in ("2>&-", "2>/dev/full"):
        ended = subprocess.run(["bash", "-c", f'exec "$@" {streams}', "bash", *command])
        assert ended.returncode == 2


SLOW_LOAD = """
import time
from attendant_server import loading
from attendant_server.__main__ import main

loading.ModelLoader.load_copy = lambda self, bundle: time.sleep(1000)
main()
"""


def test_a_server_that_is_stopped_while_it_loads_leaves_no_copies(bundles: Path, tmp_path: Path):
    flags = ("--try-bundles", "never")
    variables = {"TMPDIR": str(tmp_path)}
    program = ("-c", SLOW_LOAD)
    with server_process(bundles, *flags, program=program, variables=variables) as process:
        wait_until(lambda: any(tmp_path.glob("attendant-*/tokenizer.json")))
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_SECONDS) == 0
    assert not list(tmp_path.iterdir())


HANGING_TRIAL = """
from attendant_server import bundle_trial
from attendant_server.__main__ import main

bundle_trial.CHILD = "tests.support.trial_children"
main()
"""


def command_line(process_id: str) -> bytes:
    """The command of a process; empty if it has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{process_id}/cmdline").read_bytes()
    return b""


def children_of(process: "subprocess.Popen[str]") -> list[str]:
    children = list[str]()
    for listed in Path(f"/proc/{process.pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # The thread has ended.
            children += listed.read_text().split()
    return children


@pytest.mark.skipif(sys.platform != "linux", reason="NOT CHECKED: needs Linux")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_trial_of_a_bundle_ends_with_the_server(number: signal.Signals):
    variables = {"TRIAL_CHILD": "hangs", "PYTHONPATH": str(Path(__file__).parents[2])}
    flags, program = ("--try-bundles", "always"), ("-c", HANGING_TRIAL)
    with server_process(TINY_BUNDLES, *flags, program=program, variables=variables) as process:
        wait_until(lambda: bool(children_of(process)))
        [child] = children_of(process)
        process.send_signal(number)
        process.wait(TIMEOUT_SECONDS)
        wait_until(lambda: not command_line(child))


EARLY_SIGNAL = """
import os, signal, sys
from attendant_server.__main__ import main

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may ignore it

class SignalAtImport:
    def find_spec(self, name, *_):
        if name == "attendant_server.setting_sources":
            os.kill(os.getpid(), int(os.environ["EARLY_SIGNAL"]))

sys.meta_path.insert(0, SignalAtImport())
main()
"""


@contextmanager
def server_signalled_early(number: signal.Signals) -> Iterator["subprocess.Popen[str]"]:
    """A server that gets a signal while it imports its modules."""
    variables = {"EARLY_SIGNAL": str(int(number))}
    program = ("-c", EARLY_SIGNAL)
    with server_process(TINY_BUNDLES, program=program, variables=variables) as process:
        yield process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_stop_that_comes_during_the_imports_stops_the_server(number: signal.Signals):
    with server_signalled_early(number) as process:
        assert process.wait(TIMEOUT_SECONDS) == 0
        assert "event=stopped" in last_line(process)


def test_a_hangup_that_comes_during_the_imports_refreshes_the_models():
    with server_signalled_early(signal.SIGHUP) as process:
        line_of("serving", process)
        line_of("refreshing", process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_SECONDS) == 0
