"""The methods of attendant.v1 as functions, for other transports than the library's."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from attendant_server.application.application import Application
from attendant_server.grpc.interceptors.around import Handler
from attendant_server.grpc.protocols import PROTOCOLS, add_own_services
from attendant_server.records import Method
from attendant_server.settings import Settings


class OwnMethod(NamedTuple):
    """A method of attendant.v1."""

    method: Method
    request: type[Message]
    function: Callable[[Any, Any], Any]
    """Takes a request, or an iterator of them, and a context with ``time_remaining``.

    A coroutine function, or a generator function if the answer is a stream.
    """


class _Collector:
    """Stands for a server, and keeps the handlers that are added."""

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {}

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Nothing: they have the same methods as `add_registered_method_handlers`."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Handler]) -> None:
        """Keep the handlers of a service."""
        self.handlers |= {f"{service}/{name}": handler for name, handler in handlers.items()}


def own_methods(application: Application, settings: Settings) -> Iterator[OwnMethod]:
    """The methods that the settings switch on."""
    collector: Any = _Collector()
    add_own_services(collector, application, settings)
    services = [s for f in PROTOCOLS["attendant"].files for s in f.services_by_name.values()]
    for service in services:
        for found in service.methods:
            if (handler := collector.handlers.get(f"{service.full_name}/{found.name}")) is None:
                continue
            function = (
                handler.unary_unary or handler.unary_stream or handler.stream_stream  # none other
            )
            yield OwnMethod(
                Method.of(
                    service.full_name, found.name, found.client_streaming, found.server_streaming
                ),
                GetMessageClass(found.input_type),
                function,
            )
