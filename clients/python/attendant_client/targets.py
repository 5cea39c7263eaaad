"""Targets of connections: the server's address, TLS or not, and whether it is on this machine."""

from ipaddress import ip_address

TLS_SCHEME = "grpcs://"
PLAIN_SCHEME = "grpc://"
_RESOLVERS = ("dns", "ipv4", "ipv6", "passthrough")
_UNIX = ("unix:", "unix-abstract:")


def split_target(target: str) -> tuple[str, bool | None]:
    """The address as gRPC reads it, and whether the target's scheme asks for TLS; None for none."""
    if target.startswith(TLS_SCHEME):
        return target.removeprefix(TLS_SCHEME).rstrip("/"), True
    if target.startswith(PLAIN_SCHEME):
        return target.removeprefix(PLAIN_SCHEME).rstrip("/"), False
    return target, None


def is_local(address: str) -> bool:
    """Whether all hosts of an address are this machine. False in doubt."""
    if address.startswith(_UNIX):
        return True
    scheme, colon, rest = address.partition(":")
    if colon and scheme in _RESOLVERS:
        # dns://server/host names the name server to ask.
        address = rest.removeprefix("//").partition("/")[2] if rest.startswith("//") else rest
    return all(_is_local_host(_host(part)) for part in address.split(","))


def _host(address: str) -> str:
    """The host of ``host:port``; an IPv6 address is in brackets if it has a port."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.rpartition(":")[0] if address.count(":") == 1 else address


def _is_local_host(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
