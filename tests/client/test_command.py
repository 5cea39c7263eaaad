"""The `attendant` command: output, error messages and exit codes."""

import io
import json
import re
from pathlib import Path

import attendant_client
import grpc
import pytest
from attendant.v1 import model_pb2, text_pb2
from attendant_client.__main__ import main
from google.rpc import code_pb2

from tests.client.script import Fault


@pytest.fixture
def attendant(address, capsys, monkeypatch):
    """Run the command against the server; return exit code, output and errors."""

    def run(*arguments, stdin=None):
        monkeypatch.setenv("ATTENDANT_TARGET", address)
        if stdin is not None:
            content = stdin if isinstance(stdin, bytes) else stdin.encode()
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        code = main(list(arguments))
        return code, *capsys.readouterr()

    return run


def test_translate_prints_one_line_for_each_text(attendant):
    assert attendant("translate", "a dog", "a cat") == (0, "A DOG\nA CAT\n", "")


def test_translate_keeps_the_order_and_the_blank_lines_of_the_standard_input(attendant, script):
    code, out, err = attendant("translate", "--batch-size", "2", stdin="a\n\n \r\n\nb\nc")
    assert (code, out, err) == (0, "A\n\n\n\nB\nC\n", "")
    assert [list(request.texts) for request in script.requests] == [["a"], ["b", "c"]]


def test_other_line_separators_do_not_end_a_line(attendant, script):
    attendant("translate", stdin="a\u2028b\x0bc\rd\n")
    assert list(script.requests[0].texts) == ["a\u2028b\x0bc\rd"]


def test_a_byte_order_mark_is_not_part_of_the_text(attendant, script):
    attendant("translate", stdin=b"\xef\xbb\xbfa\n")
    assert list(script.requests[0].texts) == ["a"]


def test_translate_without_any_line_prints_nothing(attendant):
    assert attendant("translate", stdin="") == (0, "", "")


def test_a_line_that_fails_is_blank_and_named_on_the_standard_error(attendant, script):
    def fail_the_second(response):
        response.translations[1].Clear()
        response.translations[1].error.code = code_pb2.INVALID_ARGUMENT
        response.translations[1].error.message = "the text has 600 tokens,\nbut 512 is the limit"

    script.change = fail_the_second
    code, out, err = attendant("translate", stdin="a\nb\nc\n")
    assert (code, out) == (1, "A\n\nC\n")
    assert err == "attendant: line 2: the text has 600 tokens, but 512 is the limit\n"


def test_translate_sends_its_options(attendant, script):
    code, out, _ = attendant(
        "translate", "a", "--beam", "4", "--num-hypotheses", "2", "--scores", "--model", "upper/1",
        "--length-penalty", "0", "--max-output-tokens", "9", "--truncation", "left",
    )  # fmt: skip
    assert (code, out) == (0, "-0.5000\tA\t-1.0000\tA!\n")
    (request,) = script.requests
    assert request.model == "upper/1"
    assert request.options.beam_size == 4
    assert request.options.HasField("length_penalty")
    assert request.options.max_output_tokens == 9
    assert request.truncation == text_pb2.TRUNCATION_LEFT


@pytest.mark.parametrize("markup", ["none", "html", "xml"])
def test_translate_sends_the_markup_of_texts(attendant, script, markup):
    attendant("translate", "<b>a</b>", "--markup", markup)
    assert script.requests[-1].markup == text_pb2.Markup.Value(f"MARKUP_{markup.upper()}")
    attendant("translate", "a")
    assert script.requests[-1].markup == text_pb2.MARKUP_UNSPECIFIED


def test_translate_sends_options_of_the_search_and_of_samples(attendant, script):
    attendant(
        "translate", "a", "--no-repeat-ngram-size", "0", "--suppress", "x", "--suppress", "y",
        "--repetition-penalty", "1.25", "--sample", "--temperature", "0.5", "--seed", "0",
        "--min-p", "0.25", "--no-allow-unknown", "--target-prefix", "A b",
    )  # fmt: skip
    assert script.requests[-1].target_prefixes == ["A b"]
    options = script.requests[-1].options
    assert options.sampling.min_p == 0.25
    assert options.HasField("allow_unknown")
    assert options.HasField("no_repeat_ngram_size")
    assert list(options.suppressed_texts) == ["x", "y"]
    assert options.repetition_penalty == 1.25
    assert [each.name for each, _ in options.sampling.ListFields()] == [
        "temperature",
        "min_p",
        "seed",
    ]
    attendant("translate", "a", "--beam", "4", "--patience", "2")
    options = script.requests[-1].options
    assert options.patience == 2
    assert not options.HasField("sampling")


