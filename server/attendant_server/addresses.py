"""Addresses to listen on: host names and IP addresses with a port, and paths of unix sockets."""

import socket
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address

UNIX = "unix:"


def host_problem(host: str) -> str | None:
    """The problem with a host; None for a valid host name, IPv4 or IPv6 address.

    An IPv6 address may be in brackets. Names are not looked up.
    """
    if not host or any(character.isspace() for character in host):
        return "must be a name or an address"
    inner = bare_host(host)
    if ":" in inner or inner != host:
        try:
            IPv6Address(inner)
        except ValueError:
            return f"must be a name or an address without a port, got {host}"
    return None


def bare_host(host: str) -> str:
    """The host without brackets, as sockets expect it."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host: a loopback address or a unix socket."""
    if host.startswith(UNIX) or host.lower() == "localhost":
        return True
    try:
        return ip_address(bare_host(host)).is_loopback
    except ValueError:
        return False


def joined(host: str, port: int) -> str:
    """``host:port`` as gRPC expects it, with an IPv6 address in brackets.

    A unix socket, ``unix:/path``, has no port and is returned as it is.
    """
    if host.startswith(UNIX):
        return host
    inner = bare_host(host)
    return f"[{inner}]:{port}" if ":" in inner else f"{inner}:{port}"


def listen(add_port: Callable[[str], int], host: str, port: int) -> tuple[int, str]:
    """Let gRPC listen; returns the port, 0 for a unix socket, and the address with this port.

    ``add_port`` is a method of the gRPC server. Raises OSError with the address and the reason.
    """
    address = joined(host, port)
    is_unix = host.startswith(UNIX)
    if is_unix and _is_served(address):  # gRPC would take the socket over from that process
        raise OSError(f"{address}: another process listens on it")
    try:
        found = add_port(address)
    except RuntimeError as error:
        raise OSError(f"{address}: {error}") from error
    return (0, address) if is_unix else (found, joined(host, found))


def listening_socket(host: str, port: int, backlog: int | None = None) -> socket.socket:
    """A socket that listens and never blocks, for servers of this process other than gRPC's.

    Raises OSError with the address and the reason.
    """
    address = bare_host(host)
    is_v6 = ":" in address
    family = socket.AF_INET6 if is_v6 else socket.AF_INET
    try:
        listener = socket.create_server(
            (address, port), family=family, backlog=backlog, dualstack_ipv6=is_v6
        )
    except OSError as error:
        raise OSError(f"{joined(host, port)}: {error.strerror or error}") from error
    listener.setblocking(False)
    return listener


def _is_served(address: str) -> bool:
    """Whether a process listens on this unix socket."""
    # Both unix:/path and unix:///path are in use.
    path = address.removeprefix(UNIX).removeprefix("//")
    with socket.socket(socket.AF_UNIX) as client:
        try:
            return client.connect_ex(path) == 0
        except OSError:  # the path is too long for a socket
            return False
