"""The signals that end trainings and translations of corpora."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MESSAGE = b"\nstopping after this step; the same signal again stops at once, without a checkpoint\n"


class Stopped(Exception):
    """A signal stopped a command. Its progress is saved."""

    def __init__(self, stopped_by: signal.Signals) -> None:
        super().__init__(f"stopped by {stopped_by.name}; run the same command again to continue")
        self.stopped_by = stopped_by


class Interrupted(BaseException):
    """A signal arrived in `StopSignals.interrupting`.

    It may be raised anywhere in the body, so it is no Exception, which logging and other libraries
    catch and drop.
    """


class StopSignals:
    """Notes the first of `SIGNALS`, and restores its previous handler for the next one.

    Signals that the process ignores, such as SIGHUP under nohup, stay ignored.
    """

    def __init__(self, reports: bool) -> None:
        """``reports``: whether to acknowledge a signal on standard error."""
        self.received = 0
        """Number of the signal that arrived, 0 before."""
        self._reports, self._interrupts = reports, False

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note signals while the body runs."""
        previous = {number: signal.getsignal(number) for number in SIGNALS}

        def note(number: int, _: FrameType | None) -> None:
            self.received = number
            signal.signal(number, previous[signal.Signals(number)])
            if self._reports:  # Printing is not safe here: the signal may have interrupted it.
                os.write(2, MESSAGE)
            if self._interrupts:
                raise Interrupted

        for number, handler in previous.items():
            if handler != signal.SIG_IGN:
                signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Raise `Interrupted` in the body when a signal arrives, or if one has arrived."""
        self._interrupts = True
        try:
            if self.received:
                raise Interrupted
            yield
        finally:
            self._interrupts = False


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raise `Stopped` when one of `SIGNALS` arrives while the body runs, which ends at once."""
    signals = StopSignals(reports=False)
    try:
        with signals.noted(), signals.interrupting():
            yield
    except Interrupted:
        raise Stopped(signal.Signals(signals.received)) from None
