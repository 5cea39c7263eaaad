"""A JWK Set that an identity provider publishes at an https URL."""

import asyncio
import http.client
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from attendant_server.reasons import reason_of
from attendant_server.security.token_keys import TokenKeys, parse_key_set
from attendant_server.system.blocking_work import run_blocking

PERIOD_SECONDS = 300.0
"""Between two regular fetches, so that a withdrawn key is accepted for at most this time after its
withdrawal while the URL can be read."""
MIN_SECONDS = 10.0
"""Between two fetches for unknown key ids, so that bad tokens cause no flood of fetches."""
FETCH_SECONDS = 5.0
"""The time limit of a fetch, and of a call that waits for one."""
MAX_BYTES = 256 * 1024

logger = logging.getLogger(__name__)


class KeySetUrl:
    """The newest key set of a URL. Keeps the former one while the URL cannot be read."""

    def __init__(
        self,
        url: str,
        fetch: Callable[[str], bytes] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``fetch`` runs on another thread; it may raise anything."""
        self._url, self._fetch, self._clock = url, fetch or fetch_bounded, clock
        self._content = b""
        self._fetched = -MIN_SECONDS
        self._fetching: asyncio.Future[None] | None = None
        self.value = TokenKeys()
        """Empty before the first successful fetch."""

    async def watch(self) -> None:
        """Fetch now and in each period, until cancelled."""
        while True:
            await self._shared_fetch()
            await asyncio.sleep(PERIOD_SECONDS if self.value else MIN_SECONDS)

    async def refresh_keys(self) -> None:
        """Fetch the set again, unless that was done a short time ago; waits for a limited time."""
        if self._fetching is not None or self._clock() - self._fetched >= MIN_SECONDS:
            with suppress(TimeoutError):
                async with asyncio.timeout(FETCH_SECONDS):
                    await self._shared_fetch()

    async def _shared_fetch(self) -> None:
        """Fetch, or wait for the fetch that is running."""
        if self._fetching is None:
            self._fetching = asyncio.ensure_future(self._fetch_now())
        await asyncio.shield(self._fetching)  # a cancelled call must not end it for others

    async def _fetch_now(self) -> None:
        try:
            # `fetch_bounded` cannot limit the lookup of the name and the headers of the answer.
            async with asyncio.timeout(2 * FETCH_SECONDS):
                content = await run_blocking(self._fetch, self._url)
            if content != self._content:
                self.value, self._content = parse_key_set(content), content
                logger.info("event=token_keys_fetched")
        except Exception as error:  # libraries raise many kinds; the keys are public
            logger.error("event=token_keys_not_fetched %s", reason_of(error))
        finally:
            self._fetched, self._fetching = self._clock(), None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: Any) -> None:
        """Refuse: the operator has chosen the address."""


def fetch_bounded(url: str) -> bytes:
    """The content of a URL, within limits of size and time. Raises OSError."""
    give_up = time.monotonic() + FETCH_SECONDS
    content = b""
    with _open(url) as response:
        while part := response.read1(65536):
            content += part
            if len(content) > MAX_BYTES:
                raise OSError("the key set is too large")
            if time.monotonic() > give_up:
                raise TimeoutError(f"the key set took more than {FETCH_SECONDS:g} seconds")
    return content


def _open(url: str) -> Any:
    handlers: list[Any] = [_NoRedirects]
    if urlsplit(url).scheme == "http":  # of this machine; a proxy could answer with its own keys
        handlers.append(urllib.request.ProxyHandler({}))
    try:
        return urllib.request.build_opener(*handlers).open(url, timeout=FETCH_SECONDS)
    except urllib.error.HTTPError as error:
        with error:
            raise OSError(f"the key set's URL answers with status {error.code}") from None
    except http.client.HTTPException as error:  # its message may be what the other side sent
        raise OSError(f"the key set's URL gives no HTTP answer: {type(error).__name__}") from None
