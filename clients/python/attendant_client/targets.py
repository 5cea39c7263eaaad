"""Targets of connections: the addresses of one or several servers, TLS or not."""

from ipaddress import ip_address

TLS_SCHEME = "grpcs://"
PLAIN_SCHEME = "grpc://"
_LISTS = ("ipv4:", "ipv6:")
_RESOLVERS = ("dns", "ipv4", "ipv6", "passthrough")
_UNIX = ("unix:", "unix-abstract:")
_UNCHECKED = (*_UNIX, "vsock:", "xds:", "google-c2p:")
"""Other forms that gRPC knows. They have no port in the usual form."""
_WEB_SCHEMES = ("http://", "https://")
MAX_PORT = 65_535


def split_target(target: str) -> tuple[str, bool | None]:
    """The address as gRPC reads it, and whether the target's scheme asks for TLS; None for none."""
    if target.startswith(TLS_SCHEME):
        return target.removeprefix(TLS_SCHEME).rstrip("/"), True
    if target.startswith(PLAIN_SCHEME):
        return target.removeprefix(PLAIN_SCHEME).rstrip("/"), False
    return target, None


def with_list_scheme(address: str) -> str:
    """The address, with the scheme that gRPC needs if it is a list of IP addresses.

    Raises ValueError for a list of names, which gRPC does not resolve.
    """
    if not is_list(address) or address.startswith(_LISTS):
        return address
    versions = {_ip_version(_host(part)) for part in address.split(",")}
    if versions not in ({4}, {6}):
        raise ValueError(
            "a target with several servers must be a list of IPv4 addresses, a list of IPv6 "
            "addresses, or one name with several addresses"
        )
    return f"ipv{versions.pop()}:{address}"


def check_address(address: str) -> None:
    """Raise ValueError for an address that can lead to no server, such as one with a bad port."""
    if address.startswith(_WEB_SCHEMES):
        raise ValueError(f"target {address}: use {PLAIN_SCHEME} or, with TLS, {TLS_SCHEME}")
    if not address.startswith(_UNCHECKED):
        for part in _parts(address):
            _check_part(part, address)


def _check_part(part: str, address: str) -> None:
    """Check one server of an address: ``host``, ``host:port`` or ``[IPv6]:port``."""
    host = _host(part)
    in_brackets = part.startswith("[")
    shown = f"[{host}]" if in_brackets else host
    is_host = _ip_version(host) == 6 if in_brackets or ":" in host else bool(host)
    if not is_host or not part.startswith(shown):
        raise ValueError(f"target {address!r}: must be host:port, with brackets around IPv6")
    port = part.removeprefix(shown)
    number = port.removeprefix(":")
    is_number = number.isascii() and number.isdigit() and len(number) <= len(str(MAX_PORT))
    if port and not (port != number and is_number and 1 <= int(number) <= MAX_PORT):
        raise ValueError(f"target {address!r}: the port must be between 1 and {MAX_PORT}")


def is_list(address: str) -> bool:
    """Whether an address names several servers one by one."""
    return "," in address and not address.startswith(_UNIX)


def may_have_several_servers(address: str) -> bool:
    """Whether an address is a list, or a name that may have several addresses.

    A name of this machine has one server: the addresses of localhost are all its own.
    """
    is_name = _ip_version(_hosts(address)[0]) is None
    return is_list(address) or (is_name and not is_local(address))


def is_local(address: str) -> bool:
    """Whether all hosts of an address are this machine. False in doubt."""
    return address.startswith(_UNIX) or all(map(_is_local_host, _hosts(address)))


def _hosts(address: str) -> list[str]:
    return [_host(part) for part in _parts(address)]


def _parts(address: str) -> list[str]:
    """The servers of an address, each with its port if it has one."""
    scheme, colon, rest = address.partition(":")
    if colon and scheme in _RESOLVERS:
        # dns://server/host names the name server to ask.
        address = rest.removeprefix("//").partition("/")[2] if rest.startswith("//") else rest
    return address.split(",")


def _host(address: str) -> str:
    """The host of ``host:port``; an IPv6 address is in brackets if it has a port."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.rpartition(":")[0] if address.count(":") == 1 else address


def _is_local_host(host: str) -> bool:
    if _ip_version(host) is None:
        return host.lower() == "localhost"
    return ip_address(host).is_loopback


def _ip_version(host: str) -> int | None:
    """4 or 6; None for a name."""
    try:
        return ip_address(host).version
    except ValueError:
        return None
