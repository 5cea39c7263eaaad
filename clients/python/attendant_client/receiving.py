"""Streams of the synchronous client, whose reader may be interrupted.

A signal such as that of Ctrl-C raises its exception wherever the main thread is. Inside gRPC it
can leave a lock locked, and then no stream of the channel is answered any more. So another thread
begins the call, waits for the responses and cancels the call. The reader waits for that thread in
a `SimpleQueue`, which an exception cannot harm.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Self

import grpc

_SIGNAL_SECONDS = 0.2
"""A signal that comes just before a wait does not end the wait, and is handled after this time."""

_Task = Callable[[], Any]
_Outcome = tuple[Any, BaseException | None]


class ReceivedStream:
    """The responses of a call, each received once it is asked for.

    It must be cancelled, also after its end or an exception, so that its thread ends at once. The
    thread of a dropped one ends as well, and with it the call.
    """

    def __init__(self, begin: _Task) -> None:
        """`begin` begins the call, and returns what gRPC returns for it. Raises what it raises."""
        self._tasks = SimpleQueue[_Task | None]()
        self._outcomes = SimpleQueue[_Outcome]()
        self._is_waiting = False
        worker = threading.Thread(
            target=_work, args=(self._tasks, self._outcomes), name="attendant-stream", daemon=True
        )
        worker.start()
        self._call = self._done(begin)

    def __del__(self) -> None:
        self._tasks.put(None)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return self._done(self._call.__next__)

    def initial_metadata(self) -> Any:
        """Wait for the metadata that the server sends first."""
        return self._done(self._call.initial_metadata)

    def cancel(self) -> None:
        """Cancel the call if it is running, and end the thread."""
        if self._is_waiting:  # The thread waits for the server, so only this one can cancel.
            self._call.cancel()
        else:
            self._tasks.put(self._call.cancel)
        self._tasks.put(None)

    def _done(self, task: _Task) -> Any:
        self._is_waiting = True
        self._tasks.put(task)
        value, error = self._outcome()
        self._is_waiting = False
        if error is not None:
            raise error
        return value

    def _outcome(self) -> _Outcome:
        while True:
            with suppress(Empty):
                return self._outcomes.get(timeout=_SIGNAL_SECONDS)


def _work(tasks: SimpleQueue[_Task | None], outcomes: SimpleQueue[_Outcome]) -> None:
    while task := tasks.get():
        try:
            outcomes.put((task(), None))
        except BaseException as error:  # StopIteration and gRPC's errors are for the reader.
            outcomes.put((None, error))


class Receiving(grpc.UnaryStreamClientInterceptor, grpc.StreamStreamClientInterceptor):
    """Lets the streams of a channel be received by threads of their own."""

    def intercept_unary_stream(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        """Begin a call with one request."""
        return ReceivedStream(partial(continuation, client_call_details, request))

    def intercept_stream_stream(
        self, continuation: Any, client_call_details: Any, request_iterator: Any
    ) -> Any:
        """Begin a call with many requests."""
        return ReceivedStream(partial(continuation, client_call_details, request_iterator))
