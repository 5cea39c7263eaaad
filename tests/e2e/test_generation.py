"""Continuations and scores of texts by language models behind a real server."""

import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from attendant.v1.language_model_pb2 import (
    GenerateOptions,
    GenerateRequest,
    ScoreTextRequest,
    StreamGenerateRequest,
)
from attendant.v1.model_pb2 import GetModelRequest, ListModelsRequest, TokenizeRequest
from attendant.v1.text_pb2 import OFFSET_UNIT_UTF8_BYTES, TRUNCATION_LEFT, TRUNCATION_RIGHT
from attendant.v1.translation_pb2 import (
    FINISH_REASON_LENGTH,
    FINISH_REASON_STOP,
    Sampling,
    TranslateRequest,
)
from attendant_server.bundles import read_bundle
from attendant_server.engine.calls import SearchOptions, TranslateCall
from attendant_server.runtime.language_model import OnnxLanguageModel
from attendant_server.runtime.model_graphs import RunCounter
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from tests.support.bundles import MAX_TOKENS
from tests.support.language_models import gpt2_like, tiny_tokenizer, write_random_language_model
from tests.support.serving import failure_of, running_server

PROMPTS = ["The old dog sees the cat.", "A", "The small bird loves the king. The old", "\n\n"]
NAMES = ("tiny-lm", "tiny-gpt")
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def folder(tmp_path_factory, translation_bundle):
    """A model with a start token, one without, and a translation model."""
    root = tmp_path_factory.mktemp("language-models")
    write_random_language_model(root, "tiny-lm")
    write_random_language_model(root, "tiny-gpt", architecture=gpt2_like(), has_start_token=False)
    shutil.copytree(translation_bundle, root / translation_bundle.parent.name / "1")
    return root


@pytest.fixture(scope="module")
def server(loop, settings, folder):
    with running_server(loop, settings(bundles=folder, default_models=["tiny-lm"])) as running:
        yield running


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def reference(folder, name):
    """The model of the server, without caches: `score` runs whole texts."""
    bundle = read_bundle(folder / name / "1", "fp32", "cpu")
    return OnnxLanguageModel(bundle, 1, "cpu", RunCounter(1))


def generate(server, prompts, model="", truncation=0, reads_special_tokens=False, **options):
    request = GenerateRequest(
        model=model,
        prompts=prompts,
        options=GenerateOptions(**options),
        truncation=truncation,
        reads_special_tokens=reads_special_tokens,
    )
    return server.language.Generate(request)


def score(server, texts, **options):
    return server.language.ScoreText(ScoreTextRequest(texts=texts, **options))


def prompt_ids(name, prompt):
    start = [1] if name == "tiny-lm" else []
    return [*start, *tiny_tokenizer().encode(prompt).ids]


def ids_of(hypothesis):
    return [token.id for token in hypothesis.tokens]


def test_greedy_tokens_are_the_likeliest_ones_of_the_whole_text_so_far(server, name, reference):
    answer = generate(server, PROMPTS, name, max_output_tokens=9, return_tokens=True)
    assert answer.model == f"{name}/1"
    for prompt, generation in zip(PROMPTS, answer.generations, strict=True):
        [hypothesis] = generation.hypotheses
        source, tokens = prompt_ids(name, prompt), ids_of(hypothesis)
        assert generation.num_prompt_tokens == len(source)
        expected: list[int] = []
        while len(expected) < 9 and expected[-1:] != [reference.eos_id]:
            pairs = [(source, [*expected, token]) for token in range(reference.vocab_size)]
            likely = [each.log_probabilities[-1] for each in reference.score(pairs)]
            expected.append(int(np.argmax(likely)))
        assert tokens == expected
        [scores] = reference.score([(source, tokens)])
        found = [token.log_probability for token in hypothesis.tokens]
        np.testing.assert_allclose(found, scores.log_probabilities, atol=TOLERANCE)
        assert hypothesis.score == pytest.approx(np.mean(found), abs=TOLERANCE)
        assert hypothesis.text == tiny_tokenizer().decode(tokens)
        is_end = tokens[-1] == reference.eos_id
        assert hypothesis.finish_reason == (FINISH_REASON_STOP if is_end else FINISH_REASON_LENGTH)
    counts = answer.token_counts
    assert counts.num_input_tokens == sum(g.num_prompt_tokens for g in answer.generations)
    assert counts.num_output_tokens == sum(len(g.hypotheses[0].tokens) for g in answer.generations)


