"""Connections of both clients: target, timeout, retries and channel options.

The synchronous and the asyncio client share it.
"""

import json
import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message

from attendant_client.calls import named_model
from attendant_client.options import FilePath, Token
from attendant_client.receiving import Receiving
from attendant_client.retries import Attempts, RetryPolicy, RetryThrottle
from attendant_client.targets import (
    check_address,
    is_list,
    is_local,
    may_have_several_servers,
    split_target,
    with_list_scheme,
)

DEFAULT_TARGET = "localhost:50051"
DEFAULT_TIMEOUT_SECONDS = 30.0
DEFAULT_RETRY = RetryPolicy()

Metadata = tuple[tuple[str, str | bytes], ...]

ChannelOption = tuple[str, int | str]

CHANNEL_OPTIONS: tuple[ChannelOption, ...] = (
    # Hidden states of several layers for many texts are large.
    ("grpc.max_receive_message_length", 256 * 1024 * 1024),
    # Pings find servers that are dead or hang during a call, early enough to retry it elsewhere
    # within DEFAULT_TIMEOUT_SECONDS; the server accepts one every 10 seconds.
    ("grpc.keepalive_time_ms", 11_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),  # otherwise a minute, whatever the line above says
    # The channel reconnects to a restarted server within the back-offs of RetryPolicy.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # Servers that are replaced one after the other may all have new addresses within 30 seconds,
    # gRPC's default. A name is resolved again only when a connection ends or fails.
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
)
BALANCED: ChannelOption = (
    "grpc.service_config",
    json.dumps(
        {
            "loadBalancingConfig": [{"round_robin": {}}],
            # The empty name is the whole server, which does not serve while it loads or stops.
            "healthCheckConfig": {"serviceName": ""},
        }
    ),
)
"""Spreads calls over all servers that report SERVING. Servers without the health service count as
serving."""
AUTHORIZATION, REQUEST_ID, MODEL = "authorization", "x-request-id", "attendant-model"
_FIT_REQUEST_ID = re.compile(r"[\w.:/+=-]{1,128}", re.ASCII)
"""An id that the server writes into its log; it replaces others."""
_ids = random.Random()
"""A generator of its own, so that a seeded application does not repeat ids."""


def channel_options(address: str) -> list[ChannelOption]:
    """Return the options of a channel to `address`. Connections to this machine use no proxy."""
    return [*CHANNEL_OPTIONS, ("grpc.enable_http_proxy", 0 if is_local(address) else 1)]


@dataclass(frozen=True, slots=True)
class Connection:
    """The address of one or several servers, and how to connect to them."""

    address: str
    credentials: grpc.ChannelCredentials | None
    """None for a connection without TLS."""

    def open(self, channels: Any) -> tuple[Any, Any]:
        """Return a channel to all servers that are serving, and one to any one server.

        The latter server may be loading its models or stopping. If the address has one server,
        both are the same channel. `channels` is the module `grpc` or `grpc.aio`.
        """
        any_server = self._open(channels)
        if not may_have_several_servers(self.address):
            return any_server, any_server
        return self._open(channels, BALANCED), any_server

    def _open(self, channels: Any, *further_options: ChannelOption) -> Any:
        options = [*channel_options(self.address), *further_options]
        if self.credentials is None:
            channel = channels.insecure_channel(self.address, options=options)
        else:
            channel = channels.secure_channel(self.address, self.credentials, options=options)
        return channel if channels is grpc.aio else grpc.intercept_channel(channel, Receiving())


