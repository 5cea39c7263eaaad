"""The number of workers that decode the texts of one model."""

from math import ceil

BEGINS_ABOVE, ENDS_BELOW = 1.3, 1.15
"""Ratios of the time of turns to their processor time, at which processors begin and end to be
scarce."""
TURNS_FOR_ONE = 8
"""One of so many turns is measured: on a virtual machine, reading the processor time of a thread
takes up to 50 µs, twice for each turn."""
DECAY = 0.95
"""The weight of all earlier turns falls by this factor with each measured turn."""


class WorkerUse:
    """Gives few texts to few workers while processors are scarce.

    Much of the time of a step does not depend on its rows, so one step of eight rows takes less
    processor time than two steps of four. While the event loop and other programs wait for the
    processors that a second worker takes, fewer workers answer more texts. With idle processors, a
    text is answered sooner if all workers decode. On the threads of all workers; without a lock,
    since it only guides.
    """

    def __init__(self, full_rows: int) -> None:
        """A worker with ``full_rows`` rows is full enough; 0: all workers always decode."""
        self.full_rows = full_rows
        self.are_processors_scarce = False
        self.width = 1
        """Rows of each text of the latest call, which stands for those of all waiting texts."""
        self._seconds = self._processor_seconds = 0.0
        self._num_turns = 0

    def is_measured(self) -> bool:
        """Whether the turn that begins now is to be measured."""
        is_measured = self.full_rows > 0 and self._num_turns % TURNS_FOR_ONE == 0
        self._num_turns += 1
        return is_measured

    def measure(self, seconds: float, processor_seconds: float, is_alone: bool) -> None:
        """Learn from a turn of a worker: its time, and the processor time of its thread.

        If the model is not alone on a worker, texts could wait there for another model's long
        turns, so all workers decode.
        """
        if not is_alone:
            self.are_processors_scarce = False
            return
        self._seconds = DECAY * self._seconds + seconds
        self._processor_seconds = DECAY * self._processor_seconds + processor_seconds
        limit = ENDS_BELOW if self.are_processors_scarce else BEGINS_ABOVE
        self.are_processors_scarce = self._seconds > limit * self._processor_seconds

    def num_workers(self, num_rows: int, most: int) -> int:
        """The number of workers for these rows, of at most ``most``."""
        if not (self.full_rows and self.are_processors_scarce):
            return most
        return max(1, min(most, ceil(num_rows / self.full_rows)))
