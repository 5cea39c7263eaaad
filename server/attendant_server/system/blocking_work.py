"""Blocking work, such as reading files, off the event loop."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")


async def run_blocking(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function on a new thread; returns its result or raises its exception.

    Unlike with `asyncio.to_thread`, a function that never returns does not delay the end of the
    event loop or of the interpreter. Cancelling does not stop the function but drops its result.
    """
    outcome: Future[Result] = Future()
    outcome.set_running_or_notify_cancel()

    def run() -> None:
        try:
            outcome.set_result(function(*arguments))
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name="attendant-blocking", daemon=True).start()
    return await asyncio.wrap_future(outcome)