def connect(
    target: str,
    *,
    tls: bool | None = None,
    tls_ca: FilePath | None = None,
    tls_cert: FilePath | None = None,
    tls_key: FilePath | None = None,
    token: Token | None = None,
    allow_plain_token: bool = False,
) -> Connection:
    """Check the options of a client.

    Raises ValueError, and OSError for a file that cannot be read.
    """
    address, scheme_tls = split_target(target)
    address = with_list_scheme(address)
    check_address(address)
    has_files = bool(tls_ca or tls_cert or tls_key)
    is_tls = bool(scheme_tls or has_files) if tls is None else tls
    if scheme_tls not in (None, is_tls) or (has_files and not is_tls):
        raise ValueError("the target and the options disagree about TLS")
    if bool(tls_cert) != bool(tls_key):
        raise ValueError("tls_cert and tls_key must be given together")
    if is_tls:
        if is_list(address):
            raise ValueError("with TLS, a target must be one name or address, not a list")
        return Connection(
            address,
            grpc.ssl_channel_credentials(_content(tls_ca), _content(tls_key), _content(tls_cert)),
        )
    if token is not None and not (allow_plain_token or is_local(address)):
        raise ValueError(
            "without TLS, anyone on the network could read the token: use a target with grpcs://, "
            "or allow_plain_token"
        )
    return Connection(address, None)


def _content(path: FilePath | None) -> bytes | None:
    return Path(path).read_bytes() if path else None


@dataclass(frozen=True, slots=True)
class CallDefaults:
    """The defaults for the calls of one client."""

    timeout_seconds: float
    retry: RetryPolicy
    metadata: Metadata = field(repr=False)
    is_closed: Callable[[], bool]
    """Whether the client was closed. Closing cancels its calls, which must then not be retried."""
    token: Token | None = field(default=None, repr=False)
    throttle: RetryThrottle = field(default_factory=RetryThrottle)

    def __post_init__(self) -> None:
        _check_timeout(self.timeout_seconds)
        if self.token is not None and any(key == AUTHORIZATION for key, _ in self.metadata):
            raise ValueError("give the token either as token or in the metadata")
        if isinstance(self.token, str):
            _check_token(self.token)

    def request_id(self, given: str | None) -> str:
        """The id of a call: the given one, that of the metadata, or a new one.

        Raises ValueError for an id that the server does not take.
        """
        if given is None:
            given = next((str(value) for key, value in self.metadata if key == REQUEST_ID), None)
        if given is None:
            return f"{_ids.getrandbits(64):016x}"
        if not _FIT_REQUEST_ID.fullmatch(given):
            raise ValueError(f"request_id must match {_FIT_REQUEST_ID.pattern}, not {given!r}")
        return given

    def call_metadata(self, request_id: str, request: Message) -> Metadata:
        """Return the metadata of an attempt; raises ValueError for a bad token.

        It names the model of the request, by which a proxy can choose among servers.
        """
        metadata = [entry for entry in self.metadata if entry[0] != REQUEST_ID]
        metadata.append((REQUEST_ID, request_id))
        model = named_model(request)
        if model and not any(key == MODEL for key, _ in metadata):
            metadata.append((MODEL, model))
        token = self.token
        if token is not None:
            if not isinstance(token, str):
                token = token()
                _check_token(token)
            metadata.append((AUTHORIZATION, f"Bearer {token}"))
        return tuple(metadata)

    def attempts(self, timeout_seconds: float | None, is_idempotent: bool = True) -> Attempts:
        """Begin a call, whose deadline counts from now; raises ValueError for a bad timeout.

        A call that is not idempotent is repeated only if the server has refused to begin it.
        """
        if timeout_seconds is None:
            timeout_seconds = self.timeout_seconds
        _check_timeout(timeout_seconds)
        return self._attempts(timeout_seconds, is_idempotent)

    def stream_attempts(self, timeout_seconds: float | None) -> Attempts:
        """Begin a bulk call, which has no deadline unless it has a timeout of its own."""
        if timeout_seconds is None:
            return self._attempts(math.inf)
        _check_timeout(timeout_seconds)
        return self._attempts(timeout_seconds)

    def _attempts(self, timeout_seconds: float, is_idempotent: bool = True) -> Attempts:
        return Attempts(
            self.retry,
            self.throttle,
            timeout_seconds,
            is_closed=self.is_closed,
            is_idempotent=is_idempotent,
        )


def _check_timeout(timeout_seconds: float) -> None:
    if not 0 < timeout_seconds < math.inf:
        raise ValueError(f"timeout_seconds must be positive and finite, not {timeout_seconds}")


def _check_token(token: str) -> None:
    if not (token and token.isascii() and token.isprintable() and " " not in token):
        raise ValueError("a token must be printable ASCII without spaces")
