"""Random mixtures of calls of language models: all end as they should, neighbours are served."""

import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from attendant.v1.language_model_pb2 import (
    GenerateOptions,
    GenerateRequest,
    ScoreTextRequest,
    StreamGenerateRequest,
)
from attendant.v1.translation_pb2 import Sampling, TranslateRequest

from tests.support.bundles import MAX_TOKENS
from tests.support.language_models import gpt2_like, write_random_language_model
from tests.support.serving import TIMEOUT_SECONDS, running_server

MODELS = ("tiny-lm", "tiny-gpt")
NEIGHBOUR = ["The old dog sees the cat.", "A", "\n\n", "\u00c4 \U0001f436"]
NEIGHBOURS: list[dict[str, Any]] = [
    {},
    {"beam_size": 3, "num_hypotheses": 2},
    {"repetition_penalty": 1.7},
    {"sampling": Sampling(seed=4), "num_hypotheses": 2},
    {"stop_texts": ["e", "a"]},
]
SEARCHES: list[dict[str, Any]] = [
    *NEIGHBOURS,
    {"beam_size": 8, "num_hypotheses": 8, "patience": 10},
    {"beam_size": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
    {"sampling": Sampling(temperature=100, top_k=256), "num_hypotheses": 8},
    {"sampling": Sampling(top_p=1e-9, min_p=1)},
    {"no_repeat_ngram_size": 1, "repetition_penalty": 0.01},
    {"repetition_guard": True, "suppressed_token_ids": [2]},
    {"suppressed_token_ids": range(3, 259)},
]
BAD: list[dict[str, Any]] = [
    {"max_output_tokens": 0},
    {"max_output_tokens": MAX_TOKENS},
    {"max_output_tokens": 2**32 - 1},
    {"length_penalty": float("nan")},
    {"repetition_penalty": float("inf")},
    {"stop_texts": ["x" * 257]},
    {"stop_texts": ["x"] * 17},
]


@pytest.fixture(scope="module")
def server(loop, settings, tmp_path_factory, translation_bundle):
    root = tmp_path_factory.mktemp("models")
    write_random_language_model(root, "tiny-lm")
    write_random_language_model(root, "tiny-gpt", architecture=gpt2_like(), has_start_token=False)
    shutil.copytree(translation_bundle, root / translation_bundle.parent.name / "1")
    with running_server(loop, settings(bundles=root, default_models=["tiny-lm"])) as running:
        yield running


def some_text(draw: random.Random) -> str:
    """Empty, far too long, of special tokens, of white space, or of any characters."""
    kinds = [
        "",
        "a b " * draw.randint(20, 20_000),
        "</s>" * draw.randint(1, MAX_TOKENS),
        " " * draw.randint(1, MAX_TOKENS),
        "\U0001f436" * draw.randint(1, 20),
        *["".join(draw.choices("The old dog\n \u00e4\u20ac\0", k=draw.randint(1, 60)))] * 4,
    ]
    return draw.choice(kinds)


def some_stop_texts(draw: random.Random) -> list[str]:
    kinds = [[], [draw.choice("ab e\n") * 256] * 16, [" "], ["\ufffd"], ["e", "th", "og "]]
    return draw.choice(kinds)


def some_options(draw: random.Random) -> tuple[GenerateOptions, bool]:
    """Options, and whether they are bad."""
    is_bad = draw.random() < 0.1
    options = {
        "max_output_tokens": draw.choice([1, 2, 9, 30]),
        "return_tokens": draw.random() < 0.5,
        "stop_texts": some_stop_texts(draw),
        **draw.choice(SEARCHES),
        **(draw.choice(BAD) if is_bad else {}),
    }
    return GenerateOptions(**options), is_bad


def answer_of(server, number):
    """What a neighbour gets: texts and tokens."""
    request = GenerateRequest(
        model=MODELS[number % 2],
        prompts=NEIGHBOUR,
        options=GenerateOptions(
            max_output_tokens=12, return_tokens=True, **NEIGHBOURS[number % len(NEIGHBOURS)]
        ),
    )
    answer = server.language.Generate(request, timeout=TIMEOUT_SECONDS)
    return [
        [(h.text, [token.id for token in h.tokens], h.stop_text) for h in each.hypotheses]
        for each in answer.generations
    ]


def code_of(call) -> grpc.StatusCode:
    try:
        call()
    except grpc.FutureCancelledError:
        return grpc.StatusCode.CANCELLED
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def allowed(is_bad, timeout, may_cancel=False, has_fault=False) -> set[grpc.StatusCode]:
    found = {grpc.StatusCode.INVALID_ARGUMENT} if is_bad else {grpc.StatusCode.OK}
    if has_fault:
        found.add(grpc.StatusCode.INVALID_ARGUMENT)
    if timeout < 1:
        found |= {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}
    return found | ({grpc.StatusCode.CANCELLED} if may_cancel else set())


def generate(server, draw, timeout):
    options, is_bad = some_options(draw)
    request = GenerateRequest(
        model=draw.choice(MODELS),
        prompts=[some_text(draw) for _ in range(draw.randint(1, 4))],
        options=options,
        truncation=draw.randint(0, 3),
        reads_special_tokens=draw.random() < 0.5,
    )
    call = server.language.Generate.future(request, timeout=timeout)
    if is_cancelled := draw.random() < 0.2:
        call.cancel()

    def check():
        answer = call.result()
        assert len(answer.generations) == len(request.prompts)
        for generation in answer.generations:
            if generation.HasField("error"):
                assert generation.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
            else:
                assert 1 <= len(generation.hypotheses) <= (options.num_hypotheses or 1)
            for hypothesis in generation.hypotheses:
                assert not any(stop in hypothesis.text for stop in options.stop_texts)

    assert code_of(check) in allowed(is_bad, timeout, is_cancelled)


def stream(server, draw, timeout):
    options, is_bad = some_options(draw)
    request = StreamGenerateRequest(
        model=draw.choice(MODELS),
        prompt=some_text(draw),
        options=options,
        truncation=draw.randint(0, 3),
        reads_special_tokens=draw.random() < 0.5,
    )
    is_cancelled = draw.random() < 0.2

    def check():
        call = server.language.StreamGenerate(request, timeout=timeout)
        pieces = []
        for piece in call:
            pieces.append(piece)
            if is_cancelled:
                call.cancel()
        assert [piece.HasField("generation") for piece in pieces].index(True) == len(pieces) - 1
        text = pieces[-1].generation.hypotheses[0].text
        assert "".join(piece.delta for piece in pieces) == text

    assert code_of(check) in allowed(is_bad, timeout, is_cancelled, has_fault=True)


def score(server, draw, timeout):
    request = ScoreTextRequest(
        model=draw.choice(MODELS),
        texts=[some_text(draw) for _ in range(draw.randint(1, 6))],
        return_tokens=draw.random() < 0.5,
        scores_end=draw.random() < 0.5,
        reads_special_tokens=draw.random() < 0.5,
    )

    def check():
        answer = server.language.ScoreText(request, timeout=timeout)
        assert len(answer.scores) == len(request.texts)
        for found in answer.scores:
            assert found.HasField("error") or found.log_probability <= 0

    assert code_of(check) in allowed(False, timeout)


def translate(server, draw, timeout):
    request = TranslateRequest(model="tiny-en-de", texts=[some_text(draw)[:100] for _ in range(2)])
    code = code_of(lambda: server.translation.Translate(request, timeout=timeout))
    assert code in allowed(False, timeout)


@pytest.mark.parametrize("seed", range(2))
def test_mixtures_of_calls_end_as_they_should_and_change_no_answer_of_a_neighbour(server, seed):
    expected = [answer_of(server, number) for number in range(2 * len(NEIGHBOURS))]

    def call(number):
        if number % 8 == 0:
            place = number // 8 % len(expected)
            assert answer_of(server, place) == expected[place]
            return
        draw = random.Random(f"{seed} {number}")
        kind = draw.choice([generate, generate, stream, stream, score, translate])
        kind(server, draw, draw.choice([0.001, 0.02, *[TIMEOUT_SECONDS] * 8]))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(call, range(400)))
