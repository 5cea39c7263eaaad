"""Progress bars are for people at a terminal."""

import io
import sys

import pytest
from attendant_export.progress import progress


@pytest.mark.parametrize("is_terminal", [True, False])
def test_bars_are_on_a_terminal_only(is_terminal, monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: is_terminal, raising=False)
    monkeypatch.setattr(sys, "stderr", stream)
    assert list(progress([1, 2, 3], "embedding")) == [1, 2, 3]
    assert ("embedding: " in stream.getvalue()) == is_terminal
