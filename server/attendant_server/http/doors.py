"""Wires the HTTP server: the routes of its protocols, and the parts that all calls share."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, Router
from starlette.routing import Route as StarletteRoute

from attendant_server.application.application import Application
from attendant_server.application.arrivals import Arrivals
from attendant_server.application.held_memory import HeldMemory
from attendant_server.drain import CallTracker
from attendant_server.http.calls import CallRunner
from attendant_server.http.connect.routes import PATH, ConnectEndpoint, OwnMethod, served_methods
from attendant_server.http.connection import ConnectionLimits
from attendant_server.http.exchanges import Receive, Route, Send
from attendant_server.http.json_routes import JsonRoute
from attendant_server.http.libretranslate.routes import libretranslate_routes
from attendant_server.http.openai.routes import openai_routes
from attendant_server.http.openapi import document_route
from attendant_server.http.page.assets import assets
from attendant_server.http.page.statistics import statistics_route
from attendant_server.http.probes import health_route
from attendant_server.http.server import App, HttpServer
from attendant_server.http.tei.routes import tei_routes
from attendant_server.records import CallObserver, Method
from attendant_server.security.security import Security
from attendant_server.settings import Settings

EXPOSED_HEADERS = ("retry-after", "x-request-id")
"""Headers of answers that pages of other origins may read."""
MAX_AGE_SECONDS = 7200
"""Time for which browsers remember what pages may do; no browser remembers it for longer."""


class Endpoint:
    """An ASGI application that runs the calls of one route."""

    def __init__(self, runner: CallRunner, route: Route) -> None:
        self._runner, self._route = runner, route

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._runner.run(self._route, scope, receive, send)


class HttpDoor:
    """The port of HTTP: its server and its calls."""

    def __init__(
        self,
        application: Application,
        memory: HeldMemory,
        arrivals: Arrivals,
        tracker: CallTracker,
        observer: CallObserver,
        security: Security,
        is_serving: Callable[[], bool],
        settings: Settings,
        own_methods: Iterable[OwnMethod],
    ) -> None:
        self._settings = settings
        self._runner = CallRunner(
            observer,
            tracker,
            security,
            arrivals,
            application.admission,
            memory,
            settings.max_request_bytes,
            settings.keepalive_timeout_seconds,
        )
        routes = list(_json_routes(application, is_serving, settings))
        has_keys = security.authenticator is not None
        self._json_routes = [*routes, document_route(routes, has_keys)]
        self._assets = list(assets()) if "page" in settings.http_protocols else []
        has_callers = has_keys or security.needs_certificates
        methods = list(served_methods(own_methods, has_callers, settings))
        self._connect = ConnectEndpoint(
            self._runner, methods, application, settings.max_response_bytes, _not_found
        )
        certificate = security.certificate
        self.server = HttpServer(
            _shared(
                Router(list(self._routes()), redirect_slashes=False, default=_not_found),
                settings.http_allowed_origins,
            ),
            ConnectionLimits(
                head_seconds=settings.handshake_seconds,
                idle_seconds=settings.max_connection_idle_seconds,
                age_seconds=settings.max_connection_age_seconds,
                stalled_seconds=settings.keepalive_timeout_seconds,
                max_head_bytes=settings.max_metadata_bytes,
                max_body_bytes=settings.max_request_bytes,
            ),
            settings.max_http_connections,
            None if certificate is None else lambda: certificate.value.context,
        )

    @property
    def methods(self) -> list[Method]:
        """The methods of all routes."""
        found = [route.method for route in self._json_routes] + self._connect.methods
        return found + [asset.method for asset in self._assets[:1]]

    def start(self) -> tuple[int, str]:
        """Listen and serve; returns the port and the address. Raises OSError."""
        return self.server.start(self._settings.http_host, self._settings.http_port)

    def stop_listening(self) -> None:
        """Take no new connections, and no new calls on open ones."""
        self.server.stop_listening()

    async def close(self) -> None:
        """End the calls in progress with Unavailable, and all connections."""
        await self._runner.stop()
        await self.server.close()

    def _routes(self) -> Iterator[BaseRoute]:
        """The routes of the server. Further doors and pages add theirs here."""
        for route in self._json_routes:
            endpoint: Any = Endpoint(self._runner, route)
            yield StarletteRoute(route.path, endpoint, methods=[route.verb])
        for asset in self._assets:
            endpoint = Endpoint(self._runner, asset)
            yield StarletteRoute(asset.path, endpoint, methods=["GET"])
        connect: Any = self._connect
        yield StarletteRoute(PATH, connect, methods=["POST"])


def _json_routes(
    application: Application, is_serving: Callable[[], bool], settings: Settings
) -> Iterator[JsonRoute]:
    if "openai" in settings.http_protocols:
        yield from openai_routes(application)
    if "libretranslate" in settings.http_protocols:
        yield from libretranslate_routes(application, settings)
    if "tei" in settings.http_protocols:
        yield from tei_routes(application, settings)
    if "page" in settings.http_protocols:
        yield statistics_route(application)
    yield health_route(is_serving)


def _shared(app: App, origins: Sequence[str]) -> App:
    """The application, for pages of these origins as well."""
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=["*"],  # names the headers that a page asks for
        expose_headers=EXPOSED_HEADERS,
        max_age=MAX_AGE_SECONDS,
    )


async def _not_found(scope: Any, receive: Receive, send: Send) -> None:
    body = msgspec.json.encode({"error": "there is no such path"})
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send({"type": "http.response.body", "body": body})
