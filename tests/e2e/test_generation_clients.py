"""The clients and the command continue prompts and score texts with a real server."""

import asyncio
import json
import math

import pytest
from attendant_client import AsyncClient, Client, InvalidRequestError, Sampling, TextError
from attendant_client.__main__ import main
from attendant_client.model_page import model_page

from tests.support.language_models import tiny_tokenizer, write_random_language_model
from tests.support.serving import running_server

PROMPTS = ["The old dog", "A", "", "The small bird loves the king."]
LONG = "The old dog sees the cat. " * 10


@pytest.fixture(scope="module")
def target(loop, settings, tmp_path_factory):
    """A server with a language model without a start token, for at most 3 prompts in a call."""
    root = tmp_path_factory.mktemp("language-models")
    write_random_language_model(root, has_start_token=False)
    with running_server(loop, settings(bundles=root, max_texts=3)) as running:
        yield f"127.0.0.1:{running.server.port}"


@pytest.fixture
def client(target):
    with Client(target) as client:
        yield client


def test_prompts_are_continued_in_calls_that_the_server_takes(client):
    found = client.generate([*PROMPTS, LONG], max_output_tokens=5, return_tokens=True)
    assert [error.index for error in found.errors] == [2, 4]
    assert found[2].error.message.startswith("is empty")
    assert found[4].error.message.startswith("at most ")
    alone = client.generate(PROMPTS[0], max_output_tokens=5)
    assert found[0].text == alone.text
    assert found[0].call.model == "tiny-lm/1"
    [hypothesis] = found[0].hypotheses
    assert tiny_tokenizer().decode([token.id for token in hypothesis.tokens]) == hypothesis.text
    assert found[0].num_prompt_tokens == len(tiny_tokenizer().encode(PROMPTS[0]).ids)
    with pytest.raises(TextError, match="is empty"):
        client.generate("").raise_for_errors()


def test_samples_do_not_depend_on_how_prompts_are_split_into_calls(client):
    prompts = [PROMPTS[0]] * 5
    found = client.generate(prompts, sampling=Sampling(seed=3), max_output_tokens=6)
    assert len({each.text for each in found}) > 1
    again = client.generate(prompts[:4], sampling=Sampling(seed=3), max_output_tokens=6)
    assert [each.text for each in again] == [each.text for each in found[:4]]


def test_both_clients_stream_the_pieces_of_a_continuation(client, target):
    async def pieces():
        async with AsyncClient(target) as asynchronous:
            stream = asynchronous.stream_generate(PROMPTS[0], max_output_tokens=20)
            return [delta async for delta in stream], stream.generation

    whole = client.generate(PROMPTS[0], max_output_tokens=20)
    deltas, generation = asyncio.run(pieces())
    assert "".join(deltas) == generation.text == whole.text
    stream = client.stream_generate(PROMPTS[0], max_output_tokens=20)
    with pytest.raises(RuntimeError, match="not read to its end"):
        _ = stream.generation
    assert "".join(stream) == stream.generation.text == whole.text
    with pytest.raises(InvalidRequestError, match=r"^prompt: is empty"):
        next(client.stream_generate(""))


def test_stop_texts_end_continuations(client):
    text = client.generate(PROMPTS[0], max_output_tokens=30).text
    stop = next(c for c in text[5:] if c != "\ufffd")
    found = client.generate(PROMPTS[0], max_output_tokens=30, stop_texts=[stop]).hypotheses[0]
    assert (found.text, found.stop_text) == (text[: text.index(stop)], stop)
    assert found.finish_reason == "stop"


def test_texts_are_scored_in_calls_that_the_server_takes(client):
    found = client.score_texts([*PROMPTS, "A b"], return_tokens=True)
    assert [error.index for error in found.errors] == [2]
    assert math.isnan(found[2].log_probability)
    for text, each in zip(PROMPTS[:2], found, strict=False):
        assert "".join(text[token.start : token.end] for token in each.tokens) == text
        assert each.log_probability == pytest.approx(sum(each.log_probabilities), abs=1e-4)
        assert each.num_scored_tokens == len(each.tokens) - 1
    expected = math.exp(-found[0].log_probability / found[0].num_scored_tokens)
    assert found[0].perplexity == pytest.approx(expected)
    assert math.isnan(client.score_texts("A").perplexity)
    ended = client.score_texts("A", scores_end=True)
    assert ended.num_scored_tokens == 1


