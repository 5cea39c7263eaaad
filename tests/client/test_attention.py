"""Attention weights by the client, and as the `attendant attention` command draws them."""

import base64
import json
import re
import sys
from dataclasses import replace

import attendant_client
import numpy as np
import pytest
from attendant_client import CallReport, InvalidRequestError, ServerError, TextError
from attendant_client.__main__ import main
from attendant_client.attention_maps import AttentionMap, attention_map
from attendant_client.attention_text import map_lines
from attendant_client.results import Token
from google.rpc import code_pb2

from tests.client.script import Fault

TEXT, TARGET = "the dog sees", "der Hund sieht"
CALL = CallReport("m/1", 3, 0, None, None, None, None)


@pytest.fixture
def attendant(address, capsys, monkeypatch):
    """Run the command against the server; return exit code, output and errors."""

    def run(*arguments):
        monkeypatch.setenv("ATTENDANT_TARGET", address)
        monkeypatch.setenv("COLUMNS", "80")
        code = main(["attention", *arguments])
        return code, *capsys.readouterr()

    return run


def tokens(*words: str) -> tuple[Token, ...]:
    text = " ".join(words)
    starts = [text.index(word) for word in words]
    spans = zip(words, starts, strict=True)
    return tuple(Token(7, f"\u2581{w}", start, start + len(w), False) for w, start in spans)


def recurrent() -> attendant_client.Attention:
    """The attention of a model whose first decoder layer is recurrent, for the text "a b"."""
    source = tokens("a", "b")
    decoder = np.zeros((2, 2, 2, 2), np.float32)
    decoder[1, 0] = np.array([[1, 0], [0.25, 0.75]])
    even = np.full((2, 2, 2, 2), 0.5, np.float32)
    heads: dict[str, tuple[int, ...]] = {"encoder": (2, 2), "decoder": (0, 1), "cross": (2, 2)}
    return attendant_client.Attention(
        source, "A B", tokens("A", "B"), tokens("s", "A"), even, decoder, even, heads, CALL
    )


def drawn(weights, queries, keys, width=80, has_colour=False, has_blocks=True):
    found = AttentionMap("title", np.array(weights, np.float32), queries, keys)
    return list(map_lines(found, width, has_colour, has_blocks))


def test_the_weights_are_arrays_between_tokens(client, script):
    found = client.attention(TEXT, TARGET, model="upper/1", text_normalization="none")
    assert found.encoder.shape == found.cross.shape == found.decoder.shape
    assert found.encoder.shape == (2, 2, len(found.source_tokens), len(found.source_tokens))
    np.testing.assert_allclose(found.cross.sum(axis=-1), 1, atol=1e-6)
    assert found.num_heads == {"encoder": (2, 2), "decoder": (2, 2), "cross": (2, 2)}
    assert found.target == TARGET
    assert found.decoder_tokens[1:] == found.target_tokens[:-1]
    [request] = script.requests
    assert (request.text, request.target, request.text_normalization) == (TEXT, TARGET, 1)


def test_without_a_target_none_is_sent(client, script):
    assert client.attention(TEXT).target == TEXT.upper()
    assert not script.requests[0].HasField("target")


def test_a_text_that_cannot_be_sent_is_an_error(client, script):
    with pytest.raises(TextError):
        client.attention("a\ud800")
    assert not script.calls


def test_weights_that_do_not_fit_the_tokens_are_a_bad_answer(client, script):
    script.change = lambda response: response.source_tokens.add()
    with pytest.raises(ServerError, match="attention of shape"):
        client.attention(TEXT)


def test_the_command_draws_cross_attention(attendant, script):
    code, out, err = attendant(TEXT, "--translation", TARGET, "--model", "upper/1", "--to", "de")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == TARGET
    assert lines[2] == "cross-attention of upper/1, layer 1, mean of 2 heads"
    assert sum(line.lstrip().startswith(("der ", "Hund ", "sieht ")) for line in lines[3:]) == 3
    assert "\x1b" not in out
    [request] = script.requests
    assert (request.target, request.target_language) == (TARGET, "de")