@pytest.mark.parametrize("options", [{}, {"beam_size": 3, "num_hypotheses": 3}])
def test_neighbours_of_both_kinds_do_not_matter(server, name, options):
    options = {"max_output_tokens": 8, "return_tokens": True} | options
    alone = [generate(server, [prompt], name, **options).generations[0] for prompt in PROMPTS]
    texts = ["The old dog sees the cat."] * 4

    def mixed(number):
        if number % 2:
            return server.translation.Translate(TranslateRequest(texts=texts))
        return generate(server, PROMPTS * 3, name, **options)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(mixed, range(12)))
    translations = {str(answer.translations) for answer in answers[1::2]}
    assert len(translations) == 1
    for answer in answers[::2]:
        for generation, expected in zip(answer.generations, alone * 3, strict=True):
            found = [(h.text, ids_of(h)) for h in generation.hypotheses]
            assert found == [(h.text, ids_of(h)) for h in expected.hypotheses]


def test_samples_depend_on_their_seed_and_place_alone(server, name):
    sampling = Sampling(seed=7, temperature=0.8)
    options = {"sampling": sampling, "num_hypotheses": 3, "max_output_tokens": 6}
    first = generate(server, PROMPTS, name, **options)
    assert generate(server, PROMPTS, name, **options).generations == first.generations
    assert first.seed == 7
    sampling.first_index = 2
    later = generate(server, PROMPTS[2:], name, **options)
    assert later.generations == first.generations[2:]
    sampling.seed = 8
    assert generate(server, PROMPTS, name, **options).generations != first.generations


@pytest.mark.parametrize("options", [{}, {"beam_size": 4}, {"sampling": Sampling(seed=3)}])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_deltas_of_a_stream_add_up_to_the_continuation(server, name, prompt, options):
    given = GenerateOptions(max_output_tokens=20, **options)
    request = StreamGenerateRequest(model=name, prompt=prompt, options=given)
    *pieces, last = server.language.StreamGenerate(request)
    [whole] = generate(server, [prompt], name, max_output_tokens=20, **options).generations
    assert last.generation == whole
    assert "".join(piece.delta for piece in [*pieces, last]) == whole.hypotheses[0].text
    assert all(piece.delta and not piece.HasField("generation") for piece in pieces)


@pytest.mark.parametrize("options", [{}, {"beam_size": 3}, {"sampling": Sampling(seed=5)}])
def test_a_continuation_ends_before_a_stop_text_and_is_decoded_no_further(server, name, options):
    options = {"max_output_tokens": 24, "return_tokens": True} | options
    [free] = generate(server, PROMPTS[:1], name, **options).generations
    text = free.hypotheses[0].text
    middle = len(text) // 2
    parts = (text[i : i + 2] for i in range(middle, len(text) - 1))
    stop = next(part for part in parts if "\ufffd" not in part)
    answer = generate(server, PROMPTS[:1], name, stop_texts=["never", stop], **options)
    [hypothesis] = answer.generations[0].hypotheses
    assert hypothesis.stop_text == stop
    assert hypothesis.finish_reason == FINISH_REASON_STOP
    if "beam_size" in options:
        assert stop not in hypothesis.text
    else:
        assert hypothesis.text == text[: text.index(stop)]
        assert len(hypothesis.tokens) < len(free.hypotheses[0].tokens)
    written = tiny_tokenizer().decode(ids_of(hypothesis))
    assert stop in written
    assert stop not in tiny_tokenizer().decode(ids_of(hypothesis)[:-1])
    request = StreamGenerateRequest(
        model=name,
        prompt=PROMPTS[0],
        options=GenerateOptions(stop_texts=["never", stop], **options),
    )
    pieces = list(server.language.StreamGenerate(request))
    assert "".join(piece.delta for piece in pieces) == hypothesis.text
    assert pieces[-1].generation == answer.generations[0]


def test_an_empty_prompt_is_for_models_with_a_start_token(server):
    answer = generate(server, ["", "A"], "tiny-lm", max_output_tokens=3)
    assert answer.generations[0].num_prompt_tokens == 1
    [fault, good] = generate(server, ["", "A"], "tiny-gpt", max_output_tokens=3).generations
    assert fault.error.message.startswith("prompts[0]: is empty")
    assert good.hypotheses


