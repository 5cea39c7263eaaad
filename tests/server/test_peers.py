import pytest
from attendant_server.grpc.interceptors.record import address_of


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:127.0.0.1:54321", "127.0.0.1:54321"),
        ("ipv6:%5B::1%5D:54321", "[::1]:54321"),
        ("ipv6:%5Bfe80::1%25eth0%5D:1", "[fe80::1%eth0]:1"),
        ("unix:", "unix"),
        ("unix:/run/any words of a caller", "unix"),
        ("unix-abstract:words%20event=call", "unix"),
        ("ipv4:127.0.0.1:1 event=call", "unknown"),
        ("ipv4:127.0.0.1:1%0Aevent=call", "unknown"),
        ("vsock:1:2", "unknown"),
        ("", "unknown"),
    ],
)
def test_an_address_in_the_log_has_nothing_that_a_caller_can_choose(peer: str, address: str):
    assert address_of(peer) == address