def test_models_have_their_kind_and_sizes(client):
    [info] = client.models()
    assert info.kind == "language_model"
    model = client.model()
    assert "language_model\n" in model_page(model)
    assert model.sizes["num_key_value_heads"] == 2
    assert model.limits.max_tokens


def test_the_command_continues_prompts(client, target, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("ATTENDANT_TARGET", target)
    texts = [client.generate(prompt, max_output_tokens=9).text for prompt in PROMPTS[:2]]
    flags = ["--max-output-tokens", "9"]
    assert main(["generate", PROMPTS[0], *flags]) == 0
    assert capsys.readouterr().out == f"{texts[0]}\n"
    assert main(["generate", PROMPTS[0], "--stream", *flags]) == 0
    assert capsys.readouterr().out == f"{texts[0]}\n"
    lines = tmp_path / "prompts.txt"
    lines.write_text("\n".join([*PROMPTS[:2], LONG]) + "\n")
    assert main(["generate", "--input", str(lines), "--json", *flags]) == 1
    output = capsys.readouterr()
    found = [json.loads(line) for line in output.out.splitlines()]
    assert [each["hypotheses"] and each["hypotheses"][0]["text"] for each in found] == [
        *texts,
        None,
    ]
    assert "line 3: at most" in output.err
    assert main(["generate", LONG, "--stream", *flags]) == 1
    assert "prompt 1: at most" in capsys.readouterr().err
    stop = next(c for c in texts[0][3:] if c != "\ufffd")
    assert main(["generate", PROMPTS[0], "--stop", stop, *flags]) == 0
    assert capsys.readouterr().out == texts[0][: texts[0].index(stop)] + "\n"


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--stream", "--json"], "--stream does not work with"),
        (["--stream", "--num-hypotheses", "2"], "--stream does not work with"),
        (["--top-k", "3"], "--top-k works with --sample only"),
        (["--tokens"], "--tokens works with --json only"),
    ],
)
def test_flags_that_exclude_each_other_are_wrong_usage(flags, problem, capsys):
    with pytest.raises(SystemExit) as end:
        main(["generate", "a", *flags])
    assert end.value.code == 2
    assert problem in capsys.readouterr().err


def test_pronouns_stand_for_the_candidates_with_which_texts_are_more_probable(
    client, target, tmp_path, capsys
):
    text, candidates = "The old dog sees the cat and it sleeps.", ["The old dog", "the cat"]
    path = tmp_path / "schemas.txt"
    path.write_text("\n".join([text, "it", ", ".join(candidates), candidates[1]]))
    for by in ("full", "partial"):
        assert main(["resolve-pronouns", str(path), "--by", by, "--json", "--target", target]) == 0
        shown = capsys.readouterr()
        found = json.loads(shown.out)
        filled = ["The old dog sees the cat and " + noun for noun in ("the old dog", "the cat")]
        wholes = client.score_texts([each + " sleeps." for each in filled])
        beginnings = client.score_texts(filled)
        expected = [each.log_probability for each in wholes]
        if by == "partial":
            pairs = zip(expected, beginnings, strict=True)
            expected = [whole - beginning.log_probability for whole, beginning in pairs]
        assert found["values"] == pytest.approx(expected, abs=1e-4)
        assert found["chosen"] == candidates[expected[1] > expected[0]]
        assert shown.err == f"{int(found['is_right'])} of 1 right ({found['is_right']:.1%})\n"


def test_a_file_without_right_schemas_is_named(target, tmp_path, capsys):
    path = tmp_path / "schemas.txt"
    for text, problem in {"": " has no schemas", "It fell.\nit": ": line 1: a schema has"}.items():
        path.write_text(text)
        assert main(["resolve-pronouns", str(path), "--target", target]) == 1
        assert capsys.readouterr().err.startswith(f"attendant: {path}{problem}")
