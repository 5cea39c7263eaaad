"""`attendant translate --from auto`: lines in several languages, each by its own model."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attendant_client import Client
from attendant_client.__main__ import main
from attendant_server import app

from tests.support.serving import LoopThread, Running, running_server

BUILT_IN = Path(__file__).parents[2] / "bundles"
ENGLISH = ["Where is the nearest train station?", "My sister has bought a very old house."]
GERMAN = ["Wo ist der nächste Bahnhof, bitte?", "Meine Schwester hat ein altes Haus gekauft."]
FRENCH = "Où est la gare la plus proche, et quand part le dernier train ?"
LINES = [ENGLISH[0], GERMAN[0], "", FRENCH, "1234 + 5", GERMAN[1], ENGLISH[1]]


@pytest.fixture(scope="module")
def running(loop: LoopThread, settings: Callable[..., Any]) -> Iterator[Running]:
    models = ("en-de", "de-en", "en-fr")
    options = {"bundles": BUILT_IN, "models": models, "precision": "auto"}
    with running_server(loop, settings(**options, pivots=("de-en+en-fr",))) as server:
        yield server


@pytest.fixture
def translated(
    running: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    """Runs the command for lines of a file; returns its code, lines and complaints."""

    def translated(lines: list[str], *options: str) -> tuple[int, list[str], list[str]]:
        path = tmp_path / "lines.txt"
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        target = ["--target", running.server.address]
        code = main(["translate", *target, "--input", str(path), *options])
        captured = capsys.readouterr()
        return code, captured.out.splitlines(), captured.err.splitlines()

    return translated


def expected(running: Running, texts: list[str], source: str, target: str) -> list[str]:
    with Client(running.server.address) as client:
        found = client.translate(texts, source_language=source, target_language=target)
        return [each.text for each in found]


@pytest.mark.parametrize("batch_size", ["3", "32"])
def test_each_line_is_translated_by_the_model_of_its_language(
    running: Running, translated: Callable[..., Any], batch_size: str
):
    english = expected(running, ENGLISH, "en", "fr")
    german = expected(running, GERMAN, "de", "fr")  # over a pivot language
    options = ("--from", "auto", "--to", "fr", "--batch-size", batch_size)
    code, lines, complaints = translated(LINES, *options)
    assert code == 1
    assert lines == [english[0], german[0], "", "", "", german[1], english[1]]
    assert len(complaints) == 2
    no_model = "is in fr: model: no translation model for source_language fr, target_language fr;"
    assert complaints[0].startswith(f"attendant: line 4: {no_model}")
    assert complaints[1] == "attendant: line 5: the text shows no language"


def test_the_possible_languages_may_be_named(running: Running, translated: Callable[..., Any]):
    lines = ["Hallo", "Hello", *GERMAN]
    code, found, complaints = translated(lines, "--from", "auto:de", "--to", "en")
    assert (code, complaints) == (0, [])
    assert found == expected(running, lines, "de", "en")
    options = ("--from", "auto:de,xx", "--to", "en")
    code, found, complaints = translated(lines, *options)
    assert (code, found) == (1, [])
    assert complaints[0].startswith("attendant: languages[1]: must be one of ")


def test_streams_and_samples_have_the_language_of_their_line(
    running: Running, translated: Callable[..., Any]
):
    streamed = translated(LINES, "--from", "auto", "--to", "de", "--stream")
    code, lines, complaints = streamed
    assert code == 1
    english = expected(running, ENGLISH, "en", "de")
    assert lines == [english[0], "", "", "", "", "", english[1]]
    assert [each.partition(": is in ")[2][:2] for each in complaints] == ["de", "fr", "", "de"]
    sampling = ("--to", "en", "--sample", "--seed", "7", "--json")
    detected = translated([*ENGLISH, *GERMAN], "--from", "auto:de,en", *sampling)
    named = translated([*ENGLISH, *GERMAN], "--from", "de", *sampling)
    assert [json.loads(line)["error"] is None for line in detected[1]] == [False] * 2 + [True] * 2
    found = [json.loads(line) for line in detected[1]]
    assert [line.pop("source_language") for line in found] == [None] * 2 + ["de"] * 2
    assert found[2:] == [json.loads(line) for line in named[1][2:]]


@pytest.mark.parametrize("stream", [(), ("--stream",)])
def test_lines_in_languages_that_the_named_model_does_not_read_fail_alone(
    running: Running, translated: Callable[..., Any], stream: tuple[str, ...]
):
    options = ("--from", "auto", "--model", "en-de", *stream)
    code, lines, complaints = translated([GERMAN[0], ENGLISH[0]], *options)
    assert (code, lines) == (1, ["", *expected(running, ENGLISH[:1], "en", "de")])
    problem = "is in de: source_language: en-de/3 has en, not 'de'"
    assert complaints == [f"attendant: line 1: {problem}"]


def test_other_faults_of_a_call_end_the_command(translated: Callable[..., Any]):
    target = ("--to", "xx", "--model", "en-de")
    code, lines, complaints = translated(ENGLISH, "--from", "auto", *target)
    assert (code, lines) == (1, [])
    assert complaints[0].startswith("attendant: target_language: en-de/3 has de, not 'xx'")
    code, lines, complaints = translated(ENGLISH, "--from", "auto", "--model", "no-such")
    assert (code, lines) == (1, [])
    assert complaints[0].startswith("attendant: model: no such model")
    options = ("--from", "auto", "--to", "de", "--stream", "--beam", "99")
    code, lines, complaints = translated(ENGLISH, *options)
    assert (code, lines) == (1, [])
    assert complaints[0].startswith("attendant: options.beam_size: ")


def test_a_server_without_detection_is_named(
    start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    monkeypatch.setattr(app, "is_installed", lambda: False)
    target = start().server.address
    assert main(["translate", "--target", target, "--from", "auto", ENGLISH[0]]) == 1
    assert "this server detects no languages: it needs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        (["translate", "--from", "auto:de,", "a"], "auto:de, is not of the form auto:TAG,TAG"),
        (["translate", "--to", "auto", "a"], "auto is for the source language of translate only"),
        (["score", "--from", "auto", "a", "b"], "auto is for the source language of translate"),
    ],
)
def test_auto_is_refused_elsewhere(command: list[str], problem: str, capsys: Any):
    with pytest.raises(SystemExit):
        main(command)
    assert problem in capsys.readouterr().err