@pytest.mark.parametrize("flag", ["--temperature", "--top-k", "--top-p", "--seed"])
def test_options_of_samples_need_sample(attendant, script, capsys, flag):
    with pytest.raises(SystemExit):
        attendant("translate", "a", flag, "1")
    assert f"{flag} works with --sample only" in capsys.readouterr().err
    assert not script.calls


def test_stream_prints_the_pieces_line_for_line(attendant, script):
    code, out, err = attendant("translate", "--stream", stdin="one two\n\nthree\n")
    assert (code, out, err) == (0, "ONE TWO\n\nTHREE\n", "")
    assert script.calls == ["StreamTranslate"] * 2


def test_embed_sends_pooling_and_normalization(attendant, script):
    attendant("embed", "a", "--pooling", "cls", "--no-normalize")
    (request,) = script.requests
    assert request.pooling == 2
    assert request.HasField("normalize")
    assert not request.normalize


def test_similarity_prints_the_cosine(attendant):
    assert attendant("similarity", "aa", "bb") == (0, "0.5000\n", "")


def test_similar_texts_and_documents_are_printed_by_their_scores(attendant):
    code, out, err = attendant("similarity", "a", "b", "", "a", "--top-k", "1")
    assert (code, out) == (1, "1.0000\ta\n")
    assert "text 2: the text is empty" in err
    assert attendant("rerank", "a", "b", "aa") == (0, "2.0000\taa\n0.0000\tb\n", "")
    code, out, _ = attendant("rerank", "a", "b", "aa", "--json", "--top-k", "1")
    assert json.loads(out) == {"index": 1, "score": 2.0, "text": "aa"}


def test_tokenize_prints_tokens_or_ids(attendant):
    assert attendant("tokenize", "a dog") == (0, "a dog </s>\n", "")
    assert attendant("tokenize", "a dog", "--ids") == (0, "1 3 1\n", "")


def test_models_are_printed_as_a_table(attendant):
    assert attendant("models") == (
        0,
        "upper/1    translation  en → en-x-loud  int8  ready    default\n"
        "vectors/1  embedding    en, de          fp32  loading\n",
        "",
    )


def test_a_default_version_is_shown_only_among_several(attendant, script):
    def several(response):
        for name, version in (("upper", "2"), ("lower", "1")):
            info = response.models.add(name=name, version=version, is_default=True)
            info.kind = response.models[0].kind
        response.models[0].is_default = response.models[0].is_default_of_kind = False

    script.change = several
    rows = attendant("models")[1].splitlines()
    assert ["default version" in row for row in rows] == [False, False, True, False]


def test_one_model_is_described_on_a_page(attendant):
    code, out, err = attendant("models", "upper")
    assert (code, err) == (0, "")
    assert out == (
        "upper/1\n"
        "Upper case.\n"
        "\n"
        "kind          translation, en → en-x-loud\n"
        "state         ready\n"
        "precision     int8; the bundle has fp32, int8\n"
        "text limits   source tokens 128, target tokens 130\n"
        "call limits   texts 64, characters of one text 1,000, beam size 8\n"
        "sizes         d_model 256, num_heads 4\n"
        "quality       on a test set:\n"
        "              22.50 sacreBLEU, greedy\n"
        "parity        log-probabilities within 0.22 of the trained model's\n"
        "bundle        made 2026-11-22, trained on a laptop\n"
        "data          Tatoeba (CC BY 2.0 FR)\n"
        "license       Apache-2.0\n"
        "credit        Tatoeba\n"
        "              Example Ltd.\n"
    )


def test_the_page_names_the_weights_that_a_rebuilt_model_was_compared_with(attendant, script):
    def rebuild(response):
        for parity in response.parity.precisions:
            parity.reference_precision = "fp16"

    script.change = rebuild
    _, out, _ = attendant("models", "upper")
    assert "parity        log-probabilities within 0.22 of the model's with fp16 weights\n" in out


def test_a_model_that_tells_little_has_a_short_page(attendant, script):
    def forget(response):
        info = model_pb2.ModelInfo(name="bare", version="2", languages=["en"])
        response.CopyFrom(model_pb2.GetModelResponse(model=info))

    script.change = forget
    code, out, err = attendant("models", "upper")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "bare/2"
    assert "license" not in out
    assert "limits" not in out


