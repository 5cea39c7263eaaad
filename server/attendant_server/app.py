"""Wires the parts of the server together, starts and stops them. No other module wires parts."""

import asyncio
import logging
import platform
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from attendant_server import __version__
from attendant_server.addresses import joined
from attendant_server.application.admission import CallAdmission
from attendant_server.application.application import new_application
from attendant_server.application.arrivals import new_arrivals
from attendant_server.application.catalog import Catalog
from attendant_server.application.descriptions import ModelDescription
from attendant_server.application.held_memory import SHARE_OF_MEMORY, HeldMemory
from attendant_server.application.jobs import JobRunner
from attendant_server.application.model_statistics import ModelStatistics
from attendant_server.application.quotas import CallerQuotas
from attendant_server.call_gauges import call_gauges
from attendant_server.drain import CallTracker
from attendant_server.engine.engine import Engine
from attendant_server.engine.reports import Observers
from attendant_server.extras import StartError as StartError
from attendant_server.extras import new_bundle_source, new_http_door, new_tracer
from attendant_server.folder_watch import watch_folder
from attendant_server.grpc.own_methods import own_methods
from attendant_server.grpc.protocols import WHOLE_SERVER, health_names, serving_names
from attendant_server.grpc.server import (
    STATUS_NAMES,
    all_methods,
    new_grpc_server,
    new_health_server,
    open_port,
    own_method_names,
)
from attendant_server.grpc.services.health import HealthService
from attendant_server.language_identifier import LanguageIdentifier, is_installed
from attendant_server.lifecycle import ModelLifecycle
from attendant_server.loading import ModelLoader, request_limits
from attendant_server.observability.call_reporter import CallReporter
from attendant_server.observability.device_memory import watch_device_memory
from attendant_server.observability.logs import CallLog
from attendant_server.observability.metrics import Metrics, NoMetrics
from attendant_server.observability.metrics_server import MetricsLimits, MetricsServer
from attendant_server.observability.model_series import ModelSeries
from attendant_server.observability.start_log import log_start
from attendant_server.runtime.sessions import RUNTIME_VERSION
from attendant_server.security.caller_options import default_quota
from attendant_server.security.security import Security
from attendant_server.security.watching import FileFault
from attendant_server.settings import Settings
from attendant_server.supervision import EngineSupervisor
from attendant_server.system.blocking_work import run_blocking
from attendant_server.system.connections import num_connections
from attendant_server.system.memory import host_memory

if TYPE_CHECKING:
    from attendant_server.http.doors import HttpDoor

SETTLE_SECONDS = 0.5
"""Seconds that the last refusals are held back, so that no caller retries while the port closes."""

logger = logging.getLogger(__name__)