def test_a_prompt_that_leaves_no_room_is_refused_or_truncated(server, name):
    prompt = "The old dog sees the cat. " * 10
    source = prompt_ids(name, prompt)
    assert len(source) > MAX_TOKENS
    [fault, good] = generate(server, [prompt, "A"], name, max_output_tokens=10).generations
    limit = MAX_TOKENS - 10
    assert fault.error.message == f"prompts[0]: at most {limit} tokens, got {len(source)}"
    assert good.hypotheses
    num_start = 1 if name == "tiny-lm" else 0
    for truncation, kept in (
        (TRUNCATION_LEFT, [*source[:num_start], *source[num_start - limit :]]),
        (TRUNCATION_RIGHT, source[:limit]),
    ):
        options = {"max_output_tokens": 10, "return_tokens": True}
        [cut] = generate(server, [prompt], name, truncation, **options).generations
        assert cut.num_prompt_tokens == cut.truncation.num_kept_tokens == limit
        assert cut.truncation.num_original_tokens == len(source)
        expected = generate_ids(server, name, kept, 10)
        assert ids_of(cut.hypotheses[0]) == expected


def generate_ids(server, name, source, num_tokens):
    """The greedy continuation of token ids, which the engine runs directly."""
    call = TranslateCall([source], SearchOptions(num_tokens))
    server.server.engine.submit(f"{name}/1", call)
    return list(call.future.result(60)[0][0].token_ids)


def test_without_a_limit_prompt_and_continuation_fill_the_models_limit_together(server, name):
    [generation] = generate(
        server, PROMPTS[:1], name, suppressed_token_ids=[2], return_tokens=True
    ).generations
    assert generation.num_prompt_tokens + len(generation.hypotheses[0].tokens) == MAX_TOKENS


def test_special_tokens_are_text_unless_a_call_reads_them(server, name):
    [plain, read] = (
        generate(server, ["A</s>"], name, reads_special_tokens=reads).generations[0]
        for reads in (False, True)
    )
    assert plain.num_prompt_tokens == len(prompt_ids(name, "A")) + 4
    assert read.num_prompt_tokens == len(prompt_ids(name, "A")) + 1


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"max_output_tokens": 0}, "options.max_output_tokens: must be between 1 and"),
        ({"max_output_tokens": MAX_TOKENS}, "options.max_output_tokens: must be between 1 and"),
        ({"min_output_tokens": MAX_TOKENS}, "options.min_output_tokens: must be between 0 and"),
        ({"stop_texts": ["a"] * 17}, "options.stop_texts: at most 16, got 17"),
        ({"stop_texts": ["a", ""]}, r"options.stop_texts\[1\]: must have between 1 and 256"),
        ({"stop_texts": ["a" * 257]}, r"options.stop_texts\[0\]: must have between 1 and 256"),
        ({"beam_size": 2, "sampling": Sampling()}, "options.beam_size: must be 1 with sampling"),
        ({"num_beam_groups": 2}, "options.num_beam_groups: must divide beam_size"),
        ({"suppressed_token_ids": [10**6]}, r"options.suppressed_token_ids\[0\]: .* no such token"),
    ],
)
def test_bad_options_fail_the_call_and_name_the_field(server, name, options, problem):
    failure = failure_of(lambda: generate(server, ["A"], name, **options))
    assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert re.match(problem, failure.details())
    request = StreamGenerateRequest(model=name, prompt="A", options=GenerateOptions(**options))
    streamed = failure_of(lambda: list(server.language.StreamGenerate(request)))
    assert streamed.details() == failure.details()


def test_a_repetition_penalty_is_for_tokens_of_continuations(server, name):
    options = {"max_output_tokens": 12, "repetition_penalty": 50.0, "return_tokens": True}
    [generation] = generate(server, PROMPTS[:1], name, **options).generations
    tokens = ids_of(generation.hypotheses[0])
    assert len(set(tokens)) == len(tokens)