def test_the_command_draws_the_chosen_kinds_layer_and_head(attendant):
    code, out, _ = attendant(TEXT, "--kind", "all", "--layer", "1", "--head", "1")
    titles = [line for line in out.splitlines() if " of upper/1, layer 1, head 1" in line]
    kinds = [title.partition(" of ")[0] for title in titles]
    assert (code, kinds) == (
        0,
        ["encoder self-attention", "decoder self-attention", "cross-attention"],
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--layer", "2"), "--layer must be between 0 and 1 for cross-attention, got 2"),
        (("--head", "-1"), "--head must be between 0 and 1 for cross-attention, got -1"),
    ],
)
def test_numbers_that_the_model_lacks_are_refused(attendant, flags, message):
    assert attendant(TEXT, *flags) == (1, "", f"attendant: {message}\n")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--output", "a.jpg"), "--output takes a file whose name ends with .html or .png"),
        (("--output", "a.html", "--json"), "--json and --output do not work together"),
    ],
)
def test_flags_that_do_not_fit_are_wrong_usage(attendant, capsys, script, flags, message):
    with pytest.raises(SystemExit, match="2"):
        attendant(TEXT, *flags)
    assert message in capsys.readouterr().err
    assert not script.calls


def test_json_has_all_weights(attendant):
    code, out, _ = attendant(TEXT, "--json")
    found = json.loads(out)
    assert code == 0
    assert np.array(found["cross"]).shape[:2] == (2, 2)
    assert found["target"] == TEXT.upper()


def test_an_error_of_the_server_is_shown(attendant, script):
    script.faults.append(Fault(code_pb2.FAILED_PRECONDITION, "model: has no attention graph"))
    code, out, err = attendant(TEXT)
    assert (code, out) == (1, "")
    assert "model: has no attention graph" in err


def page_data(page: str):
    [data] = re.findall(r'<script id="data" type="application/json">(.*)</script>', page)
    return json.loads(data)


def test_the_page_has_all_weights_and_needs_nothing_else(attendant, tmp_path):
    path = tmp_path / "a.html"
    assert attendant(TEXT, "--output", str(path), "--head", "1") == (0, "", "")
    page = path.read_text(encoding="utf-8")
    addresses = set(re.findall(r"https?://[^\"']*", page))
    assert addresses <= {"http://www.w3.org/2000/svg"}, "a name, which nothing opens"
    assert "prefers-color-scheme: dark" in page
    data = page_data(page)
    assert list(data["kinds"]) == ["encoder", "decoder", "cross"]
    assert (data["layer"], data["head"]) == (None, 1)
    kind = data["kinds"]["cross"]
    shape = (2, 2, len(kind["queries"]), len(kind["keys"]))
    levels = np.frombuffer(base64.b64decode(kind["weights"]), "<u2").reshape(shape)
    np.testing.assert_allclose(levels[0] / 65535, 1 / shape[-1], atol=1e-4)


def test_texts_cannot_end_the_script_of_the_page(attendant, tmp_path):
    path = tmp_path / "a.html"
    text = "</script><img src=x onerror=alert(1)> <!-- &amp;"
    attendant(text, "--output", str(path))
    page = path.read_text(encoding="utf-8")
    assert "<img" not in page
    assert page.count("</script>") == 2
    assert page_data(page)["text"] == text


def test_an_image_is_written(attendant, tmp_path):
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "a.png"
    assert attendant(TEXT, "--output", str(path), "--kind", "encoder") == (0, "", "")
    with image.open(path) as found:
        assert found.format == "PNG"
        colours = {colour for _, colour in found.getcolors(100_000)}
    assert (8, 48, 107) in colours, "the largest weight has the strongest colour"
    assert (255, 255, 255) in colours


