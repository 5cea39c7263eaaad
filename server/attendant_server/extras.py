"""Parts of the server that need extras of the package. Nothing of an extra is imported before."""

from typing import TYPE_CHECKING, Any

from attendant_server import __version__

if TYPE_CHECKING:
    from attendant_server.http.doors import HttpDoor
    from attendant_server.observability.tracing import Tracer


class StartError(Exception):
    """The server cannot start: a port is taken, an extra is missing, the device or a security file
    cannot be used."""


def new_tracer(endpoint: str) -> "Tracer":
    """A tracer that exports spans to an endpoint. Raises StartError."""
    try:
        from attendant_server.observability.tracing import new_tracer as new
    except ImportError as error:
        raise StartError(f"tracing needs attendant-server[tracing]: {error}") from error
    return new(endpoint, __version__)


def new_http_door(*parts: Any) -> "HttpDoor":
    """The port of HTTP, with the arguments of `HttpDoor`. Raises StartError."""
    try:
        from attendant_server.http.doors import HttpDoor
    except ImportError as error:
        raise StartError(f"HTTP needs attendant-server[http]: {error}") from error
    return HttpDoor(*parts)