@pytest.mark.parametrize(("poolings", "shown"), [([4, 99], ["other poolings: last"]), ([99], [])])
def test_poolings_of_a_later_server_are_left_out(attendant, script, poolings, shown):
    def extend(response):
        response.additional_poolings.extend(poolings)

    script.change = extend
    _, out, _ = attendant("models", "upper")
    assert [
        line.split("vectors")[1].strip() for line in out.splitlines() if "poolings" in line
    ] == (shown)


def test_all_about_one_model_is_one_line_of_json(attendant):
    code, out, _ = attendant("models", "upper", "--json")
    assert code == 0
    assert out.count("\n") == 1
    assert json.loads(out)["limits"]["max_source_tokens"] == 128


def test_health_exits_with_0_only_when_it_serves(attendant):
    assert attendant("health") == (0, "serving\n", "")
    embedding = "attendant.v1.EmbeddingService"
    assert attendant("health", "--service", embedding) == (1, "not_serving\n", "")


def test_health_asks_once(attendant, script):
    script.faults = [Fault(code_pb2.UNAVAILABLE)]
    assert attendant("health")[0] == 1
    assert script.calls == ["Check"]


def test_version_is_printed(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"attendant {attendant_client.__version__}"
    assert f"grpcio {grpc.__version__}" in lines
    assert "protocol attendant.v1" in lines


def test_help_names_every_environment_variable_that_the_command_reads(capsys):
    package = Path(attendant_client.__file__).parent
    code = "".join(path.read_text(encoding="utf-8") for path in package.glob("*.py"))
    read = set(re.findall(r"environ(?:\.get)?[(\[]\"(\w+)", code))
    assert read == {"ATTENDANT_TARGET", "NO_COLOR"}
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert read | {"http_proxy", "no_proxy"} <= set(re.findall(r"\w+", shown))


@pytest.mark.parametrize("place", ["before", "after"])
def test_target_and_timeout_may_stand_before_or_after_the_command(address, capsys, place, script):
    flags = ["--target", address, "--timeout", "500"]
    command = ["models"]
    assert main([*flags, *command] if place == "before" else [*command, *flags]) == 0
    assert round(script.time_left[0], -2) == 500


def test_a_server_that_is_not_there_is_one_line_on_the_standard_error(capsys):
    code = main(["--target", "127.0.0.1:1", "health"])
    assert code == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("attendant: 127.0.0.1:1 is unavailable: ")
    assert err.count("\n") == 1


def test_a_server_that_is_too_slow_is_one_line_on_the_standard_error(attendant, address):
    code, _, err = attendant("translate", "slow", "--timeout", "0.2")
    assert (code, err) == (1, f"attendant: no answer from {address} within 0.2 seconds\n")


@pytest.mark.parametrize(
    ("arguments", "stdin", "complaint"),
    [
        (["models", "nothing"], None, "attendant: there is no model 'nothing'\n"),
        (["embed", "--output", "x.npy"], "", "attendant: there is no text to embed\n"),
        (
            ["translate", "--input", "/nothing"],
            None,
            "attendant: [Errno 2] No such file or directory: '/nothing'\n",
        ),
    ],
)
def test_what_fails_is_said_in_one_line(
    attendant, arguments, stdin, complaint, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert attendant(*arguments, stdin=stdin) == (1, "", complaint)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["sing"],
        ["translate", "a", "--beam", "0"],
        ["translate", "a", "--beam", "two"],
        ["translate", "a", "--timeout", "-1"],
        ["translate", "a", "--truncation", "middle"],
        ["translate", "a", "--stream", "--json"],
        ["translate", "a", "--stream", "--num-hypotheses", "2"],
        ["embed", "a", "--json", "--output", "x.npy"],
        ["similarity", "a"],
        ["translate", "a", "--tokens"],
        ["translate", "a", "--alignments"],
        ["translate", "a", "--input", "x"],
        ["translate", "--resume"],
        ["translate", "a", "--resume", "--output", "x"],
        ["translate", "--stream", "--output", "x"],
        ["tokenize", "--output", "x.npy"],
        ["translate", "--resume", "--input", "x"],
        ["score", "a"],
        ["score", "a", "b", "c"],
        ["classify", "--pairs", "a", "b", "c"],
    ],
)
def test_wrong_usage_exits_with_2(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: attendant" in capsys.readouterr().err
