"""Both clients with several servers: a list of addresses, or a name with several addresses."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from attendant_client import UnavailableError
from attendant_client.connection import connect as connection_to
from attendant_client.targets import may_have_several_servers
from google.rpc import code_pb2
from grpc_health.v1.health_pb2 import HealthCheckResponse as Status

from tests.client.name_server import NameServer
from tests.client.script import Fault, Script
from tests.client.scripted_server import start_server


class Pair:
    """Two servers with one port, at two addresses of this machine."""

    def __init__(self) -> None:
        self.scripts = Script(), Script()
        first, address = start_server(self.scripts[0])
        self.port = int(address.rpartition(":")[2])
        second, _ = start_server(self.scripts[1], f"127.0.0.2:{self.port}")
        self.servers: tuple[grpc.Server, grpc.Server] = first, second
        self.list = f"127.0.0.1:{self.port},127.0.0.2:{self.port}"

    def set(self, *statuses: Any) -> None:
        """Set the health of both servers."""
        for script, status in zip(self.scripts, statuses, strict=True):
            script.health.set("", status)

    def num_calls(self) -> list[int]:
        return [script.calls.count("Translate") for script in self.scripts]


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    for server in pair.servers:
        server.stop(None).wait()


@pytest.fixture(params=["list", "name"])
def target(request: pytest.FixtureRequest, pair: Pair) -> Iterator[str]:
    with NameServer("127.0.0.1", "127.0.0.2") as names:
        yield pair.list if request.param == "list" else names.target(pair.port)


def call_until(is_true: Callable[[list[int]], bool], client: Any, pair: Pair) -> None:
    """Call in rounds of four, until a round was answered by the servers as it should be."""
    give_up = time.monotonic() + 60
    while True:
        before = pair.num_calls()
        for _ in range(4):
            assert client.translate("a").text == "A"
        if is_true([n - m for n, m in zip(pair.num_calls(), before, strict=True)]):
            return
        assert time.monotonic() < give_up, "it never came true"


def both(num_calls: list[int]) -> bool:
    return num_calls == [2, 2]


def only_second(num_calls: list[int]) -> bool:
    return num_calls == [0, 4]


def test_calls_are_spread_over_all_servers(connect, pair, target):
    call_until(both, connect(target), pair)


def test_a_server_that_does_not_serve_gets_no_calls_until_it_serves_again(connect, pair, target):
    client = connect(target)
    call_until(both, client, pair)
    pair.set(Status.NOT_SERVING, Status.SERVING)
    call_until(only_second, client, pair)
    pair.set(Status.SERVING, Status.SERVING)
    call_until(both, client, pair)


def test_no_call_fails_when_a_server_ends_without_a_word_and_comes_back(connect, pair, target):
    client = connect(target)
    call_until(both, client, pair)
    pair.servers[0].stop(None).wait()
    call_until(only_second, client, pair)
    server, _ = start_server(pair.scripts[0], f"127.0.0.1:{pair.port}")
    pair.servers = server, pair.servers[1]
    call_until(both, client, pair)


def test_a_failed_call_is_tried_again_at_another_server(connect, pair, target):
    client = connect(target)
    call_until(both, client, pair)
    pair.scripts[0].faults = [Fault(code_pb2.UNAVAILABLE)] * 2
    call_until(both, client, pair)


def test_a_client_follows_a_name_to_a_new_address(connect, pair):
    pair.servers[1].stop(None).wait()
    with NameServer("127.0.0.1") as names:
        client = connect(names.target(pair.port))
        assert client.translate("a").text == "A"
        names.addresses = ["127.0.0.2"]
        server, _ = start_server(pair.scripts[1], f"127.0.0.2:{pair.port}")
        pair.servers = pair.servers[0], server
        pair.servers[0].stop(None).wait()
        # gRPC's default would be 30 seconds.
        give_up = time.monotonic() + 20
        while not pair.num_calls()[1]:
            assert time.monotonic() < give_up
            try:
                client.translate("a")
            except UnavailableError:
                time.sleep(0.1)


def test_when_no_server_serves_the_error_says_so_and_models_and_health_answer(
    connect, pair, target
):
    pair.set(Status.NOT_SERVING, Status.NOT_SERVING)
    client = connect(target)
    with pytest.raises(UnavailableError, match="^No server of the target is serving: they are"):
        client.translate("a")
    assert pair.num_calls() == [0, 0]
    assert client.health() == "not_serving"
    assert client.models()
    assert client.model("upper").info.name == "upper"


def test_one_server_that_does_not_serve_still_answers_for_itself(connect, script, address):
    script.health.set("", Status.NOT_SERVING)
    script.faults = [Fault(code_pb2.UNAVAILABLE, "the model is loading")] * 3
    with pytest.raises(UnavailableError, match="^the model is loading"):
        connect(address).translate("a")


def test_all_calls_to_one_server_share_a_connection(client, script):
    client.translate("a")
    client.models()
    list(client.stream_translate("b"))
    assert len(script.peers) == 1


def test_servers_without_health_checks_count_as_serving(connect):
    script = Script()
    server, address = start_server(script, has_health=False)
    assert connect(f"{address},127.0.0.1:1").translate("a").text == "A"
    server.stop(None).wait()


@pytest.mark.parametrize(
    ("address", "is_balanced"),
    [
        ("localhost:50051", False),
        ("127.0.0.1:50051", False),
        ("192.0.2.7:50051", False),
        ("[2001:db8::1]:50051", False),
        ("ipv4:192.0.2.7:50051", False),
        ("unix:/run/a,b.sock", False),
        ("dns:localhost:50051", False),
        ("server.example:50051", True),
        ("dns:///server.example:50051", True),
        ("ipv4:192.0.2.7:50051,192.0.2.8:50051", True),
        ("ipv6:[2001:db8::1]:50051,[2001:db8::2]:50051", True),
    ],
)
def test_calls_are_spread_if_there_may_be_several_servers(address, is_balanced):
    assert may_have_several_servers(address) is is_balanced


@pytest.mark.parametrize(
    ("target", "address"),
    [
        ("192.0.2.7:50051,192.0.2.8:50051", "ipv4:192.0.2.7:50051,192.0.2.8:50051"),
        ("grpc://192.0.2.7:1,192.0.2.8:2", "ipv4:192.0.2.7:1,192.0.2.8:2"),
        ("[2001:db8::1]:1,[2001:db8::2]:2", "ipv6:[2001:db8::1]:1,[2001:db8::2]:2"),
        ("ipv4:192.0.2.7:1,192.0.2.8:2", "ipv4:192.0.2.7:1,192.0.2.8:2"),
    ],
)
def test_a_list_needs_no_scheme_of_grpc(target, address):
    assert connection_to(target).address == address


@pytest.mark.parametrize(
    "target",
    [
        "a.example:1,b.example:1",
        "192.0.2.7:1,b.example:1",
        "192.0.2.7:1,[2001:db8::1]:1",
        "dns:///192.0.2.7:1,192.0.2.8:1",
        "192.0.2.7:1,",
    ],
)
def test_a_list_that_grpc_cannot_resolve_is_refused(target):
    with pytest.raises(ValueError, match="must be a list of IPv4 addresses, a list of IPv6"):
        connection_to(target)


def test_a_list_with_tls_is_refused():
    with pytest.raises(ValueError, match="with TLS, a target must be one name or address"):
        connection_to("grpcs://192.0.2.7:1,192.0.2.8:2")
