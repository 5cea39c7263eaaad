"""Server processes with all that tests of attacks and faults look at: answers, log and gauges."""

import re
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
from attendant.v1 import embedding_pb2_grpc, translation_pb2_grpc
from attendant.v1.translation_pb2 import TranslateRequest
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from tests.support.application import TINY_BUNDLES
from tests.support.http2 import RawConnection
from tests.support.processes import MODULE, server_command
from tests.support.serving import TIMEOUT_SECONDS, wait_until

GOOD_REQUEST = TranslateRequest(texts=["The dog sees the king."])
CHANNEL_OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.enable_retries", 0)]
GAUGES = (
    "attendant_queued_texts",
    "attendant_rows_used",
    "attendant_active_sentences",
    "attendant_concurrent_calls",
    "attendant_arriving_requests",
    "attendant_waiting_requests",
    "attendant_request_streams",
    "attendant_arriving_health_requests",
    "attendant_waiting_health_requests",
    "attendant_held_bytes",
    "attendant_unread_answers",
)
"""Gauges that are 0 while the server is at rest."""


class ObservedServer:
    """A server process, seen through its ports and its log. ``channel`` is a caller that stays."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process, self.log = process, log
        self.port, self.metrics_port = self._ports()
        self.channel = self.new_channel()
        self.translation: Any = translation_pb2_grpc.TranslationServiceStub(self.channel)
        self.embedding: Any = embedding_pb2_grpc.EmbeddingServiceStub(self.channel)
        self.health: Any = health_pb2_grpc.HealthStub(self.channel)
        self._num_read = 0

    def new_channel(self) -> Any:
        """A connection of the gRPC library."""
        # Channels with equal options would share a connection.
        options = [*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
        return grpc.insecure_channel(f"127.0.0.1:{self.port}", options)

    def connect(self, settings: bytes = b"") -> RawConnection:
        """A raw connection after its greeting."""
        connection = RawConnection(self.port)
        connection.greet(settings)
        return connection

    def good_answer(self) -> Any:
        """The translations of a good call of the caller that stays."""
        return list(self.translation.Translate(GOOD_REQUEST, timeout=TIMEOUT_SECONDS).translations)

    @property
    def is_serving(self) -> bool:
        """Whether the server reports so."""
        answer = self.health.Check(HealthCheckRequest(), timeout=TIMEOUT_SECONDS)
        return bool(answer.status == HealthCheckResponse.SERVING)

    def new_log_lines(self) -> str:
        """The log since the last call of this method."""
        content = self.log.read_bytes()
        new, self._num_read = content[self._num_read :], len(content)
        return new.decode()

    def metric(self, name: str) -> float:
        """The sum of all samples of a metric."""
        samples = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", self._metrics_page(), re.MULTILINE)
        assert samples, f"there is no metric {name}"
        return sum(map(float, samples))

    def wait_for_rest(self) -> None:
        """Wait until all `GAUGES` are 0."""
        samples = re.compile(rf"^(?:{'|'.join(GAUGES)})(?:{{.*}})? (\S+)$", re.MULTILINE)

        def is_at_rest() -> bool:
            values = samples.findall(self._metrics_page())
            return len(values) >= len(GAUGES) and not any(map(float, values))

        wait_until(is_at_rest)

    def _metrics_page(self) -> str:
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
            return str(response.read().decode())

    def num_files(self) -> int:
        """Open file descriptors of the process."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def resident_bytes(self) -> int:
        """Resident memory of the process."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(status.partition("VmRSS:")[2].split()[0])

    def _ports(self) -> tuple[int, int]:
        def serving() -> list[str]:
            lines = self.log.read_text().splitlines()
            return [line for line in lines if "event=serving " in line]

        wait_until(lambda: bool(serving()) or self.process.poll() is not None)
        assert serving(), self.log.read_text()
        fields = dict(field.partition("=")[::2] for field in serving()[0].split())
        port, metrics_port = (
            int(fields[name].rpartition(":")[2]) for name in ("address", "metrics_address")
        )
        return port, metrics_port


@contextmanager
def observed_server(
    folder: Path, *flags: str, program: Sequence[str] = MODULE
) -> Iterator[ObservedServer]:
    """A server of tiny models, whose log goes to a file in ``folder``; killed after the block."""
    flags = ("--lame-duck-seconds", "0", "--num-threads", "1", "--precision", "fp32", *flags)
    log = folder / "server.log"
    with ExitStack() as stack:
        file = stack.enter_context(log.open("wb"))
        command = server_command(TINY_BUNDLES, *flags, program=program)
        process = stack.enter_context(
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file)
        )
        stack.callback(process.kill)
        server = ObservedServer(process, log)
        stack.callback(server.channel.close)
        yield server
