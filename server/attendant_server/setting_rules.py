"""Rules of single settings and rules between settings."""

import math
import os
import re
from collections.abc import Iterator
from dataclasses import Field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from attendant_manifest.rules import NAME, VERSION

from attendant_server.addresses import UNIX, host_problem, is_loopback

if TYPE_CHECKING:
    from attendant_server.settings import Settings

PROTOCOLS = ("attendant", "kserve", "tei")
HTTP_PROTOCOLS = ("openai", "libretranslate", "tei", "connect", "page")
SYMMETRIC_ALGORITHMS = ("HS256", "HS384", "HS512")
ASYMMETRIC_ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
)  # fmt: skip


_MODEL = f"{NAME.pattern}(?:/{VERSION.pattern})?"
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:\d{1,5})?|https?://\[[0-9a-f:]+\](:\d{1,5})?")
_PIVOT = re.compile(rf"{_MODEL}\+{_MODEL}")


def bound_problem(setting: "Field[Any]", value: Any) -> str | None:
    """The bound or the choices of a setting that a value breaks, as a message; None if it fits."""
    limits, choices = setting.metadata, setting.metadata["choices"]
    if choices:
        return None if value in choices else f"{setting.name}: must be one of {', '.join(choices)}"
    if isinstance(value, int | float) and not limits["min"] <= value <= limits["max"]:
        bounds = [f"at least {limits['min']}"] * (limits["min"] > -math.inf)
        bounds += [f"at most {limits['max']}"] * (limits["max"] < math.inf)
        return f"{setting.name}: must be {' and '.join(bounds)}, got {value}"
    return None


def contradictions(settings: "Settings") -> Iterator[str]:
    """A line for each broken rule; it begins with the name of a setting."""
    yield from _limit_problems(settings)
    if not settings.protocols or set(settings.protocols) - set(PROTOCOLS):
        yield f"protocols: must be among {', '.join(PROTOCOLS)}, at least one"
    if set(settings.http_protocols) - set(HTTP_PROTOCOLS):
        yield f"http_protocols: must be among {', '.join(HTTP_PROTOCOLS)}"
    if "page" in settings.http_protocols and "connect" not in settings.http_protocols:
        yield "http_protocols: page needs connect"
    for origin in settings.http_allowed_origins:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            yield (
                "http_allowed_origins: must be * or origins such as https://app.example.com, "
                f'without a path, got "{origin}"'
            )
    for pivot in settings.pivots:
        if not _PIVOT.fullmatch(pivot):
            yield f'pivots: must be pairs of models such as de-en+en-fr, got "{pivot}"'
    if settings.trace_endpoint and not settings.trace_endpoint.startswith(("http://", "https://")):
        yield "trace_endpoint: must begin with http:// or https://"
    yield from _bundle_url_problems(settings)
    yield from _host_problems(settings)
    yield from _secret_file_problems(settings)
    yield from _tls_problems(settings)
    has_permissions = settings.api_keys or settings.jwt_keys or settings.jwt_secret
    if settings.model_control == "on" and not (has_permissions or is_loopback(settings.host)):
        yield (
            "model_control: needs api_keys, jwt_keys or jwt_secret, or a host that only this "
            "machine can reach"
        )
    yield from _token_problems(settings)


def _limit_problems(settings: "Settings") -> Iterator[str]:
    if settings.max_beam_size > settings.max_rows:
        yield "max_beam_size: must not be more than max_rows"
    elif settings.max_beam_size * settings.num_workers > settings.max_rows:
        yield "max_beam_size: must not be more than max_rows divided by num_workers"
    if settings.max_texts > settings.max_queued_texts:
        yield "max_texts: must not be more than max_queued_texts"


def _bundle_url_problems(settings: "Settings") -> Iterator[str]:
    """Never shows the URL, which may hold a secret."""
    if not isinstance(settings.bundles, str):
        return
    try:
        url = urlsplit(settings.bundles)
        host = url.hostname or ""
    except ValueError:
        yield "bundles: is not a URL"
        return
    if not url.scheme or "://" not in settings.bundles or "::" in settings.bundles:
        yield "bundles: must be a folder, or one URL such as https://host/folder"
    if "@" in url.netloc or url.query or url.fragment:
        yield "bundles: the URL must hold no user, password, query or fragment"
    if ".." in url.path.split("/"):
        yield "bundles: the URL must not hold .."
    if url.scheme == "http" and not is_loopback(host) and not settings.bundle_keys:
        yield (
            "bundles: a URL must begin with https://, or with http:// on this machine or with "
            "bundle_keys"
        )


def _host_problems(settings: "Settings") -> Iterator[str]:
    is_unix = settings.host.startswith(UNIX)
    if is_unix and not settings.host.removeprefix(UNIX).strip("/"):
        yield f"host: must be {UNIX} with the path of a socket, got {settings.host}"
    others = {"metrics_host": settings.metrics_host, "http_host": settings.http_host}
    hosts = others | ({} if is_unix else {"host": settings.host})
    for name, host in hosts.items():
        if problem := host_problem(host):
            yield f"{name}: {problem}"


def _secret_file_problems(settings: "Settings") -> Iterator[str]:
    """Secrets given instead of the files that hold them; the log would show them as paths."""
    for name in ("tls_key", "api_keys", "jwt_secret"):
        path = getattr(settings, name)
        if path and not os.path.exists(path):
            yield f"{name}: must be the path of a file; there is none of this name"


def _tls_problems(settings: "Settings") -> Iterator[str]:
    if bool(settings.tls_cert) != bool(settings.tls_key):
        missing, given = ("tls_key", "tls_cert") if settings.tls_cert else ("tls_cert", "tls_key")
        yield f"{missing}: must be set, because {given} is"
    if settings.tls_client_ca and not settings.tls_cert:
        yield "tls_client_ca: needs tls_cert and tls_key"


def _token_problems(settings: "Settings") -> Iterator[str]:
    keys, secret = settings.jwt_keys, settings.jwt_secret
    if keys and secret:
        yield "jwt_secret: must not be set together with jwt_keys"
    if not (keys or secret):
        for name in ("jwt_issuer", "jwt_audience"):
            if getattr(settings, name):
                yield f"{name}: needs jwt_keys or jwt_secret"
        return
    for name in ("jwt_issuer", "jwt_audience", "jwt_permissions_claim"):
        if not getattr(settings, name):
            yield f"{name}: must be set, because jwt_{'keys' if keys else 'secret'} is"
    # Never both kinds: a public key must not serve as a shared secret.
    allowed = ASYMMETRIC_ALGORITHMS if keys else SYMMETRIC_ALGORITHMS
    if not settings.jwt_algorithms or set(settings.jwt_algorithms) - set(allowed):
        source = "jwt_keys" if keys else "jwt_secret"
        yield f"jwt_algorithms: must be among {', '.join(allowed)} with {source}"
    yield from _key_url_problems(keys)


def _key_url_problems(keys: str) -> Iterator[str]:
    if "://" not in keys:
        return
    try:
        url = urlsplit(keys)
        is_secure = url.scheme == "https" or (
            url.scheme == "http" and is_loopback(url.hostname or "")
        )
        has_password = "@" in url.netloc
    except ValueError:
        is_secure = has_password = False
    if not is_secure:
        yield "jwt_keys: a URL must begin with https://, or with http:// on this machine"
    if has_password:
        yield "jwt_keys: the URL must not hold a password"
