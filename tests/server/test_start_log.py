import json
import logging
from pathlib import Path

import pytest
from attendant_server.observability.logs import JsonFormatter
from attendant_server.observability.start_log import log_start
from attendant_server.settings import Settings


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture):
    """Logs the start with given settings, and returns the lines."""

    def log(**changed: object) -> list[str]:
        caplog.clear()
        with caplog.at_level(logging.INFO):
            log_start(Settings(**changed), num_threads=6, num_workers=3)  # type: ignore[arg-type]
        return caplog.messages

    return log


def test_the_first_line_says_what_the_server_is_and_how_large(lines):
    [line] = lines()
    fields = dict(field.split("=") for field in line.split())
    assert fields["event"] == "starting"
    assert (fields["device"], fields["threads"], fields["workers"]) == ("cpu", "6", "3")
    assert fields["version"] == "0.1.0"
    assert int(fields["processors"]) >= 1


def test_the_second_line_has_the_settings_that_differ_from_their_defaults(lines):
    [_, line] = lines(models=("a", "b/1"), max_rows=64, drain_seconds=20.0, lame_duck_seconds=0.5)
    assert line == "event=settings models=a,b/1 max_rows=64 lame_duck_seconds=0.5"


def test_settings_keep_their_types_as_json(lines, caplog):
    lines(max_rows=64, models=("a",))
    entry = json.loads(JsonFormatter().format(caplog.records[-1]))
    assert (entry["event"], entry["max_rows"], entry["models"]) == ("settings", 64, "a")


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("http://user:secret@collector:4317", "http://collector:4317"),
        ("https://collector/v1?key=secret#secret", "https://collector/v1"),
    ],
)
def test_credentials_are_not_logged(lines, given: str, shown: str):
    assert lines(trace_endpoint=given)[1] == f"event=settings trace_endpoint={shown}"


def test_a_value_cannot_be_taken_for_another_field_or_line(lines):
    [_, line] = lines(bundles=Path("my models\nevent=stopped"))
    assert line == 'event=settings bundles="my models\\nevent=stopped"'
