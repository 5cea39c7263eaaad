"""The parts that the settings ask for: the certificate and the authentication of callers."""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Iterable
from functools import partial
from pathlib import Path
from ssl import SSLContext
from typing import Any

from attendant_server.addresses import is_loopback
from attendant_server.security.api_keys import watched_api_keys
from attendant_server.security.authentication import Authenticator
from attendant_server.security.certificates import Certificate, watch_expiry, watched_certificate
from attendant_server.security.key_set_url import KeySetUrl
from attendant_server.security.token_keys import read_public_keys, read_secret
from attendant_server.security.tokens import KeyFiles, KeySource, TokenRules, TokenVerifier
from attendant_server.security.watching import Value, WatchedFiles, watch
from attendant_server.settings import Settings

logger = logging.getLogger(__name__)


class Security:
    """The security of one server. Files are read at once, and watched after `start`."""

    def __init__(
        self,
        settings: Settings,
        methods: Collection[str],
        on_result: Callable[[str], None],
        on_callers: Callable[[Iterable[str]], None],
    ) -> None:
        """Raises FileFault. ``methods`` are all names of methods that keys may be limited to.

        ``on_result`` receives the result of each authentication, ``on_callers`` the names of the
        callers with keys at every reading of their file, on any thread.
        """
        self._on_callers = on_callers
        self._files: list[WatchedFiles[Any]] = []
        self._watches: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.certificate = self._certificate(settings)
        """None without TLS."""
        self.metrics_context = self._metrics_context(settings)
        """Returns the newest context for the port of the metrics; None for no TLS."""
        self.authenticator = self._authenticator(settings, methods, on_result)
        """None if calls need no token."""
        self.needs_certificates = bool(settings.tls_client_ca)
        """Whether callers need a certificate."""
        if self._files:
            self._watches.append(partial(watch, self._files))

    def start(self) -> None:
        """Watch the files, and fetch keys from their URL, on the running event loop."""
        self._tasks = [asyncio.ensure_future(each()) for each in self._watches]

    def stop(self) -> None:
        """End the watching."""
        for task in self._tasks:
            task.cancel()

    def warn_of_exposure(self, settings: Settings) -> None:
        """Log a warning if other machines can reach the server without protection."""
        hosts = [settings.host] + [settings.http_host] * (settings.http_port >= 0)
        exposed = [host for host in hosts if not is_loopback(host)]
        if not exposed:
            return
        if self.authenticator is None and not self.needs_certificates:
            logger.warning(
                "event=open_to_all host=%s %s",
                exposed[0],
                "ANYONE WHO REACHES THIS ADDRESS CAN USE THE SERVER: set api_keys, jwt_keys or "
                "tls_client_ca, or listen on 127.0.0.1",
            )
        elif self.certificate is None:
            logger.warning(
                "event=tokens_without_tls host=%s %s",
                exposed[0],
                "ANYONE ON THE NETWORK CAN READ THE CALLERS' TOKENS: set tls_cert and tls_key",
            )

    def _certificate(self, settings: Settings) -> WatchedFiles[Certificate] | None:
        if not settings.tls_cert:
            return None
        authorities = Path(settings.tls_client_ca) if settings.tls_client_ca else None
        chain, key = Path(settings.tls_cert), Path(settings.tls_key)
        certificate = self._watched(watched_certificate(chain, key, authorities))
        self._watches.append(partial(watch_expiry, chain, certificate))
        return certificate

    def _metrics_context(self, settings: Settings) -> Callable[[], SSLContext] | None:
        certificate = self.certificate
        if certificate is None or settings.metrics_tls == "never":
            return None
        return lambda: certificate.value.context

    def _authenticator(
        self, settings: Settings, methods: Collection[str], on_result: Callable[[str], None]
    ) -> Authenticator | None:
        tokens = api_keys = None
        if settings.api_keys:
            api_keys = self._watched(
                watched_api_keys(Path(settings.api_keys), methods, self._on_callers)
            )
        if settings.jwt_keys or settings.jwt_secret:
            rules = TokenRules(
                issuer=settings.jwt_issuer,
                audience=settings.jwt_audience,
                algorithms=settings.jwt_algorithms,
                clock_skew_seconds=settings.jwt_clock_skew_seconds,
                permissions_claim=settings.jwt_permissions_claim,
            )
            tokens = TokenVerifier(self._token_keys(settings), rules)
        return Authenticator(api_keys, tokens, on_result) if tokens or api_keys else None

    def _token_keys(self, settings: Settings) -> KeySource:
        if "://" in settings.jwt_keys:
            source = KeySetUrl(settings.jwt_keys)
            self._watches.append(source.watch)
            return source
        if settings.jwt_keys:
            path = Path(settings.jwt_keys)
            read = partial(read_public_keys, path)
        else:
            path = Path(settings.jwt_secret)
            read = partial(read_secret, path, settings.jwt_algorithms)
        return KeyFiles(self._watched(WatchedFiles([path], read)))

    def _watched(self, files: WatchedFiles[Value]) -> WatchedFiles[Value]:
        self._files.append(files)
        return files
