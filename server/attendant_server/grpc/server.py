"""The gRPC server: its services, interceptors and options."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from attendant_server.addresses import listen
from attendant_server.application.application import Application
from attendant_server.application.arrivals import Arrivals
from attendant_server.application.held_memory import HeldMemory
from attendant_server.drain import CallTracker
from attendant_server.grpc.credentials import server_credentials
from attendant_server.grpc.interceptors.admission import AdmissionInterceptor
from attendant_server.grpc.interceptors.authentication import AuthenticationInterceptor
from attendant_server.grpc.interceptors.drain import DrainInterceptor
from attendant_server.grpc.interceptors.receiving import (
    ReceivingInterceptor,
    UnreadRequestInterceptor,
)
from attendant_server.grpc.interceptors.record import RecordInterceptor
from attendant_server.grpc.interceptors.serialization import SerializationInterceptor
from attendant_server.grpc.interceptors.status import StatusInterceptor
from attendant_server.grpc.protocols import PROTOCOLS, add_services
from attendant_server.grpc.services.health import HealthService
from attendant_server.grpc.services.reflection import V1_FILE, V1ALPHA_FILE, add_reflection
from attendant_server.records import CallObserver, Method
from attendant_server.security.certificates import Certificate
from attendant_server.security.security import Security
from attendant_server.security.watching import WatchedFiles
from attendant_server.settings import Settings

MAX_PENDING_CALLS = 10_000
"""Calls that have arrived and that the library has not taken up yet."""
MAX_HEALTH_REQUEST_BYTES = 4096
STATUS_NAMES = tuple(code.name for code in grpc.StatusCode)
CONTROL_FILE = "attendant/v1/model_control.proto"


def new_grpc_server(
    application: Application,
    memory: HeldMemory,
    arrivals: Arrivals,
    health: HealthService,
    tracker: CallTracker,
    observer: CallObserver,
    security: Security,
    settings: Settings,
) -> grpc.aio.Server:
    """A gRPC server for the application, without ports; ``observer`` receives every call."""
    server = grpc.aio.server(
        interceptors=[
            UnreadRequestInterceptor(),
            RecordInterceptor(observer),
            StatusInterceptor(),
            DrainInterceptor(tracker),
            *_authentication(security),
            ReceivingInterceptor(arrivals),
            AdmissionInterceptor(application.admission, memory),
            SerializationInterceptor(),
        ],
        options=_options(settings),
    )
    add_services(server, application, health, settings)
    if settings.health == "on":
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
    if settings.reflection == "on":
        add_reflection(_reflected(settings), server)
    return server


def new_health_server(health: HealthService) -> grpc.aio.Server:
    """A gRPC server that answers health checks only, for probes that know no TLS."""
    server = grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.max_concurrent_streams", 8),
            ("grpc.max_receive_message_length", MAX_HEALTH_REQUEST_BYTES),
        ]
    )
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    return server


def open_port(
    server: grpc.aio.Server, certificate: WatchedFiles[Certificate] | None, host: str, port: int
) -> tuple[int, str]:
    """Let a server listen, with TLS if there is a certificate; returns like `listen`."""
    if certificate is None:
        return listen(server.add_insecure_port, host, port)
    credentials = server_credentials(certificate)
    return listen(lambda address: server.add_secure_port(address, credentials), host, port)


def _authentication(security: Security) -> list[AuthenticationInterceptor]:
    if security.authenticator is None and not security.needs_certificates:
        return []
    return [AuthenticationInterceptor(security.authenticator)]


def own_method_names() -> set[str]:
    """The names of the methods that a caller may be permitted, whatever protocols are served."""
    return {method.name for method in _methods(PROTOCOLS["attendant"].files)}


def all_methods(protocols: Sequence[str]) -> Iterator[Method]:
    """Every method of the server's services, with these protocols."""
    files = chain.from_iterable(PROTOCOLS[name].files for name in protocols)
    return _methods([*files, health_pb2.DESCRIPTOR, V1_FILE, V1ALPHA_FILE])


def _methods(files: Iterable[Any]) -> Iterator[Method]:
    for file in files:
        for service in file.services_by_name.values():
            for method in service.methods:
                yield Method.of(
                    service.full_name, method.name, method.client_streaming, method.server_streaming
                )


def _reflected(settings: Settings) -> list[Any]:
    """The files whose services reflection shows."""
    files = [file for name in settings.protocols for file in PROTOCOLS[name].files]
    if settings.model_control == "off":
        files = [file for file in files if file.name != CONTROL_FILE]
    if settings.health == "on":
        files.append(health_pb2.DESCRIPTOR)
    return [*files, V1_FILE, V1ALPHA_FILE]


def _options(settings: Settings) -> list[tuple[str, int]]:
    return [
        # A second server on the same port must fail, not take half of the connections.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", settings.max_request_bytes),
        ("grpc.max_send_message_length", settings.max_response_bytes),
        # With different values, grpc refuses some of the calls in between by chance.
        ("grpc.max_metadata_size", settings.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", settings.max_metadata_bytes),
        # Otherwise the library buffers 8 MiB, and later 128 MiB, of a stream that is not read.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.max_concurrent_streams", settings.max_streams_per_connection),
        # Otherwise calls above that number fail, instead of waiting in the client: the library
        # counts streams that the client has ended and the server has not freed yet.
        ("grpc.http.overload_protection", 0),
        # Beyond the first number, the library refuses calls of all connections by chance, as
        # CANCELLED. A flood of calls that are begun and reset passes its default of 1,000.
        ("grpc.server.max_pending_requests", MAX_PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", MAX_PENDING_CALLS),
        ("grpc.http2.min_ping_interval_without_data_ms", _milliseconds(settings.min_ping_seconds)),
        ("grpc.http2.max_ping_strikes", settings.max_ping_strikes),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", _milliseconds(settings.keepalive_seconds)),
        ("grpc.keepalive_timeout_ms", _milliseconds(settings.keepalive_timeout_seconds)),
        ("grpc.http2.ping_timeout_ms", _milliseconds(settings.keepalive_timeout_seconds)),
        ("grpc.server_handshake_timeout_ms", _milliseconds(settings.handshake_seconds)),
        ("grpc.max_connection_idle_ms", _milliseconds(settings.max_connection_idle_seconds)),
        # Reconnects distribute callers behind a load balancer to added servers.
        ("grpc.max_connection_age_ms", _milliseconds(settings.max_connection_age_seconds)),
        ("grpc.max_connection_age_grace_ms", 1000 * (int(settings.max_request_seconds) + 1)),
    ]


def _milliseconds(seconds: float) -> int:
    return round(1000 * seconds)
