from dataclasses import fields
from pathlib import Path

import pytest
from attendant_server.setting_sources import flag, load_settings, settings_table, variable
from attendant_server.settings import Settings, SettingsError


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


@pytest.mark.parametrize("name", ["TARGET", "TOKEN", "CA", "CLIENT_CERT", "CLIENT_KEY"])
def test_a_variable_of_the_client_is_none_of_the_servers(name: str):
    assert load_settings([], {f"ATTENDANT_{name}": "anything"}) == Settings()


def test_a_variable_of_nobody_is_unknown():
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
        ("pivots", "de-en"),
        ("http_protocols", "connect,soap"),
        ("http_allowed_origins", "app.example.com"),
        ("http_allowed_origins", "https://app.example.com/"),
        ("http_allowed_origins", "*,https://*.example.com"),
        ("pivots", "de-en+en-fr+fr-nl"),
        ("pivots", "de-en+en-fr,De-en+x"),
        ("pivots", "de-en/1/2+en-fr"),
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


TOKENS = ("--jwt-keys=keys.json", "--jwt-issuer=https://a.example", "--jwt-audience=b")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--tls-cert=a.crt"], "tls_key: must be set, because tls_cert is"),
        (["--tls-key=a.key"], "tls_cert: must be set, because tls_key is"),
        (["--tls-client-ca=ca.pem"], "tls_client_ca: needs tls_cert and tls_key"),
        (["--jwt-issuer=a"], "jwt_issuer: needs jwt_keys or jwt_secret"),
        (["--jwt-audience=a"], "jwt_audience: needs jwt_keys or jwt_secret"),
        (TOKENS[:2], "jwt_audience: must be set, because jwt_keys is"),
        (TOKENS[::2], "jwt_issuer: must be set, because jwt_keys is"),
        ([*TOKENS, "--jwt-permissions-claim="], "jwt_permissions_claim: must be set"),
        ([*TOKENS, "--jwt-secret=a"], "jwt_secret: must not be set together with jwt_keys"),
        ([*TOKENS, "--jwt-algorithms=RS256,HS256"], "jwt_algorithms: must be among RS256"),
        ([*TOKENS, "--jwt-algorithms=none"], "jwt_algorithms: must be among RS256"),
        ([*TOKENS, "--jwt-algorithms="], "jwt_algorithms: must be among RS256"),
        (["--jwt-secret=a", *TOKENS[1:]], "jwt_algorithms: must be among HS256"),
        ([*TOKENS, "--jwt-keys=http://a.example/keys"], "jwt_keys: a URL must begin with https"),
        ([*TOKENS, "--jwt-keys=ftp://a.example/keys"], "jwt_keys: a URL must begin with https"),
        ([*TOKENS, "--jwt-keys=https://[x/keys"], "jwt_keys: a URL must begin with https"),
        ([*TOKENS, "--jwt-keys=https://a:b@c.example/"], "jwt_keys: the URL must not hold"),
        (["--health-port=-2"], "health_port: must be at least -1"),
        (["--reflection=yes"], "reflection: must be one of on, off"),
    ],
)
def test_settings_of_security_that_do_not_fit_together_are_named(arguments, problem: str):
    assert [each for each in problems_of(list(arguments), {}) if each.startswith(problem)]


@pytest.mark.parametrize("name", ["tls_key", "api_keys", "jwt_secret"])
def test_a_secret_in_the_place_of_its_file_is_refused_without_being_repeated(name: str):
    problems = problems_of([], {variable(name): "the-secret-itself"})
    assert f"{name}: must be the path of a file; there is none of this name" in problems
    assert "the-secret-itself" not in str(problems)


@pytest.mark.parametrize("url", ["https://a.example/keys", "http://127.0.0.1:8/keys"])
def test_keys_of_tokens_may_come_from_a_safe_url(url: str):
    assert load_settings([*TOKENS, f"--jwt-keys={url}"], {}).jwt_keys == url


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