def test_a_missing_pillow_is_named_before_the_call(attendant, script, tmp_path, monkeypatch):
    for name in ("PIL", "PIL.Image"):
        monkeypatch.setitem(sys.modules, name, None)
    code, out, err = attendant(TEXT, "--output", str(tmp_path / "a.png"))
    assert (code, out) == (1, "")
    assert "pip install 'attendant-client[plot]'" in err
    assert not script.calls


@pytest.mark.parametrize("name", ["a.html", "a.png"])
def test_a_file_that_exists_is_kept(attendant, tmp_path, name):
    path = tmp_path / name
    path.write_text("kept")
    code, _, err = attendant(TEXT, "--output", str(path))
    assert (code, path.read_text()) == (1, "kept")
    assert "File exists" in err


def test_a_map_shows_larger_weights_by_darker_blocks():
    lines = drawn([[0.8, 0.2], [0, 0.4]], ["I", "me"], ["a", "be"])
    assert lines == [
        *("title", "", "     b", "   a e", " I ██░░", "me   ▒▒", ""),
        lines[-1],
    ]
    assert lines[-1].endswith("0.80")


def test_a_map_fits_the_terminal():
    weights = np.full((1, 50), 0.02)
    for width in (24, 40, 90):
        lines = drawn(weights, ["query"], ["k"] * 50, width)
        assert max(map(len, lines)) <= width
        assert sum(line.count("█") for line in lines[:-1]) in (50, 100)


def test_a_terminal_without_blocks_gets_ascii():
    lines = drawn([[0.8, 0.2]], ["I"], ["a", "b"], has_blocks=False)
    assert "I ##.." in lines
    assert all(line.isascii() for line in lines)


def test_colours_end_with_each_line():
    lines = drawn([[0.8, 0.2]], ["I"], ["a", "b"], has_colour=True)
    coloured = [line for line in lines if "\x1b" in line]
    assert len(coloured) == 2
    assert all(re.search(r"\x1b\[0m( [\d.]+)?$", line) for line in coloured)


@pytest.mark.parametrize(("no_colour", "is_coloured"), [("", True), ("1", False)])
def test_no_color_switches_colours_off(attendant, monkeypatch, no_colour, is_coloured):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", no_colour)
    _, out, _ = attendant(TEXT)
    assert ("\x1b[" in out) == is_coloured


def test_wide_letters_take_two_columns():
    lines = drawn([[1, 0]], ["犬"], ["犬", "b"], width=7)
    assert "   犬b" in lines
    assert "犬 ██" in lines


def test_recurrent_layers_are_left_out():
    found = attention_map(recurrent(), "a b", "decoder", None, None)
    assert found.title == "decoder self-attention of m/1, layer 1, mean of 1 heads"
    np.testing.assert_array_equal(found.weights, [[1, 0], [0.25, 0.75]])
    with pytest.raises(ValueError, match="--layer 0: this layer has no decoder self-attention"):
        attention_map(recurrent(), "a b", "decoder", 0, None)


def test_labels_cannot_move_the_cursor():
    found = recurrent()
    tokens = (Token(1, "\x1b[2J", 0, 0, True), Token(2, "\u2581", 0, 0, False))
    strange = replace(found, source_tokens=tokens)
    assert attention_map(strange, "a b", "encoder", None, None).keys == ["\ufffd[2J", "_"]


def test_a_kind_that_the_model_lacks_is_refused_by_name(attendant, script):
    def only_encoder(response):
        for name in ("decoder", "cross"):
            response.ClearField(name)

    script.change = only_encoder
    assert attendant(TEXT)[1].count("encoder self-attention") == 1
    code, _, err = attendant(TEXT, "--kind", "cross")
    assert (code, err) == (1, "attendant: --kind cross: upper/1 has encoder\n")


def test_the_representation_is_one_line(client):
    assert repr(client.attention("a")).startswith("Attention(encoder: (2, 2, ")


def test_errors_of_values_come_from_the_server(client, script):
    script.faults.append(Fault(code_pb2.INVALID_ARGUMENT, "text: at most 128 tokens, got 200"))
    with pytest.raises(InvalidRequestError, match="at most 128 tokens"):
        client.attention("a " * 200)
