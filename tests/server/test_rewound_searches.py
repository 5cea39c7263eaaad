"""Greedy searches that are taken back from loops, beside other ones."""

import random

import pytest
from attendant_server.engine.calls import SearchOptions, TranslateCall
from attendant_server.engine.repetition_guard import MAX_REWINDS, least_occurrences, loop_start
from attendant_server.engine.translation_scheduler import TranslationScheduler

from tests.support.fake_model import (
    EOS,
    VOCAB,
    FakeTranslationModel,
    RecordingObserver,
    log_probabilities,
)
from tests.support.limits import translation_limits


class RepetitiveModel(FakeTranslationModel):
    """A model whose next token depends on the last two tokens alone, so that it repeats itself."""

    def log_probabilities(self, source, prefix):
        scores = list(log_probabilities(source, prefix[-2:]))
        scores[EOS] += 0.25 * len(prefix) - 12
        return scores


def guarded(model, source, options):
    """A greedy search that is taken back from each loop, for as long as it may be."""
    tokens: list[int] = []
    forbidden, num_rewinds, kept = set(), 0, 0
    while len(tokens) < options.max_output_tokens and tokens[-1:] != [EOS]:
        scores = model.log_probabilities(source, tuple(tokens))
        allowed = [t for t in range(VOCAB) if (len(tokens), t) not in forbidden]
        tokens.append(max(allowed, key=scores.__getitem__))
        is_finished = tokens[-1] == EOS or len(tokens) == options.max_output_tokens
        start = loop_start(tokens, least_occurrences(source))
        if start is not None and not is_finished:
            assert num_rewinds < MAX_REWINDS
            kept, num_rewinds = max(kept, start), num_rewinds + 1
            forbidden.add((kept, tokens[kept]))
            del tokens[kept:]
    return tuple(tokens), num_rewinds


@pytest.mark.parametrize("tokens_of_a_step", [1, 2, 5])
def test_sentences_that_back_out_of_loops_get_what_they_get_alone(tokens_of_a_step):
    model = RepetitiveModel(tokens_of_a_step)
    limits = translation_limits(max_rows=8, max_queued_texts=100)
    scheduler = TranslationScheduler("fake", model, limits, RecordingObserver(), lambda: 0.0)
    rng = random.Random(1)
    options = SearchOptions(40, repetition_guard=True)
    sources = [tuple(rng.randint(3, 20) for _ in range(rng.randint(1, 9))) for _ in range(60)]
    streamed: dict[int, list[tuple[int, ...]]] = {i: [] for i in range(0, 60, 3)}
    calls = []
    for i, source in enumerate(sources):
        on_prefix = streamed[i].append if i in streamed else None
        calls.append(TranslateCall([source], options, on_prefix=on_prefix))
        scheduler.submit(calls[-1])
        scheduler.advance(is_alone=True)
    while scheduler.has_work:
        scheduler.advance(is_alone=True)
    found = [call.future.result()[0][0] for call in calls]
    expected = [guarded(model, source, options) for source in sources]
    assert [(h.token_ids, h.num_rewinds) for h in found] == expected
    assert sum(h.num_rewinds > 0 for h in found) > 10
    for i, prefixes in streamed.items():
        assert all(found[i].token_ids[: len(prefix)] == prefix for prefix in prefixes)
    for hypothesis, source in zip(found, sources, strict=True):
        assert hypothesis.log_probabilities == pytest.approx(
            [
                model.log_probabilities(source, hypothesis.token_ids[:i])[token]
                for i, token in enumerate(hypothesis.token_ids)
            ]
        )


@pytest.mark.parametrize("tokens_of_a_step", [1, 2, 5])
def test_a_search_without_another_token_repeats_itself(tokens_of_a_step):
    model = FakeTranslationModel(tokens_of_a_step)
    limits = translation_limits(max_rows=8, max_queued_texts=100)
    scheduler = TranslationScheduler("fake", model, limits, RecordingObserver(), lambda: 0.0)
    all_but_one = tuple(token for token in range(VOCAB) if token != 7)
    options = SearchOptions(12, suppressed_token_ids=all_but_one, repetition_guard=True)
    for on_prefix in (None, lambda prefix: None):
        call = TranslateCall([(5, 6, 7)], options, on_prefix=on_prefix)
        scheduler.submit(call)
        while scheduler.has_work:
            scheduler.advance(is_alone=True)
        [[found]] = call.future.result()
        assert found.token_ids == (7,) * 12
        assert found.num_rewinds == 0
        assert len(found.log_probabilities) == 12
