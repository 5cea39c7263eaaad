"""Signals that end a command, and servers that end with it."""

import logging
import os
import signal
import subprocess
import sys
from functools import partial

import pytest
from attendant_export.corpora import local_server
from attendant_export.stopping import Stopped, stopped_by_signals


def test_a_signal_during_a_log_message_is_not_dropped(capsys):
    class Interrupting(logging.Handler):
        def emit(self, record):
            try:
                signal.raise_signal(signal.SIGTERM)
            except Exception:  # As the handlers of the standard library.
                self.handleError(record)

    logger = logging.getLogger(__name__)
    logger.addHandler(handler := Interrupting())
    try:
        with pytest.raises(Stopped, match="stopped by SIGTERM"), stopped_by_signals():
            logger.error("a message")
    finally:
        logger.removeHandler(handler)

    assert capsys.readouterr().err == ""


@pytest.mark.skipif(sys.platform != "linux", reason="has an effect on Linux only")
def test_a_server_whose_parent_ended_during_its_start_ends():
    other_parent = os.getppid()

    started = subprocess.Popen(
        ["sleep", "600"], preexec_fn=partial(local_server._end_with, other_parent)
    )

    assert started.wait() == 1
