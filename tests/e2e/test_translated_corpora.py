"""The command that translates a corpus, with real servers of a built-in model."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from attendant_client import Client
from attendant_export.__main__ import main
from attendant_export.corpora import local_server, translation
from attendant_export.corpora.output import OpenOutput
from attendant_export.data.text_files import read_pairs
from attendant_server.application.bulk_stream import BulkStream, BulkText
from attendant_server.errors import AttendantError, DeadlineExceeded, ModelFailed
from attendant_server.settings import Settings

from tests.support.corpora import write_samples
from tests.support.serving import LoopThread, Running, running_server, wait_until

BUILT_IN = Path(__file__).parents[2] / "bundles"
SUBJECTS = ("The dog", "My sister", "A man", "The old woman")
THINGS = ("a book", "the house", "my car", "two apples", "the new school")
ENDS = (" here.", " today.", " again.")
NUM_REPEATED = 10
"""How often the texts are repeated where a kill must come before the end."""
TEXTS = [f"{subject} sees {thing}{end}" for subject in SUBJECTS for thing in THINGS for end in ENDS]


@pytest.fixture(scope="module")
def server(loop: LoopThread) -> Iterator[Running]:
    settings = Settings(
        bundles=BUILT_IN,
        models=("en-de",),
        host="127.0.0.1",
        port=0,
        metrics_host="127.0.0.1",
        metrics_port=0,
        lame_duck_seconds=0.0,
        num_threads=1,
        max_text_characters=100,
    )
    with running_server(loop, settings) as running:
        yield running


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "english.txt"
    file.write_text("".join(f"{line}\n" for line in TEXTS), encoding="utf-8")
    return file


@pytest.fixture
def command(server: Running, text: Path, tmp_path: Path) -> list[str]:
    target = f"127.0.0.1:{server.server.port}"
    place = ["--target", target, "--model", "en-de", "--output", str(tmp_path / "pairs.tsv")]
    return ["translate-corpus", "--text", str(text), *place]


def is_listening(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def refusal(capsys: pytest.CaptureFixture[str], command: list[str], code: int = 2) -> str:
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == code
    return capsys.readouterr().err


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> list[AttendantError]:
    """Errors that the server answers, one each time that it has the fourth text alone."""
    begin, found = BulkStream.__init__, list[AttendantError]()

    def begin_faulty(stream: Any, answer: Callable[..., Awaitable[Any]], *rest: Any) -> None:
        async def fail_or_answer(number: int, texts: Sequence[BulkText]) -> Any:
            if found and TEXTS[3] in [text.text for text in texts]:
                raise found.pop() if len(texts) == 1 else found[-1]
            return await answer(number, texts)

        begin(stream, fail_or_answer, *rest)

    monkeypatch.setattr(BulkStream, "__init__", begin_faulty)
    return found


def test_a_killed_translation_continues_with_each_text_exactly_once_in_order(
    server: Running, text: Path, tmp_path: Path
) -> None:
    texts = [f"{number}: {each}" for number in range(NUM_REPEATED) for each in TEXTS]
    text.write_text("".join(f"{line}\n" for line in texts), encoding="utf-8")
    record, target = tmp_path / ".pairs.tsv.json", f"127.0.0.1:{server.server.port}"
    arguments = [str(BUILT_IN / "en-de" / "2"), str(text), str(tmp_path / "pairs.tsv")]

    def num_texts() -> int:
        return json.loads(record.read_text())["num_texts"] if record.exists() else 0

    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.corpora", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=BUILT_IN.parent,
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().rpartition(":")[2])
        wait_until(lambda: num_texts() >= 10)
        process.kill()
    assert 10 <= num_texts() < len(texts)
    assert not (tmp_path / "pairs.tsv").exists()
    wait_until(lambda: not is_listening(port))  # The server has ended with the killed process.

    for name in ("pairs.tsv", "whole.tsv"):
        write_samples(text, tmp_path / name, target)
    assert read_pairs(tmp_path / "pairs.tsv") == read_pairs(tmp_path / "whole.tsv")
    assert [source for source, _ in read_pairs(tmp_path / "pairs.tsv")] == texts


def test_pairs_are_the_translations_of_the_model_and_backward_ones_are_swapped(
    server: Running, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*command, "--beam-size=2"])
    output = capsys.readouterr().out
    main([*command[:-1], str(tmp_path / "backward.tsv.gz"), "--beam-size=2", "--backward"])

    with Client(f"127.0.0.1:{server.server.port}") as client:
        results = client.translate(TEXTS, model="en-de", beam_size=2)
    pairs = [(text, each.text) for text, each in zip(TEXTS, results, strict=True)]
    assert read_pairs(tmp_path / "pairs.tsv") == pairs
    assert read_pairs(tmp_path / "backward.tsv.gz", swap=True) == pairs
    assert f"pairs.tsv: {len(TEXTS)} pairs\nmean log-probability of a token: " in output


def test_a_bundle_is_served_by_a_process_that_ends_with_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTENDANT_PORT", "no port")  # A setting of another server.
    started: list[subprocess.Popen[str]] = []
    stop = local_server._stop

    def note_and_stop(process: "subprocess.Popen[str]") -> None:
        started.append(process)
        stop(process)

    monkeypatch.setattr(local_server, "_stop", note_and_stop)
    text = tmp_path / "text.tsv"
    lines = ["Good morning.\tx", "Good morning.\ty", "#1\tz", "", "Hello\tz"]
    text.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    output = tmp_path / "new" / "pairs.tsv"
    options = ["--filter=duplicates", "--filter=copies", "--column=1", "--num-threads=1"]
    command = ["translate-corpus", "--text", str(text), "--output", str(output), *options]

    main([*command, "--bundle", str(BUILT_IN / "en-de" / "2")])

    assert [source for source, _ in read_pairs(output)] == ["Good morning.", "Hello"]
    assert "2 pairs; left out: 1 copies, 1 blank, 1 duplicates\n" in capsys.readouterr().out
    assert started[0].returncode == 0


def test_texts_that_the_server_refuses_are_left_out_and_named(
    command: list[str],
    text: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    text.write_text(f"Good morning.\n{'a' * 101}\nHello.\n", encoding="utf-8")

    main(command)

    assert "2 pairs; left out: 1 refused by the server\n" in capsys.readouterr().out
    assert f"{text}:2: at most 100 characters, got 101" in caplog.text


@pytest.mark.parametrize("num_faults", [1, 2])
def test_a_text_on_which_the_model_fails_is_sent_again_and_then_left_out(
    num_faults: int,
    command: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    faults: list[AttendantError],
) -> None:
    faults += [ModelFailed("the model failed")] * num_faults

    main(command)

    kept = TEXTS if num_faults == 1 else [*TEXTS[:3], *TEXTS[4:]]
    assert [source for source, _ in read_pairs(tmp_path / "pairs.tsv")] == kept
    assert ("left out: 1 failed in the server" in capsys.readouterr().out) == (num_faults == 2)


def test_a_fault_that_may_pass_ends_the_translation_until_it_is_continued(
    command: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    faults: list[AttendantError],
) -> None:
    faults += [DeadlineExceeded("the deadline passed")]

    message = refusal(capsys, command, code=1)

    assert "the server failed: the deadline passed; run the same command again" in message
    main(command)
    assert [source for source, _ in read_pairs(tmp_path / "pairs.tsv")] == TEXTS


def test_a_translation_without_any_result_is_not_finished_but_begins_anew(
    command: list[str],
    text: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    faults: list[AttendantError],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(translation, "SAVE_SECONDS", 0.0)
    text.write_text(f"{TEXTS[3]}\n", encoding="utf-8")
    faults += [ModelFailed("the model failed")] * 2

    message = refusal(capsys, command, code=1)

    assert "no text was translated: 1 failed in the server" in message
    main(command)
    assert [source for source, _ in read_pairs(tmp_path / "pairs.tsv")] == [TEXTS[3]]


def test_all_texts_are_translated_by_the_version_that_was_the_default_at_the_start(
    command: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    faults: list[AttendantError],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called: list[str] = []
    bulk_translate = Client.bulk_translate

    def note_and_translate(client: Client, *texts: Any, model: str, **options: Any) -> Any:
        called.append(model)
        return bulk_translate(client, *texts, model=model, **options)

    monkeypatch.setattr(Client, "bulk_translate", note_and_translate)
    monkeypatch.setattr(translation, "SAVE_SECONDS", 0.0)
    faults += [DeadlineExceeded("the deadline passed"), ModelFailed("the model failed")]
    refusal(capsys, command, code=1)
    record = tmp_path / ".pairs.tsv.json"
    begun = record.read_text()
    record.write_text(begun.replace("en-de/3", "en-de/1"))  # A version that was replaced since.

    message = refusal(capsys, command)

    assert called == ["en-de/3", "en-de/3"]  # The second call is of the text that failed.
    assert "refuses to translate: model: no such model; there are en-de/3" in message


def test_changed_text_and_options_are_refused_by_name_and_a_complete_file_is_kept(
    command: list[str], text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*command, "--beam-size=1"])
    written = (tmp_path / "pairs.tsv").stat()
    main([*command, "--beam-size=1"])
    assert (tmp_path / "pairs.tsv").stat() == written
    main([*command, "--beam-size=1", "--target=127.0.0.1:1"])  # Needs no server.

    text.write_text("Something else.\n", encoding="utf-8")
    message = refusal(capsys, [*command, "--beam-size=2"])

    assert "pairs.tsv was begun with other values of --text, --beam-size; " in message


def test_an_unknown_model_and_a_missing_server_are_named(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    message = refusal(capsys, [*command, "--model=fr-de"])
    assert "refuses to translate: model: no such model; there are en-de/3" in message
    message = refusal(capsys, [*command, "--target=127.0.0.1:1"], code=1)
    assert "127.0.0.1:1: " in message
    assert "run the same command again to continue" in message


def test_an_interrupt_ends_the_translation_and_names_the_way_to_continue(
    command: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    append = OpenOutput.append

    def append_and_interrupt(output: OpenOutput, pairs: list[tuple[str, str]]) -> None:
        append(output, pairs)
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(translation, "SAVE_SECONDS", 0.0)
        patched.setattr(OpenOutput, "append", append_and_interrupt)
        message = refusal(capsys, command, code=128 + signal.SIGINT)

    assert "stopped by SIGINT; run the same command again to continue" in message
    main(command)
    assert [source for source, _ in read_pairs(tmp_path / "pairs.tsv")] == TEXTS


def test_translations_that_began_to_repeat_themselves_are_left_out(
    text: Path, command: list[str], tmp_path: Path
) -> None:
    repetitive = "Help Customers Find Your Content"
    text.write_text(f"{TEXTS[0]}\n{repetitive}\n{TEXTS[1]}\n", encoding="utf-8")
    main([*command, "--beam-size", "1"])
    assert [source for source, _ in read_pairs(tmp_path / "pairs.tsv")] == TEXTS[:2]
