import pytest
from attendant_server.addresses import host_problem, joined


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("0.0.0.0", "0.0.0.0:7"),
        ("localhost", "localhost:7"),
        ("::", "[::]:7"),
        ("[::]", "[::]:7"),
        ("::1", "[::1]:7"),
        ("fe80::1%eth0", "[fe80::1%eth0]:7"),
        ("unix:/run/attendant.sock", "unix:/run/attendant.sock"),
        ("unix:relative.sock", "unix:relative.sock"),
    ],
)
def test_a_host_and_a_port_become_an_address(host: str, expected: str):
    assert joined(host, 7) == expected


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "localhost", "a.example", "::", "[::]", "[::1]", "fe80::1%eth0"]
)
def test_names_and_ip_addresses_are_hosts(host: str):
    assert host_problem(host) is None


@pytest.mark.parametrize(
    "host",
    ["", "two words", "localhost:50051", "[::1]:7", "[::1", "[localhost]", "1::2::3", "dns:///a"],
)
def test_anything_else_is_no_host(host: str):
    assert host_problem(host)
