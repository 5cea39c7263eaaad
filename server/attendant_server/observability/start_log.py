"""The first lines of the log: versions, device and threads, and settings that differ from defaults.

Credentials in settings are removed.
"""

import json
import logging
import platform
from collections.abc import Iterator
from dataclasses import fields
from typing import Any
from urllib.parse import urlsplit

from attendant_server import __version__
from attendant_server.runtime.sessions import RUNTIME_VERSION
from attendant_server.settings import Settings
from attendant_server.system.processors import num_processors

logger = logging.getLogger(__name__)


def log_start(settings: Settings, num_threads: int, num_workers: int) -> None:
    """Write one line, and a second one if any setting differs from its default."""
    logger.info(
        "event=starting version=%s python=%s onnxruntime=%s device=%s processors=%d threads=%d "
        "workers=%d",
        __version__,
        platform.python_version(),
        RUNTIME_VERSION,
        settings.device,
        num_processors(),
        num_threads,
        num_workers,
    )
    if changed := dict(_changed(settings)):
        keys = " ".join(f"{name}=%s" for name in changed)
        logger.info(f"event=settings {keys}", *changed.values())


def _changed(settings: Settings) -> Iterator[tuple[str, Any]]:
    for setting in fields(Settings):
        value = getattr(settings, setting.name)
        if value != setting.default:
            yield setting.name, _shown(setting.name, value)


def _shown(name: str, value: Any) -> Any:
    if isinstance(value, int | float):
        return value
    text = ",".join(value) if isinstance(value, tuple) else str(value)
    if name in ("trace_endpoint", "jwt_keys"):
        text = _without_credentials(text)
    # A space would begin another field, a line break another line.
    is_plain = text.isprintable() and not any(character in ' "' for character in text)
    return text if is_plain and text else json.dumps(text)


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
