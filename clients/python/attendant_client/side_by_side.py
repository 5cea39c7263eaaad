"""Work on several items at the same time, with the results in the order of the items.

Knows nothing of lines or servers. At most `ITEMS_PER_WORKER` items of each worker are in memory,
and none is read while those there weigh more than a limit.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
ITEMS_PER_WORKER = 3
"""One that is worked on, and two that wait for an older one."""
CLOSING_SECONDS = 5.0
"""How long the end waits for workers that were interrupted."""


@dataclass(frozen=True, slots=True)
class _Outcome(Generic[Item, Result]):
    item: Item | None
    result: Result | None
    failure: BaseException | None
    weight: int


class SideBySide(Generic[Item, Result]):
    """Results of items, in order.

    Workers are threads, which also read the items, one at a time. So a slow item delays no result
    of those before. A failure, of work or of reading, is raised after the results before it.
    """

    def __init__(
        self,
        items: Iterator[Item],
        work: Callable[[Item], Result],
        num_workers: int,
        interrupt: Callable[[], None],
        weight: Callable[[Item], int],
        max_weight: int,
    ) -> None:
        """`interrupt` makes all running work fail."""
        self._items, self._work = items, work
        self._interrupt, self._weight_of, self._max_weight = interrupt, weight, max_weight
        self._max_items = ITEMS_PER_WORKER * num_workers
        self._reading = threading.Lock()
        self._changed = threading.Condition()
        self._outcomes: dict[int, _Outcome[Item, Result]] = {}
        self._num_read = self._num_given = self._weight = 0
        self._has_ended = False
        self._threads = [
            threading.Thread(target=self._run, name="attendant-lines", daemon=True)
            for _ in range(num_workers)
        ]

    def __iter__(self) -> Iterator[tuple[Item, Result]]:
        """Each item with its result; to be iterated once."""
        for thread in self._threads:
            thread.start()
        try:
            for index in count():
                outcome = self._next(index)
                if outcome is None:
                    return
                if outcome.failure is not None:
                    raise outcome.failure
                yield outcome.item, outcome.result  # type: ignore[misc]  # there is no failure
        finally:
            self._close()

    def _next(self, index: int) -> _Outcome[Item, Result] | None:
        """The outcome of an item; None if there is no such item."""
        with self._changed:
            self._changed.wait_for(
                lambda: index in self._outcomes or (self._has_ended and self._num_read <= index)
            )
            outcome = self._outcomes.pop(index, None)
            if outcome is not None:
                self._num_given += 1
                self._weight -= outcome.weight
                self._changed.notify_all()
            return outcome

    def _close(self) -> None:
        with self._changed:
            self._has_ended = True
            has_more = self._num_given < self._num_read
            self._changed.notify_all()
        if has_more:
            self._interrupt()
        for thread in self._threads:
            thread.join(CLOSING_SECONDS)

    def _run(self) -> None:
        while (taken := self._take()) is not None:
            index, item, weight = taken
            result = failure = None
            try:
                result = self._work(item)
            except BaseException as error:  # the caller gets it after the results
                failure = error
            self._put(index, _Outcome(item, result, failure, weight))

    def _take(self) -> tuple[int, Item, int] | None:
        """The next item with its index and weight; None at the end."""
        with self._reading:
            with self._changed:
                self._changed.wait_for(lambda: self._has_ended or self._has_room)
                if self._has_ended:
                    return None
            try:
                item = next(self._items)
            except StopIteration:
                self._end()
                return None
            except BaseException as error:  # the caller gets it after the results
                self._put(self._count(0), _Outcome(None, None, error, 0))
                return None
            weight = self._weight_of(item)
            return self._count(weight), item, weight

    def _count(self, weight: int) -> int:
        """Count an item that was read; returns its index."""
        with self._changed:
            self._weight += weight
            self._num_read += 1
            return self._num_read - 1

    @property
    def _has_room(self) -> bool:
        num_items = self._num_read - self._num_given
        return num_items < self._max_items and self._weight < self._max_weight

    def _put(self, index: int, outcome: _Outcome[Item, Result]) -> None:
        with self._changed:
            self._outcomes[index] = outcome
            self._has_ended |= outcome.failure is not None
            self._changed.notify_all()

    def _end(self) -> None:
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()
