"""Bounds the requests and answers that the server holds for all calls together."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from attendant_server.errors import QueueFull

RETRY_AFTER_SECONDS = 1.0
SHARE_OF_FREE_BYTES = 0.75
"""The share of one caller of the bytes that other callers leave free."""
SHARE_OF_MEMORY = 1 / 16
"""Default share of the memory limit. Messages, their bytes and texts take about three times as
much as the bytes that are counted."""
HELD_BYTES_PER_PLACE = 140
"""Counted bytes of the place of a word or sentence in an answer, which takes up to three times as
much before the answer is written."""
HELD_BYTES_PER_TOKEN = 64
"""Counted bytes of a token of a long text, which takes up to three times as much like the rest."""


class HeldMemory:
    """Counts the bytes of requests and answers, and the answers that were not read yet.

    For the event loop only.
    """

    def __init__(
        self, max_bytes: int, max_unread_answers: int, on_refused: Callable[[str], None]
    ) -> None:
        """``on_refused`` receives ``memory`` for each refusal."""
        self.max_bytes, self._max_unread_answers = max_bytes, max_unread_answers
        self._on_refused = on_refused
        self.num_bytes = self.num_unread_answers = 0
        self._of_callers: dict[str, int] = {}

    def hold(self, caller: str, num_bytes: int) -> "HeldCall":
        """Count a request, until its answer takes its place. Raises QueueFull."""
        if self.num_unread_answers >= self._max_unread_answers:
            self._refuse(
                f"{self.num_unread_answers} answers have not been read by their callers, at most "
                f"{self._max_unread_answers}"
            )
        held = HeldCall(self, caller)
        held.replace(num_bytes)
        return held

    def change(self, caller: str, old_bytes: int, new_bytes: int) -> None:
        """Replace bytes of a caller; raises QueueFull if the new ones are too many."""
        if problem := self.problem(caller, old_bytes, new_bytes):
            self._refuse(problem)
        self.add(caller, new_bytes - old_bytes)

    def problem(self, caller: str, old_bytes: int, new_bytes: int) -> str:
        """Why bytes of a caller cannot be replaced; empty if they can."""
        own = self._of_callers.get(caller, 0) - old_bytes
        others = self.num_bytes - old_bytes - own
        limit = int(SHARE_OF_FREE_BYTES * (self.max_bytes - others))
        # A call that is alone may have any size: other limits bound its messages.
        if new_bytes > old_bytes and (others or own) and own + new_bytes > limit:
            return (
                f"requests and answers of this caller hold {own} bytes and {new_bytes} more would "
                f"exceed its limit of {limit}: three quarters of the bytes that other callers "
                f"leave free, of {self.max_bytes}"
            )
        return ""

    def add(self, caller: str, num_bytes: int) -> None:
        """Count more bytes of a caller, or fewer, whatever the limit."""
        self.num_bytes += num_bytes
        self._of_callers[caller] = self._of_callers.get(caller, 0) + num_bytes
        if not self._of_callers[caller]:
            del self._of_callers[caller]

    def _refuse(self, message: str) -> None:
        self._on_refused("memory")
        raise QueueFull(message, retry_after_seconds=RETRY_AFTER_SECONDS)


class HeldCall:
    """The bytes that one call holds."""

    def __init__(self, memory: HeldMemory, caller: str, may_refuse: bool = True) -> None:
        self._memory, self._caller, self._may_refuse = memory, caller, may_refuse
        self._num_bytes = 0
        self._is_answered = False

    def replace(self, num_bytes: int) -> None:
        """Hold this many bytes instead; raises QueueFull, and then holds as many as before."""
        self._memory.change(self._caller, self._num_bytes, num_bytes)
        self._num_bytes = num_bytes

    def hold_more(self, num_bytes: int) -> None:
        """Hold this many bytes more; raises QueueFull, and then holds as many as before."""
        self.replace(self._num_bytes + num_bytes)

    def has_room(self, num_bytes: int) -> bool:
        """Whether this many bytes can be held beside those of before."""
        return not self._memory.problem(self._caller, self._num_bytes, self._num_bytes + num_bytes)

    def add(self, num_bytes: int) -> None:
        """Hold this many bytes more, or fewer if it is negative, whatever the limit."""
        self._memory.add(self._caller, num_bytes)
        self._num_bytes += num_bytes

    def hold_tokens(self, num_tokens: int) -> None:
        """Hold the tokens of long texts, too; raises QueueFull if they are too many."""
        self._hold_or_add(HELD_BYTES_PER_TOKEN * num_tokens)

    def hold_places(self, num_places: int) -> None:
        """Hold places of words in an answer, too; raises QueueFull if they are too many."""
        self._hold_or_add(HELD_BYTES_PER_PLACE * num_places)

    def _hold_or_add(self, num_bytes: int) -> None:
        if self._may_refuse:
            self.hold_more(num_bytes)
        else:
            self.add(num_bytes)

    @contextmanager
    def part(self) -> Iterator[None]:
        """Let the running task hold, in the block, what a part of a stream holds.

        Its tokens are never too many: the stream itself waits for room, and is bounded.
        """
        held = HeldCall(self._memory, self._caller, may_refuse=False)
        token = _current.set(held)
        try:
            yield
        finally:
            held.release()
            _current.reset(token)

    def make_current(self) -> None:
        """Let `current_hold` return this in the running task."""
        _current.set(self)

    def answer(self, num_bytes: int) -> None:
        """Hold the answer, which is about to be sent, instead of the request; raises QueueFull."""
        self.replace(num_bytes)
        self._is_answered = True
        self._memory.num_unread_answers += 1

    def release(self) -> None:
        """Hold nothing: the call has ended, and the caller has read the answer."""
        self.replace(0)
        self._memory.num_unread_answers -= self._is_answered
        self._is_answered = False


_current: ContextVar[HeldCall] = ContextVar("hold")


def _ignore(reason: str) -> None:
    pass


def current_hold() -> HeldCall:
    """The bytes that the running task's call holds; counted nowhere outside of calls."""
    return _current.get(None) or HeldCall(HeldMemory(sys.maxsize, sys.maxsize, _ignore), "")
