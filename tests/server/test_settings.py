from dataclasses import fields
from pathlib import Path

import pytest
from attendant_server.settings import (
    Settings,
    SettingsError,
    flag,
    load_settings,
    settings_table,
    variable,
)


def problems_of(arguments: list[str], environment: dict[str, str]) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as failure:
        load_settings(arguments, environment)
    return failure.value.problems


def test_nothing_given_gives_the_defaults():
    assert load_settings([], {}) == Settings()


def test_a_flag_and_a_variable_set_the_same_setting():
    assert load_settings(["--max-rows", "16"], {}).max_rows == 16
    assert load_settings(["--max-rows=16"], {}).max_rows == 16
    assert load_settings([], {"ATTENDANT_MAX_ROWS": "16"}).max_rows == 16


def test_a_flag_wins_over_a_variable():
    environment = {"ATTENDANT_MAX_ROWS": "16"}
    assert load_settings(["--max-rows", "32"], environment).max_rows == 32
    assert load_settings(["--models="], {"ATTENDANT_MODELS": "en-de"}).models == ()


def test_the_variable_of_the_client_is_none_of_the_servers():
    assert load_settings([], {"ATTENDANT_TARGET": "elsewhere:50051"}) == Settings()
    assert problems_of([], {"ATTENDANT_TARGETS": "x"}) == ("ATTENDANT_TARGETS: unknown variable",)


def test_values_have_the_types_of_their_defaults():
    settings = load_settings(
        ["--bundles", "/models", "--models", "a, b/1,", "--drain-seconds", "3"], {}
    )
    assert settings.bundles == Path("/models")
    assert settings.models == ("a", "b/1")
    assert settings.drain_seconds == 3.0


def test_every_problem_is_told_at_once():
    problems = problems_of(
        ["--max-texts", "many", "--no-such-flag", "--max-rows", "0", "--precision", "int4"],
        {"ATTENDANT_MAX_TEXT": "5", "ATTENDANT_PORT": "65536", "OTHER": "x"},
    )
    assert {problem.partition(":")[0] for problem in problems} >= {
        "max_texts",
        "--no-such-flag",
        "max_rows",
        "precision",
        "ATTENDANT_MAX_TEXT",
        "port",
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_rows", "1.5"),
        ("max_rows", "-1"),
        ("drain_seconds", "nan"),
        ("drain_seconds", "inf"),
        ("max_batch_seconds", "0"),
        ("log_level", "loud"),
        ("log_format", "xml"),
        ("metrics_port", "-2"),
        ("trace_endpoint", "collector:4317"),
        ("device", "tpu"),
        ("device", "auto"),
        ("host", "localhost:50051"),
        ("host", "unix:"),
        ("host", "unix:///"),
        ("metrics_host", "unix:/run/metrics.sock"),
        ("metrics_host", "[::1]:9464"),
    ],
)
def test_a_bad_value_is_named(name: str, value: str):
    [problem, *_] = problems_of([f"{flag(name)}={value}"], {})
    assert problem.startswith(f"{name}: ")


def test_a_flag_must_be_written_in_full():
    assert problems_of(["--max-row", "5"], {})


def test_an_empty_variable_is_not_taken_for_no_variable():
    assert problems_of([], {"ATTENDANT_MAX_ROWS": ""}) == ('max_rows: "" is not a whole number',)


def test_limits_that_contradict_each_other_are_refused():
    assert problems_of(["--max-rows", "4", "--max-beam-size", "8"], {})
    assert problems_of(["--max-queued-texts", "4", "--max-texts", "8"], {})


def test_the_table_has_a_row_for_every_setting():
    table = settings_table()
    for setting in fields(Settings):
        assert f"| `{flag(setting.name)}` | `{variable(setting.name)}` |" in table


def test_help_tells_every_setting(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        load_settings(["--help"], {})
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(flag(setting.name) in text for setting in fields(Settings))
    assert all(f"[{variable(setting.name)}]" in text for setting in fields(Settings))
