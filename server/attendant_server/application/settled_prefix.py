"""The settled prefix of a stream on its way from the engine to the event loop."""

import asyncio


class SettledPrefix:
    """Passes the settled prefix of a hypothesis from an engine thread to the event loop.

    Each prefix begins with the one before, so only the newest one is kept.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._token_ids: tuple[int, ...] = ()
        self._has_changed = asyncio.Event()
        self._is_closed = False

    def put(self, token_ids: tuple[int, ...]) -> None:
        """Replace the prefix by a longer one. Any thread."""
        self._loop.call_soon_threadsafe(self._replace, token_ids)

    def close(self, _: object = None) -> None:
        """End the waiting for longer prefixes. On the event loop."""
        self._is_closed = True
        self._has_changed.set()

    async def next(self) -> tuple[int, ...] | None:
        """Wait for a longer prefix and return the newest one; None at the end."""
        await self._has_changed.wait()
        self._has_changed.clear()
        return None if self._is_closed else self._token_ids

    def _replace(self, token_ids: tuple[int, ...]) -> None:
        self._token_ids = token_ids
        self._has_changed.set()