def test_scores_are_the_log_probabilities_of_the_tokens(server, name, reference):
    texts = [*PROMPTS, "Ä b"]
    answer = score(server, texts, model=name, return_tokens=True)
    for text, found in zip(texts, answer.scores, strict=True):
        token_ids = prompt_ids(name, text)
        if len(token_ids) > 1:
            [expected] = reference.score([(token_ids[:1], token_ids[1:])])
            values = expected.log_probabilities
        else:
            values = np.zeros(0)
        assert found.num_scored_tokens == len(values)
        assert found.log_probability == pytest.approx(values.sum(), abs=TOLERANCE)
        own = token_ids[1:] if name == "tiny-lm" else token_ids
        assert [token.id for token in found.tokens] == own
        listed = values if name == "tiny-lm" else [0, *values]
        assert list(found.log_probabilities) == pytest.approx(list(listed), abs=TOLERANCE)
        joined = "".join(text[token.start : token.end] for token in found.tokens)
        assert set(joined) <= set(text)


def test_the_end_token_is_scored_if_a_call_asks_for_it(server, name, reference):
    [found] = score(server, ["A"], model=name, scores_end=True, return_tokens=True).scores
    token_ids = [*prompt_ids(name, "A"), reference.eos_id]
    [expected] = reference.score([(token_ids[:1], token_ids[1:])])
    assert found.log_probability == pytest.approx(expected.log_probabilities.sum(), abs=TOLERANCE)
    assert found.tokens[-1].id == reference.eos_id
    assert found.tokens[-1].special


def test_faults_of_texts_to_score_are_in_their_results(server, name):
    long = "The old dog sees the cat. " * 10
    [empty, too_long, good] = score(server, ["", long, "A b"], model=name).scores
    assert empty.error.message.startswith("texts[0]: is empty")
    assert too_long.error.message.startswith(f"texts[1]: at most {MAX_TOKENS} tokens")
    assert good.num_scored_tokens


def test_offsets_of_scored_tokens_are_in_the_unit_of_the_request(server, name):
    [by_points], [by_bytes] = (
        score(server, ["\u00e4\u00e4b"], model=name, return_tokens=True, offset_unit=unit).scores
        for unit in (0, OFFSET_UNIT_UTF8_BYTES)
    )
    assert (by_points.tokens[-1].start, by_points.tokens[-1].end) == (2, 3)
    assert (by_bytes.tokens[-1].start, by_bytes.tokens[-1].end) == (4, 5)


def test_models_are_described_and_chosen_by_default(server):
    models = {m.name: m for m in server.models.ListModels(ListModelsRequest()).models}
    assert models["tiny-lm"].is_default_of_kind
    assert not models["tiny-gpt"].is_default_of_kind
    assert generate(server, ["A"], max_output_tokens=1).model == "tiny-lm/1"
    found = server.models.GetModel(GetModelRequest(model="tiny-lm"))
    sizes = found.language_model_sizes
    assert (sizes.d_model, sizes.num_heads, sizes.num_key_value_heads) == (64, 4, 2)
    assert found.limits.max_tokens == MAX_TOKENS
    assert found.request_limits.max_beam_size
    tokens = server.models.Tokenize(TokenizeRequest(model="tiny-lm", texts=["A b"])).results[0]
    assert [token.id for token in tokens.tokens] == tiny_tokenizer().encode("A b").ids


def test_the_service_of_language_models_is_healthy_if_there_are_any(server):
    request = HealthCheckRequest(service="attendant.v1.LanguageModelService")
    assert server.health.Check(request).status == HealthCheckResponse.SERVING


def test_models_of_other_kinds_are_refused(server):
    failure = failure_of(lambda: generate(server, ["A"], "tiny-en-de"))
    assert failure.details() == "model: tiny-en-de/1 is no language model"
    request = TranslateRequest(model="tiny-lm", texts=["A"])
    failure = failure_of(lambda: server.translation.Translate(request))
    assert failure.details() == "model: tiny-lm/1 is no translation model"


def test_metrics_count_prompts_and_continuations(server, name):
    model = f"{name}/1"

    def counted():
        return [
            server.metric("attendant_input_tokens_total", model=model),
            server.metric("attendant_output_tokens_total", model=model),
            server.metric("attendant_calls_total", model=model, method="Generate", code="OK"),
        ]

    before = counted()
    answer = generate(server, PROMPTS, name, max_output_tokens=3)
    tokens = answer.token_counts
    added = [tokens.num_input_tokens, tokens.num_output_tokens, 1]
    assert counted() == [a + b for a, b in zip(before, added, strict=True)]