class Server:
    """One server: its ports, its models and its engine.

    ``async with Server(settings)`` is ready inside the block, and drained after it.
    """

    def __init__(self, settings: Settings) -> None:
        """Read the manifests of the bundles; raises BundleError, or StartError without an extra."""
        self._settings = settings
        self._metrics = Metrics() if settings.metrics_port >= 0 else NoMetrics()
        self._catalog = Catalog(self._metrics.on_refused, settings.default_models)
        self._statistics = ModelStatistics(lambda: self._call_reporter.catch_up())
        source = new_bundle_source(settings, self._metrics)
        self._loader = ModelLoader(settings, Observers(self._metrics, self._statistics), source)
        self.lifecycle = ModelLifecycle(
            settings,
            self._catalog,
            self._loader,
            ModelSeries(
                self._metrics,
                STATUS_NAMES,
                settings.max_queued_texts,
                self._is_serving,
                self._statistics,
            ),
            self._report_health,
        )
        self._admission = CallAdmission(
            settings.max_concurrent_calls,
            settings.max_request_seconds,
            self._metrics.on_refused,
            CallerQuotas(default_quota(settings)),
        )
        self._memory = HeldMemory(
            settings.max_held_bytes or int(SHARE_OF_MEMORY * host_memory().limit),
            2 * settings.max_concurrent_calls,
            self._metrics.on_refused,
        )
        self._arrivals = new_arrivals(
            self._memory.max_bytes,
            settings.max_request_bytes,
            settings.max_receive_seconds,
            self._metrics.on_refused,
        )
        self._tracker = CallTracker()
        self._jobs = JobRunner(settings.num_tokenizer_threads)
        self._application = new_application(
            self._catalog,
            self._admission,
            self.lifecycle,
            request_limits(settings),
            self._jobs,
            self._statistics,
            LanguageIdentifier if is_installed() else None,
            settings.pivots,
            Path(settings.glossaries) if settings.glossaries else None,
        )
        self._health = HealthService(list(health_names(settings.protocols)))
        self._closers: list[Callable[[], None]] = [source.close]
        self.supervisor = EngineSupervisor(
            self._loader,
            self.lifecycle,
            settings.max_request_seconds,
            self._report_health,
            self._metrics.on_engine_restart,
        )
        self._watch: asyncio.Task[None] | None = None
        self._stop_health_server: Callable[[], Awaitable[None]] | None = None
        self._http: HttpDoor | None = None
        self.port = self.http_port = self.metrics_port = self.health_port = 0
        """0 until the ports are open, and always for a unix socket or without the port."""
        self.address = self.http_address = self.metrics_address = ""
        self._start_series()

    async def __aenter__(self) -> "Server":
        await self.start()
        try:
            await self.load()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Open the ports; the server answers calls, but no model is ready. Raises StartError."""
        settings = self._settings
        log_start(settings, self._loader.num_threads, self._loader.num_workers)
        try:
            await run_blocking(self._loader.open_device)
        except RuntimeError as error:
            raise StartError(f"device {settings.device}: {error}") from error
        if settings.device == "cuda":
            await watch_device_memory(self._metrics)
        self._security = await run_blocking(self._new_security)
        self._start_call_reporter()
        self._grpc = new_grpc_server(
            self._application,
            self._memory,
            self._arrivals,
            self._health,
            self._tracker,
            self._call_reporter,
            self._security,
            settings,
        )
        try:
            self.port, self.address = open_port(
                self._grpc, self._security.certificate, settings.host, settings.port
            )
            await self._open_health_port()
            self._open_http_port()
            self._show_metrics()
        except OSError as error:
            raise StartError(f"cannot listen on {error}") from error
        self._security.start()
        self._security.warn_of_exposure(settings)
        await self._grpc.start()
        logger.info("event=loading address=%s models=%s", self.address, self.models())

    async def load(self) -> None:
        """Load all models, start the engine and report SERVING. Raises BundleError."""
        await self.supervisor.start()
        if period := self._settings.watch_bundles_seconds:
            source = self._loader.source
            watching = watch_folder(source.root, period, self.lifecycle.refresh, source.update)
            self._watch = asyncio.ensure_future(watching)
        logger.info(
            "event=serving address=%s http_address=%s metrics_address=%s models=%s",
            self.address,
            self.http_address,
            self.metrics_address,
            self.models(),
        )

    @property
    def engine(self) -> Engine | None:
        """Runs the models; None until they are loaded."""
        return self.lifecycle.engine

    async def stop(self) -> None:
        """Report NOT_SERVING, wait ``lame_duck_seconds``, finish calls in progress, and end.

        New calls, and those in progress after ``drain_seconds``, fail with UNAVAILABLE.
        """
        await self._health.stop_serving()
        logger.info("event=stopping")
        lame_duck_seconds = 0.0 if self.engine is None else self._settings.lame_duck_seconds
        await asyncio.sleep(lame_duck_seconds)
        if self._watch is not None:
            self._watch.cancel()
        self.supervisor.stop()
        self.lifecycle.stop()
        drain_until = time.monotonic() + self._settings.drain_seconds
        self._admission.refuse_calls()
        await self._close_port(min(SETTLE_SECONDS, lame_duck_seconds), drain_until)
        if self.engine is not None:
            await asyncio.to_thread(self.engine.drain, max(0.0, drain_until - time.monotonic()))
        if self._stop_health_server is not None:
            await self._stop_health_server()
        self._security.stop()
        self._jobs.close()
        for close in self._closers:
            await asyncio.to_thread(close)
        logger.info("event=stopped")

    async def _close_port(self, settle_seconds: float, drain_until: float) -> None:
        # The library cancels calls that arrive while it stops. Therefore refusals are sent only
        # after connections were told to go away: a caller that waits for its refusal makes no
        # new call.
        with self._admission.held_refusals():
            await asyncio.sleep(settle_seconds)
            if self._http is not None:
                self._http.stop_listening()
            seconds_left = max(0.0, drain_until - time.monotonic())
            stopping = asyncio.ensure_future(self._grpc.stop(seconds_left))
            await asyncio.sleep(0)  # the first step of `stopping` sends GOAWAY
        # Only now, because clients with health checks watch again at once where they still can.
        await self._health.close()
        self._arrivals.refuse_requests()  # a call that has not arrived has nothing to finish
        if num_calls := await self._tracker.wait(max(0.0, drain_until - time.monotonic())):
            logger.warning("event=drain_expired calls=%d", num_calls)
        await self._grpc.stop(0)  # ends the calls that wait for their callers
        if self._http is not None:
            await self._http.close()
        await stopping

    def models(self) -> str:
        """The models and their precisions, in one line."""
        return ",".join(f"{d.key}:{d.precision}" for d in self._catalog.descriptions)

    def _start_series(self) -> None:
        """Create all series before the first scrape."""
        self._metrics.describe_server(
            version=__version__,
            python=platform.python_version(),
            onnxruntime=RUNTIME_VERSION,
            device=self._settings.device,
        )
        self._metrics.add_methods(all_methods(self._settings.protocols), STATUS_NAMES)
        self._metrics.watch(
            {
                "attendant_serving": lambda: self._health.is_serving(WHOLE_SERVER),
                "attendant_connections": lambda: num_connections(self.port),
                "attendant_max_connections": lambda: self._settings.max_connections,
                **call_gauges(self._settings, self._admission, self._memory, self._arrivals),
            }
        )

    def _is_serving(self, model: ModelDescription) -> bool:
        return self._catalog.is_ready(model) and self._health.is_serving(WHOLE_SERVER)

    def _new_security(self) -> Security:
        try:
            security = Security(
                self._settings,
                own_method_names(),
                self._metrics.on_authentication,
                self._metrics.add_callers,
            )
        except FileFault as error:
            raise StartError(str(error)) from error
        if certificate := security.certificate:
            self._metrics.watch_certificate(lambda: certificate.value.expires.timestamp())
        return security

    async def _open_health_port(self) -> None:
        settings = self._settings
        if settings.health_port < 0:
            return
        server = new_health_server(self._health)
        self.health_port, _ = open_port(server, None, settings.metrics_host, settings.health_port)
        await server.start()
        self._stop_health_server = partial(server.stop, 0)

    def _open_http_port(self) -> None:
        if self._settings.http_port < 0:
            return
        self._http = new_http_door(
            self._application,
            self._memory,
            self._arrivals,
            self._tracker,
            self._call_reporter,
            self._security,
            lambda: self._health.is_serving(WHOLE_SERVER),
            self._settings,
            own_methods(self._application, self._settings),
        )
        self._metrics.add_methods(self._http.methods, STATUS_NAMES)
        self.http_port, self.http_address = self._http.start()

    def _start_call_reporter(self) -> None:
        tracers = [new_tracer(url)] if (url := self._settings.trace_endpoint) else []
        # Tracers are first, because the others read the trace id.
        self._call_reporter = CallReporter([*tracers, self._metrics, self._statistics, CallLog()])
        self._closers += [self._call_reporter.close, *(tracer.close for tracer in tracers)]

    def _show_metrics(self) -> None:
        settings = self._settings
        if settings.metrics_port < 0:
            return
        server = MetricsServer(
            self._metrics.registry,
            self._call_reporter.catch_up,
            MetricsLimits(settings.max_metrics_connections, settings.max_metrics_seconds),
            self._security.metrics_context,
            self._metrics.on_metrics_connection,
        )
        self.metrics_port = server.start(settings.metrics_host, settings.metrics_port)
        self.metrics_address = joined(settings.metrics_host, self.metrics_port)
        self._closers.append(server.close)

    async def _report_health(self) -> None:
        """Report SERVING for the kinds that have a ready model, and NOT_SERVING for the others."""
        kinds = {d.kind for d in self._catalog.descriptions if self._catalog.is_ready(d)}
        can_detect = self._application.language_detector.is_installed
        serving = list(serving_names(self._settings.protocols, kinds, can_detect))
        await self._health.report(serving)
