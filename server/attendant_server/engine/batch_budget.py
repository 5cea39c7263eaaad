"""The budget of tokens of a batch that must not delay other work for long."""

from collections.abc import Callable


class BatchBudget:
    """Learns how long a token takes in one kind of run."""

    def __init__(self, max_tokens: int, max_seconds: float, run_clock: Callable[[], float]) -> None:
        """A batch has at most ``max_tokens``; a timely one also takes at most ``max_seconds``.

        ``run_clock`` measures runs, in seconds. It should not count the time in which the thread
        of a run waits for a processor: shorter batches do not shorten that time, and make it more
        for each token, so that batches would become shorter and shorter.
        """
        self.max_tokens, self._max_seconds = max_tokens, max_seconds
        self.run_clock = run_clock
        self._seconds_per_token = 0.0

    @property
    def timely(self) -> int:
        """Padded tokens of a batch within the limit of time, at the measured speed."""
        if not self._seconds_per_token:
            return self.max_tokens
        return min(self.max_tokens, int(self._max_seconds / self._seconds_per_token))

    def measure(self, num_padded_tokens: int, started: float) -> None:
        """Learn from a run that has just succeeded; it ``started`` at this time of `run_clock`."""
        per_token = (self.run_clock() - started) / num_padded_tokens
        old = self._seconds_per_token or per_token
        self._seconds_per_token = 0.8 * old + 0.2 * per_token
