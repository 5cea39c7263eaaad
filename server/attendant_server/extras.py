"""Parts of the server that need extras of the package. Nothing of an extra is imported before."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attendant_server import __version__
from attendant_server.bundle_sources import BundleSource, LocalBundles

if TYPE_CHECKING:
    from attendant_server.http.doors import HttpDoor
    from attendant_server.observability.metrics import Metrics
    from attendant_server.observability.tracing import Tracer
    from attendant_server.settings import Settings


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


def new_bundle_source(settings: "Settings", metrics: "Metrics") -> BundleSource:
    """The source of the setting ``bundles``, a folder or a URL. Raises StartError."""
    if isinstance(settings.bundles, Path):
        return LocalBundles(settings.bundles)
    try:
        from attendant_server.remote.bundle_cache import BundleCache
        from attendant_server.remote.remote_bundles import RemoteBundles

        folder = Path(settings.bundles_cache_dir) if settings.bundles_cache_dir else _cache_folder()
        max_bytes = settings.max_bundles_cache_bytes
        cache = BundleCache(folder, settings.bundles, max_bytes)
        has_keys = bool(settings.bundle_keys)
        remote = RemoteBundles(settings.bundles, cache, metrics, settings.models, has_keys)
    except ImportError as error:
        raise StartError(
            "bundles at a URL need attendant-server[remote], and those at s3:// "
            f"attendant-server[s3]: {error}"
        ) from error
    except ValueError as error:
        raise StartError(f"bundles: {error}") from error
    except (OSError, RuntimeError) as error:  # such as a user without a home
        raise StartError(f"bundles_cache_dir: {error}") from error
    metrics.watch_bundles_cache(lambda: remote.num_cache_bytes, max_bytes)
    return remote


def _cache_folder() -> Path:
    """The folder that Linux's desktops and most commands use for what can be had again."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "attendant" / "bundles"
