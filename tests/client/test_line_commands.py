"""Subcommands of `attendant` that read lines: one line out for each line in, whatever happens."""

import io
import json
import re

import numpy as np
import pytest
from attendant.v1 import text_pb2
from google.rpc import code_pb2

from tests.client.script import Fault

FILLED = "0.5000 word1\t0.2500 word2"
COMMANDS = {
    "translate": ("a dog", "A DOG"),
    "score": ("a\tb", "-1.0000"),
    "embed": ("aab", "3 2 1"),
    "embed-sparse": ("abb", "2.0000 b\t1.0000 a"),
    "fill --top-k 2": (
        "[MASK] [MASK]",
        f"{FILLED}\t|\t{FILLED}",
    ),
    "classify": ("aab", "2.0000 a\t1.0000 b"),
    "classify --pairs --top-k 1": ("a\tab", "2.0000 a"),
    "detect": ("aab", "0.6667 a"),
    "detect --languages a,b --max-results 2": ("aab", "0.6667 a\t0.3333 b"),
    "tokenize": ("a dog", "a dog </s>"),
    "tokenize --ids": ("a dog", "1 3 1"),
}
KEYS = {
    "translate": ["text", "hypotheses", "num_source_tokens", "truncation"],
    "score": ["source", "target", "score", "log_probability", "num_source_tokens", "truncation"],
    "embed": ["text", "vector", "scale", "num_tokens", "truncation"],
    "embed-sparse": ["text", "token_ids", "weights", "tokens", "num_tokens", "truncation"],
    "fill": ["text", "masks", "fillings", "truncation"],
    "classify": ["text", "labels", "truncation"],
    "classify --pairs": ["text", "text_pair", "labels", "truncation"],
    "detect": ["text", "languages"],
    "tokenize": ["text", "tokens"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_each_line_gives_a_line_and_blank_or_bad_ones_give_a_blank_one(attendant, command):
    text, shown = COMMANDS[command]
    lines = f"{text}\n\n{text}\n \t\n".encode() + b"\xff\n" + text.encode()
    code, out, err = attendant(*command.split(), "--batch-size", "2", stdin=lines)
    assert (code, out) == (1, f"{shown}\n\n{shown}\n\n\n{shown}\n")
    assert err == "attendant: line 5: is not UTF-8 at byte 0\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_texts_of_the_command_line_are_printed_alike(attendant, command):
    text, shown = COMMANDS[command]
    assert attendant(*command.split(), *text.split("\t")) == (0, f"{shown}\n", "")


@pytest.mark.parametrize("command", KEYS)
def test_the_keys_of_json_do_not_depend_on_success(attendant, command):
    text = COMMANDS.get(command, COMMANDS.get(f"{command} --top-k 1", ("[MASK]", "")))[0]
    lines = f"{text}\n\n".encode() + b"\xff\n"
    code, out, _ = attendant(*command.split(), "--json", stdin=lines)
    found = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert [list(each) for each in found] == [["line", *KEYS[command], "error"]] * 3
    assert [each["line"] for each in found] == [1, 2, 3]
    assert [each["error"] for each in found] == [None, None, "is not UTF-8 at byte 0"]
    assert found[0][KEYS[command][-1 if command == "tokenize" else -2]] is not None


@pytest.mark.parametrize("command", ["translate", "score"])
def test_tokens_are_in_the_json_only_if_asked_for(attendant, script, command):
    text = COMMANDS[command][0].encode()
    for flags in ([], ["--tokens"]):
        _, out, _ = attendant(command, "--json", *flags, stdin=text)
        assert ('"tokens": [{"id": ' in out) is bool(flags)
    sent = [getattr(request, "options", request).return_tokens for request in script.requests]
    assert sent == [False, True]


def test_links_of_words_are_in_the_json_only_if_asked_for(attendant):
    for flags in ([], ["--alignments"]):
        _, out, _ = attendant("translate", "--json", *flags, stdin=b"a")
        assert ('"alignments": [{"source_start": 0' in out) is bool(flags)


@pytest.mark.parametrize("text", ["one", "a\tb\tc"])
def test_a_line_with_another_number_of_columns_is_a_fault(attendant, text):
    code, out, err = attendant("score", stdin=f"{text}\na\tb".encode())
    number = text.count("\t") + 1
    assert (code, out) == (1, "\n-1.0000\n")
    assert err == f"attendant: line 1: has {number} columns, must have 2, separated by a tab\n"


def test_a_stream_goes_on_after_a_fault(attendant, script):
    script.faults = [Fault(code_pb2.INVALID_ARGUMENT, "text: at most 64 tokens, got 80")]
    code, out, err = attendant("translate", "--stream", stdin=b"too long\none two")
    assert (code, out) == (1, "\nONE TWO\n")
    assert err == "attendant: line 1: at most 64 tokens, got 80\n"


def test_the_request_id_is_sent(attendant, script):
    for command in COMMANDS:
        attendant(*command.split(), "--request-id", "mine", stdin=COMMANDS[command][0].encode())
    attendant("models", "--request-id", "mine")
    assert {metadata["x-request-id"] for metadata in script.metadata} == {"mine"}


def test_a_text_that_no_utf8_has_is_a_fault_of_its_line(attendant):
    code, out, err = attendant("translate", "--json", "\udcff")
    assert code == 1
    assert "line" not in err
    assert err == "attendant: text 1: has the lone surrogate U+DCFF at character 0\n"
    assert json.loads(out)["text"] == "\udcff"


def test_a_file_is_written_and_never_overwritten(attendant, tmp_path):
    source, output = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_text("a\n\nb")
    command = ["translate", "--input", str(source), "--output", str(output)]
    assert attendant(*command) == (0, "", "")
    assert output.read_text() == "A\n\nB\n"
    code, _, err = attendant(*command)
    assert code == 1
    assert "exists; continue it with --resume" in err
    assert output.read_text() == "A\n\nB\n"


def test_a_run_that_fails_can_be_resumed(attendant, tmp_path, script):
    output = tmp_path / "out.jsonl"
    command = ["embed", "--json", "--batch-size", "1", "--output", str(output), "--resume"]
    fail = Fault(code_pb2.INTERNAL)
    script.change = lambda _: script.faults.append(fail) if not script.faults else None
    assert attendant(*command, stdin=b"a\nb\nc") == (1, "", "attendant: as scripted\n")
    script.change, script.faults = None, []
    assert attendant(*command, stdin=b"a\nb\nc")[0] == 0
    assert [json.loads(line)["line"] for line in output.read_text().splitlines()] == [1, 2, 3]
    assert [request.texts for request in script.requests] == [["a"], ["b"], ["c"]]


def test_a_file_of_numpy_has_a_row_for_each_line(attendant, tmp_path):
    path = tmp_path / "vectors.npy"
    command = ["embed", "--batch-size", "2", "--output", str(path)]
    code, out, err = attendant(*command, stdin=b"aab\n\nb\n\xff\n")
    assert (code, out, err) == (1, "", "attendant: line 4: is not UTF-8 at byte 0\n")
    vectors = np.load(path)
    assert vectors.dtype == np.float32
    assert vectors[[0, 2]].tolist() == [[3, 2, 1], [1, 0, 1]]
    assert np.isnan(vectors[[1, 3]]).all()
    assert attendant(*command, stdin=b"a")[0] == 1


def test_progress_is_shown_on_a_terminal_only(attendant, tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    source, shown = tmp_path / "in.txt", Terminal()
    source.write_text("a\nb\nc\n")
    monkeypatch.setattr("sys.stderr", shown)
    attendant("translate", "--input", str(source), "--output", str(tmp_path / "out.txt"))
    last = shown.getvalue().split("\r\x1b[K")[-1]
    assert re.fullmatch(r"\[#{30}\] 3 of 3 lines, [\d,.]+ lines/s, 0 s left\n", last)


@pytest.mark.parametrize("command", [each for each in COMMANDS if not each.startswith("detect")])
def test_every_command_of_models_lets_texts_be_normalized_or_not(attendant, script, command):
    text, shown = COMMANDS[command]
    options = *command.split(), "--text-normalization", "standard"
    assert attendant(*options, *text.split("\t")) == (0, f"{shown}\n", "")
    assert script.requests[-1].text_normalization == text_pb2.TEXT_NORMALIZATION_STANDARD


@pytest.mark.parametrize("command", ["similarity", "rerank"])
def test_comparisons_let_texts_be_normalized_or_not(attendant, script, command):
    assert attendant(command, "a", "b", "--text-normalization", "none")[0] == 0
    assert script.requests[-1].text_normalization == text_pb2.TEXT_NORMALIZATION_NONE


def test_prefixes_samples_and_unknown_tokens_have_flags(attendant, script):
    flags = ["--target-prefix", "B", "--sample", "--min-p", "0.25", "--no-allow-unknown"]
    assert attendant("translate", "a", *flags)[0] == 0
    request = script.requests[-1]
    assert list(request.target_prefixes) == ["B"]
    assert request.options.sampling.min_p == 0.25
    assert request.options.HasField("allow_unknown")
    assert not request.options.allow_unknown
    assert not request.options.replace_unknown
    assert attendant("translate", "a", "--replace-unknown")[0] == 0
    assert script.requests[-1].options.replace_unknown


@pytest.mark.parametrize("size", [1, 2, 9])
def test_the_samples_of_a_line_depend_on_its_place_only(attendant, script, size):
    options = "--sample", "--seed", "7", "--batch-size", str(size)
    lines = b"a\nb\n\nd\n\xff\nf\ng\n"
    assert attendant("translate", *options, stdin=lines)[0] == 1
    places = {
        text: request.options.sampling.first_index + i
        for request in script.requests
        for i, text in enumerate(request.texts)
    }
    assert places == {"a": 0, "b": 1, "d": 3, "f": 5, "g": 6}
    script.requests.clear()
    assert attendant("translate", "--stream", *options, stdin=b"a\n\nc\n")[0] == 0
    assert [each.options.sampling.first_index for each in script.requests] == [0, 2]
