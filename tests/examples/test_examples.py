"""The programs in examples/, run as their docstrings say against the built-in models."""

import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from attendant_client import Client
from attendant_server.settings import Settings

from examples.attention_heads import clearest
from examples.mine_pairs import margins, mine
from examples.semantic_search import paragraphs
from examples.translate_subtitles import Subtitle, parse
from examples.vector_database import model_of, open_database
from tests.client.script import Script
from tests.client.scripted_server import start_server
from tests.support.serving import LoopThread, running_server

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SRT = """\ufeff1\r
00:00:01,000 --> 00:00:02,500\r
<i>The dog\r
is barking.</i>\r
\r
2\r
00:00:03,000 --> 00:00:04,000\r
\r
3\r
00:01:03,000 --> 00:01:04,000 X1:40 X2:600\r
I would like to drink a cup of coffee before we go home.\r
"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    settings = Settings(
        bundles=ROOT / "bundles",
        models=("bert-en-de", "en-de", "en-fr"),
        host="127.0.0.1",
        port=0,
        metrics_port=-1,
        lame_duck_seconds=0.0,
    )
    loop = LoopThread()
    try:
        with running_server(loop, settings) as running:
            yield f"127.0.0.1:{running.server.port}"
    finally:
        loop.close()


@pytest.fixture
def run(address: str, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(name: str, *arguments: str, text: str = "", target: str = address):
        command = [sys.executable, str(ROOT / "examples" / name), *arguments, "--target", target]
        return subprocess.run(
            command, cwd=tmp_path, input=text, capture_output=True, text=True, timeout=120
        )

    return run


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_short_and_says_how_to_run_it(path: Path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 80
    assert f"\n    python examples/{path.name} " in text
    assert path.name in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_paragraph_that_answers_a_question_is_found_in_either_language(run, tmp_path):
    (tmp_path / "texts" / "more").mkdir(parents=True)
    (tmp_path / "texts" / "a.txt").write_text(
        "The dog is barking.\n\nThe shop opens\nat nine o'clock.\n", encoding="utf-8"
    )
    (tmp_path / "texts" / "more" / "b.txt").write_text(
        "\nIch mag Musik.\n\n" + "sehr " * 5000, encoding="utf-8"
    )

    done = run("semantic_search.py", "texts", "Wann öffnet der Laden?", "--num-results", "2")

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("texts/a.txt:3 The shop opens at nine o'clock.")
    assert done.stderr.startswith("texts/more/b.txt:4 is left out: ")


def test_paragraphs_know_their_first_lines(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n\n \n\nthree", encoding="utf-8")
    assert [(p.line, p.text) for p in paragraphs(path)] == [(1, "one two"), (6, "three")]


def test_translations_are_found_among_shuffled_sentences(run, tmp_path):
    english = ["The dog is barking.", "I like music.", "Where do you live?", "It is raining."]
    german = ["Wo wohnst du?", "Es regnet.", "Der Hund bellt.", "Ich mag Musik.", "Acht plus zwei."]
    (tmp_path / "en.txt").write_text("\n".join(english), encoding="utf-8")
    (tmp_path / "de.txt").write_text("\n\n".join(german), encoding="utf-8")

    done = run("mine_pairs.py", "en.txt", "de.txt")

    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert {tuple(row[1:]) for row in rows} == {
        ("The dog is barking.", "Der Hund bellt."),
        ("I like music.", "Ich mag Musik."),
        ("Where do you live?", "Wo wohnst du?"),
        ("It is raining.", "Es regnet."),
    }
    scores = [float(row[0]) for row in rows]
    assert scores == sorted(scores, reverse=True)


def test_only_pairs_that_are_each_others_best_are_mined():
    scores = np.array([[1.5, 1.0], [1.4, 1.2], [0.0, 1.1]])
    assert list(mine(scores, 1.0)) == [(1.5, 0, 0)]
    assert list(mine(scores, 1.6)) == []


def test_a_margin_is_the_cosine_relative_to_those_of_the_nearest_neighbours():
    first, second = np.eye(2), np.array([[1.0, 0.0], [0.6, 0.8]])
    # Cosines: [[1, 0.6], [0, 0.8]]; means of rows 0.8, 0.4, of columns 0.5, 0.7.
    expected = [[1 / 0.65, 0.6 / 0.75], [0.0, 0.8 / 0.55]]
    np.testing.assert_allclose(margins(first, second), expected)


def test_the_clearest_heads_of_both_networks_are_drawn(run):
    done = run("attention_heads.py", "The cat is sleeping on the sofa.")

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("encoder, layer") == done.stdout.count("decoder, layer") == 5
    assert "translation: Die Katze schläft auf dem Sofa." in done.stdout
    before = done.stdout.split("the token before (")[1].splitlines()
    assert before[2].startswith("     ▁cat ██")  # "cat" looks at "The", the first column


def test_the_clearest_head_of_a_kind_has_the_greatest_share_at_its_place():
    uniform = np.full((4, 4), 0.25)
    shifted = np.eye(4, k=-1)
    shifted[0, 0] = 1.0
    weights = np.stack([np.stack([uniform, np.eye(4)]), np.stack([shifted, uniform])])
    found = {kind: (share, layer, head) for kind, share, layer, head in clearest(weights)}
    assert found["the token before"] == (1.0, 1, 0)
    assert found["itself"] == (1.0, 0, 1)
    assert found["the token after"] == (0.25, 0, 0)


def test_a_folder_without_texts_is_named(run, tmp_path):
    (tmp_path / "texts").mkdir()
    done = run("semantic_search.py", "texts", "Why?")
    assert (done.returncode, done.stderr) == (1, "texts has no paragraphs in *.txt files\n")


def test_texts_are_kept_with_their_vectors_and_found_in_either_language(run, tmp_path):
    texts = ["The dog is barking.", "The shop opens at nine o'clock.", "very " * 5000, "", "Hello."]
    (tmp_path / "a.txt").write_text("\n".join(texts), encoding="utf-8")
    (tmp_path / "b.txt").write_text("Ich mag Musik.\n", encoding="utf-8")

    added = [run("vector_database.py", "notes.db", "--add", name) for name in ("a.txt", "b.txt")]
    found = run("vector_database.py", "notes.db", "Wann öffnet der Laden?", "--num-results", "2")
    music = run("vector_database.py", "notes.db", "I like music.", "--num-results", "9")

    assert [done.returncode for done in (*added, found, music)] == [0, 0, 0, 0], found.stderr
    assert added[0].stderr.startswith("left out: ")
    first, _ = found.stdout.splitlines()
    assert first.endswith(" The shop opens at nine o'clock.")
    cosines, rest = zip(*(line.split(" ", 1) for line in music.stdout.splitlines()), strict=True)
    assert len(rest) == 4
    assert rest[0] == "Ich mag Musik."
    assert list(cosines) == sorted(cosines, reverse=True)


def test_a_database_without_texts_is_named(run):
    done = run("vector_database.py", "notes.db", "Why?")
    assert (done.returncode, done.stderr) == (1, "notes.db has no texts\n")


def test_vectors_of_another_model_are_refused(address, tmp_path, run):
    (tmp_path / "a.txt").write_text("Hello.", encoding="utf-8")
    assert run("vector_database.py", "notes.db", "--add", "a.txt").returncode == 0
    with Client(address) as client:
        database = open_database(str(tmp_path / "notes.db"), client)
        assert model_of(database) == "bert-en-de/2"
        database.execute("UPDATE model SET name = 'bert-en-de/1'")
        database.close()
    done = run("vector_database.py", "notes.db", "Hello?")
    assert done.returncode == 1
    assert "no such model" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_without_sentences_is_named(run, tmp_path):
    (tmp_path / "en.txt").write_text("\n \n", encoding="utf-8")
    done = run("mine_pairs.py", "en.txt", "en.txt")
    assert (done.returncode, done.stderr) == (1, "en.txt has no sentences\n")


def test_subtitles_are_translated_into_several_languages_with_their_times(run, tmp_path):
    (tmp_path / "film.srt").write_bytes(SRT.encode())

    done = run("translate_subtitles.py", "film.srt", "--to", "de", "--to", "fr")

    assert done.returncode == 0, done.stderr
    for language, word in {"de": "Hund", "fr": "chien"}.items():
        text = (tmp_path / f"film.{language}.srt").read_text(encoding="utf-8")
        given, found = parse(SRT.removeprefix("\ufeff").replace("\r\n", "\n")), parse(text)
        assert [each[:2] for each in found] == [each[:2] for each in given]
        assert word in found[0].text
        assert found[1].text == ""
        assert found[2].text
        assert all(len(line) <= 42 for line in text.splitlines())


def test_existing_subtitles_are_not_overwritten(run, tmp_path):
    (tmp_path / "film.srt").write_bytes(SRT.encode())
    (tmp_path / "film.de.srt").write_text("mine", encoding="utf-8")

    done = run("translate_subtitles.py", "film.srt", "--to", "de")

    assert done.returncode == 1
    assert "film.de.srt" in done.stderr
    assert (tmp_path / "film.de.srt").read_text(encoding="utf-8") == "mine"


def test_subtitles_are_read():
    assert parse(
        "1\n0:00:01.000 --> 0:00:02.000\nA <b>b</b>\nc\n\n \n2\n0:00:03,000 --> 0:00:04,000"
    ) == [
        Subtitle("1", "0:00:01.000 --> 0:00:02.000", "A b c"),
        Subtitle("2", "0:00:03,000 --> 0:00:04,000", ""),
    ]


@pytest.mark.parametrize("block", ["", "no number", "1\n12 o'clock\nText", "1"])
def test_a_block_that_is_no_subtitle_is_named(block: str):
    with pytest.raises(ValueError, match=re.escape(repr(block))):
        parse(block)


def test_lines_are_translated_as_streams(run):
    done = run("stream_in_terminal.py", text="I like to read books.\n\nWhere do you live?\n")

    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert re.fullmatch(r"\S.*\S   \(-?\d\.\d\d\)", first)
    assert second.startswith("Wo ")


def test_a_failed_stream_does_not_end_the_program(run):
    done = run("stream_in_terminal.py", "--model", "none", text="Hello.\nHello.\n")

    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"\(failed: model: no such model.*\)", done.stdout)) == 2


def test_ctrl_c_cancels_the_translation_that_is_running_and_the_next_line_is_translated():
    script = Script()
    server, scripted = start_server(script)
    command = [sys.executable, str(ROOT / "examples/stream_in_terminal.py"), "--target", scripted]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"a slow text\n")
        process.stdin.flush()
        assert process.stdout.read(2) == b"A "
        process.send_signal(signal.SIGINT)
        # More words of the slow text may arrive before the signal does.
        assert process.stdout.readline().endswith(b" (cancelled)\n")
        assert script.ended.wait(10)
        output, _ = process.communicate(b"a text\n", timeout=30)
    server.stop(None).wait()
    assert process.returncode == 0
    assert output.startswith(b"A TEXT")


def interrupted(process: subprocess.Popen[bytes]) -> bytes:
    """The standard error of a program after Ctrl-C.

    A signal just before the program waits for a line is lost, so it is sent again.
    """
    for _ in range(10):
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=3)[1]
    process.kill()
    raise AssertionError("the program does not end")


def test_ctrl_c_at_the_prompt_ends_the_program_quietly(address):
    terminal, inside = pty.openpty()
    command = [sys.executable, str(ROOT / "examples/stream_in_terminal.py"), "--target", address]
    with subprocess.Popen(
        command, stdin=inside, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.read(2)
        errors = interrupted(process)
    os.close(terminal)
    os.close(inside)
    assert (process.returncode, errors) == (0, b"")


@pytest.mark.parametrize(
    "arguments",
    [("semantic_search.py", "texts", "Why?"), ("translate_subtitles.py", "film.srt", "--to", "de")],
    ids=lambda arguments: arguments[0],
)
def test_a_server_that_does_not_answer_is_one_line_on_the_standard_error(run, tmp_path, arguments):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("Because.", encoding="utf-8")
    (tmp_path / "film.srt").write_bytes(SRT.encode())

    done = run(*arguments, target="127.0.0.1:1")

    assert done.returncode == 1
    assert "127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr
