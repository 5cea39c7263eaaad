"""Signals that come before the event loop listens to them, such as while modules are imported."""

import signal

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""The signals that the server handles."""

_kept = set[int]()


def keep_early_signals() -> None:
    """From now on, keep the signals of `HANDLED` instead of ending the process.

    Signals that the process was started to ignore, as with nohup, are still ignored.
    """
    for number in HANDLED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda received, _: _kept.add(received))


def was_kept(number: int) -> bool:
    """Whether a signal came before it got another handler. Call it after that."""
    return number in _kept
