"""Work that blocks, such as reading files, away from the event loop."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")


async def run_blocking(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function on a thread of its own and return or raise what it does.

    Unlike `asyncio.to_thread`, a call that never returns holds up neither the event loop's end nor
    the interpreter's. Cancelling does not stop the function; its result is then dropped.
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
