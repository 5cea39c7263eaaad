"""Adapts an asyncio object to the synchronous interface, so that one test covers both."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any, Self

END = object()


class Blocking:
    """An asyncio object that runs in `loop`. Callers in other threads wait for its results."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        make: Callable[..., Any],
        *arguments: Any,
        **options: Any,
    ) -> None:
        self._loop = loop
        self._object = self._run(make, *arguments, **options)

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._object, name)
        if name in ("stream_translate", "bulk_translate", "bulk_embed"):
            return lambda *arguments, **options: Blocking(self._loop, member, *arguments, **options)
        if not callable(member):
            return member
        return lambda *arguments, **options: self._run(member, *arguments, **options)

    def __enter__(self) -> Self:
        self._run(self._object.__aenter__)
        return self

    def __exit__(self, *exception: object) -> None:
        self._run(self._object.__aexit__, *exception)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        found = self._run(anext, self._object, END)
        if found is END:
            raise StopIteration
        return found

    def _run(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        async def call() -> Any:
            result = function(*arguments, **options)
            return await result if inspect.isawaitable(result) else result

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result()
