"""Language models over ONNX Runtime, decoded by the engine, against their scorer."""

import random
from pathlib import Path

import numpy as np
import pytest
from attendant_server.bundles import read_bundle
from attendant_server.engine.calls import SearchOptions, TranslateCall
from attendant_server.engine.pair_calls import ScoreCall
from attendant_server.engine.translation_scheduler import TranslationScheduler
from attendant_server.runtime.device_models import DeviceLanguageModel
from attendant_server.runtime.language_model import OnnxLanguageModel
from attendant_server.runtime.model_graphs import RunCounter

from tests.support.bundles import MAX_TOKENS
from tests.support.fake_model import RecordingObserver
from tests.support.language_models import gpt2_like, write_random_language_model
from tests.support.limits import translation_limits

TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=["rotary", "learned"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    architecture = gpt2_like() if request.param == "learned" else None
    folder = tmp_path_factory.mktemp("bundles")
    return write_random_language_model(folder, architecture=architecture)


@pytest.fixture(scope="module", params=[OnnxLanguageModel, DeviceLanguageModel])
def model(request: pytest.FixtureRequest, bundle: Path) -> OnnxLanguageModel:
    return request.param(read_bundle(bundle, "fp32", "cpu"), 1, "cpu", RunCounter(1))


def new_scheduler(
    model: OnnxLanguageModel, observer: RecordingObserver | None = None
) -> TranslationScheduler:
    limits = translation_limits(max_rows=8, max_queued_texts=60, max_encode_tokens=64)
    return TranslationScheduler("lm", model, limits, observer or RecordingObserver(), lambda: 0.0)


def answers(model, calls, observer=None):
    scheduler = new_scheduler(model, observer)
    for call in calls:
        scheduler.submit(call)
        scheduler.advance(is_alone=True)
    while scheduler.has_work:
        scheduler.advance(is_alone=True)
    return [call.future.result() for call in calls]


def prompts_of(model, rng, number, longest=30):
    lengths = [1, 2, longest, *(rng.randint(1, longest) for _ in range(number - 3))]
    return [[rng.randrange(3, model.vocab_size) for _ in range(length)] for length in lengths]


def scores_of(model, prompt, token_ids):
    return model.score([(prompt, token_ids)])[0].log_probabilities


def test_each_greedy_token_is_the_likeliest_one_by_the_scorer(model):
    rng = random.Random(1)
    calls = [TranslateCall([prompt], SearchOptions(12)) for prompt in prompts_of(model, rng, 9)]
    for call, [[hypothesis]] in zip(calls, answers(model, calls), strict=True):
        prompt, tokens = call.sources[0], hypothesis.token_ids
        expected = scores_of(model, prompt, tokens)
        np.testing.assert_allclose(hypothesis.log_probabilities, expected, atol=TOLERANCE)
        for i in range(0, len(tokens), 4):
            others = [(prompt, [*tokens[:i], token]) for token in range(model.vocab_size)]
            best = max(score.log_probabilities[-1] for score in model.score(others))
            assert best <= expected[i] + TOLERANCE


@pytest.mark.parametrize("penalty", [1.0, 50.0])
def test_greedy_search_decodes_two_tokens_in_a_step_unless_it_has_a_penalty(model, penalty):
    is_on_a_device = isinstance(model, DeviceLanguageModel)  # whose steps are of one token
    tokens_in_a_step = 2 if penalty == 1 and not is_on_a_device else 1
    options = SearchOptions(12, repetition_penalty=penalty, suppressed_token_ids=(model.eos_id,))
    observer = RecordingObserver()
    [[[hypothesis]]] = answers(model, [TranslateCall([[7, 8, 9]], options)], observer)
    assert len(observer.steps) == 12 / tokens_in_a_step
    if penalty != 1:
        assert len(set(hypothesis.token_ids)) == 12


@pytest.mark.parametrize("beam_size", [1, 3])
def test_neighbours_do_not_matter(model, beam_size):
    rng = random.Random(beam_size)
    sources = prompts_of(model, rng, 12)
    options = [
        SearchOptions(rng.randint(2, 20), beam_size, num_hypotheses=beam_size) for _ in sources
    ]
    options[3] = SearchOptions(9, 1, no_repeat_ngram_size=2)  # in steps of one token

    def calls():
        return [TranslateCall([s], o) for s, o in zip(sources, options, strict=True)]

    together = answers(model, calls())
    alone = [answers(model, [call])[0] for call in calls()]
    for [found], [expected] in zip(together, alone, strict=True):
        assert [h.token_ids for h in found] == [h.token_ids for h in expected]
        for h, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(h.log_probabilities, other.log_probabilities, atol=TOLERANCE)


def test_beams_have_the_log_probabilities_of_the_scorer(model):
    rng = random.Random(5)
    sources = prompts_of(model, rng, 6)
    options = SearchOptions(10, beam_size=4, num_hypotheses=4)
    [results] = answers(model, [TranslateCall(sources, options)])
    for prompt, hypotheses in zip(sources, results, strict=True):
        for h in hypotheses:
            expected = scores_of(model, prompt, h.token_ids)
            np.testing.assert_allclose(h.log_probabilities, expected, atol=TOLERANCE)


def test_prompt_and_continuation_reach_the_limit_together(model):
    prompt = [7, 8, 9]
    options = SearchOptions(MAX_TOKENS - 3, min_output_tokens=MAX_TOKENS - 3)
    options = options._replace(suppressed_token_ids=(model.eos_id,))
    [[[hypothesis]]] = answers(model, [TranslateCall([prompt], options)])
    assert len(hypothesis.token_ids) == MAX_TOKENS - 3
    expected = scores_of(model, prompt, hypothesis.token_ids)
    np.testing.assert_allclose(hypothesis.log_probabilities, expected, atol=TOLERANCE)


def test_scores_are_those_of_the_tokens_after_the_first_one(model):
    texts = [[5, 9, 11, 3], [8, 20], [6] * 30]
    calls = [ScoreCall([(text[:1], text[1:])]) for text in texts]
    for text, [score] in zip(texts, answers(model, calls), strict=True):
        assert len(score.log_probabilities) == len(text) - 1
        expected = scores_of(model, text[:-1], text[-1:])
        assert score.log_probabilities[-1:] == pytest.approx(expected, abs=TOLERANCE)
