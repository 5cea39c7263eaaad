"""Row states that each run of a step replaces, such as the vectors of a recurrent decoder.

A graph may write its outputs before it has read all inputs, so a run writes to other memory than
it reads. Every run takes all rows in use; otherwise the state of a row would be in the old memory.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Generic, TypeVar

from attendant_server.engine.models import Candidates, StepInput
from attendant_server.runtime.cache_pool import CacheBuffer
from attendant_server.runtime.sessions import Tensor
from attendant_server.runtime.shortlists import Listed
from attendant_server.runtime.step import BoundStep

Buffer = TypeVar("Buffer", bound=CacheBuffer)


class ReplacedStates(Generic[Buffer]):
    """Two copies of each state. A run reads the current copies and makes the others current."""

    def __init__(self, buffer: Buffer) -> None:
        """``buffer`` holds the first copies of all states, and then the second copies."""
        self.buffer = buffer
        self.current = 0

    def copies(self, number: int) -> slice:
        """The tensors of the buffer that hold one copy of each state."""
        num_states = self.buffer.layout.num_tensors // 2
        return slice(number * num_states, (number + 1) * num_states)


def as_vectors(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of one head and one position per entry, as (entries, width)."""
    return [replace(t, shape=(t.shape[0], t.shape[-1])) for t in tensors]


class AlternatingStep:
    """A step that is bound twice: to read the first copies and write the second, and vice versa."""

    def __init__(self, states: ReplacedStates[Buffer], steps: Sequence[BoundStep]) -> None:
        """``steps`` holds the step that reads each copy."""
        self._states, self._steps = states, steps

    def run(self, step_input: StepInput, listed: Listed | None = None) -> Candidates:
        """`BoundStep.run`."""
        states = self._states
        candidates = self._steps[states.current].run(step_input, listed)
        states.current = 1 - states.current
        return candidates

    def forget(self) -> None:
        """`BoundStep.forget`."""
        for step in self._steps:
            step.forget()
