"""Continuous batching compared with searches for single sentences."""

import random
from functools import partial

import pytest
from attendant_server.engine.calls import Caller, SearchOptions, TranslateCall
from attendant_server.engine.pair_calls import ScoreCall
from attendant_server.engine.translation_scheduler import TranslationScheduler
from attendant_server.errors import DeadlineExceeded, QueueFull

from tests.support.fake_model import (
    BOS,
    EOS,
    VOCAB,
    FakeCache,
    FakeLanguageModel,
    FakeTranslationModel,
    RecordingObserver,
    log_probabilities,
)
from tests.support.limits import translation_limits

KINDS = {"translation": FakeTranslationModel, "language": FakeLanguageModel}
ANY_MODEL = pytest.mark.parametrize(  # with so many tokens of a greedy step
    "model",
    ["translation 1", "translation 2", "translation 5", "language 1", "language 2"],
    indirect=True,
)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def observer():
    return RecordingObserver()


@pytest.fixture
def model(request):
    kind, num_greedy_tokens = getattr(request, "param", "translation 1").split()
    return KINDS[kind](int(num_greedy_tokens))


@pytest.fixture
def scheduler(model, observer, clock):
    limits = translation_limits(max_rows=8, max_queued_texts=60, max_encode_tokens=12)
    return TranslationScheduler("fake", model, limits, observer, clock)


def run(scheduler):
    rounds = 0
    while scheduler.has_work:
        scheduler.advance(is_alone=True)
        rounds += 1
        assert rounds < 10_000, "the scheduler does not come to an end"


def forbidden_tokens(options, tokens, begin=(BOS,)):
    """The tokens that may not follow ``tokens``."""
    is_too_short = len(tokens) < options.min_output_tokens
    never = {*options.suppressed_token_ids, *([EOS] if is_too_short else [])}
    if not (size := options.no_repeat_ngram_size):
        return never
    begun = (*begin, *tokens)
    ngrams = {begun[i : i + size] for i in range(len(begun) - size + 1)}
    return never | {t for t in range(VOCAB) if (*begun, t)[-size:] in ngrams}


def greedy(source, options, forbidden=forbidden_tokens):
    tokens: tuple[int, ...] = ()
    while len(tokens) < options.max_output_tokens and (not tokens or tokens[-1] != EOS):
        scores = log_probabilities(source, tokens)
        allowed = set(range(VOCAB)) - forbidden(options, tokens)
        if not allowed:
            return []
        tokens += (max(sorted(allowed), key=scores.__getitem__),)
    return [tokens]


def beam(source, options, forbidden=forbidden_tokens):
    """Beam search over whole prefixes in one ranked list, without rows or parents."""

    def score(hypothesis):
        tokens, total = hypothesis
        return total / len(tokens) ** options.length_penalty

    width = options.beam_size
    num_wanted = round(options.patience * width)
    running: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    finished: list[tuple[tuple[int, ...], float]] = []
    for num_tokens in range(1, options.max_output_tokens + 1):
        extended = []
        for tokens, total in running:
            never = forbidden(options, tokens)
            for token, log_p in enumerate(log_probabilities(source, tokens)):
                if token not in never:
                    extended.append(((*tokens, token), total + log_p))
        extended.sort(key=lambda h: -h[1])
        finished += [h for h in extended[:width] if h[0][-1] == EOS]
        finished = sorted(finished, key=score, reverse=True)[:num_wanted]
        running = [h for h in extended if h[0][-1] != EOS][:width]
        if num_tokens == options.max_output_tokens:
            finished = sorted(finished + running, key=score, reverse=True)
        elif not running or (
            len(finished) == num_wanted
            and (options.early_stopping or score(running[0]) <= score(finished[-1]))
        ):
            break
    return [tokens for tokens, _ in finished[: options.num_hypotheses]]


def random_options(rng):
    beam_size = rng.choice([1, 1, 1, 2, 3, 4, 5])
    max_output_tokens = rng.randint(1, 14)
    return SearchOptions(
        max_output_tokens=max_output_tokens,
        beam_size=beam_size,
        num_hypotheses=rng.randint(1, beam_size),
        length_penalty=rng.choice([0.0, 0.6, 1.0, 1.7]),
        min_output_tokens=rng.randint(0, max_output_tokens),
        suppressed_token_ids=tuple(rng.sample(range(VOCAB), rng.choice([0, 0, 4, 18, 22]))),
        early_stopping=rng.random() < 0.5,
        patience=rng.choice([1.0, 1.0, 1.5, 3.0]),
        no_repeat_ngram_size=rng.choice([0, 0, 1, 2, 3]),
    )


@pytest.mark.parametrize("seed", range(8))
@ANY_MODEL
def test_any_mixture_of_options_gives_every_text_what_it_gets_alone(scheduler, model, seed):
    rng = random.Random(seed)
    begin = () if isinstance(model, FakeLanguageModel) else (BOS,)
    forbidden = partial(forbidden_tokens, begin=begin)
    calls = []
    for _ in range(30):
        sources = [
            tuple(rng.randint(3, 20) for _ in range(rng.randint(1, 9)))
            for _ in range(rng.randint(1, 3))
        ]
        calls.append(TranslateCall(sources, random_options(rng)))
    for call in calls:
        while scheduler.num_waiting > 40 or (rng.random() < 0.5 and scheduler.has_work):
            scheduler.advance(is_alone=True)
        scheduler.submit(call)
    run(scheduler)
    for call in calls:
        search = greedy if call.options.beam_size == 1 else beam
        expected = [search(source, call.options, forbidden) for source in call.sources]
        found = [[h.token_ids for h in hypotheses] for hypotheses in call.future.result()]
        assert found == expected


@ANY_MODEL
@pytest.mark.parametrize("beam_size", [1, 3])
def test_scores_are_sums_of_log_probabilities_over_the_penalized_length(scheduler, beam_size):
    options = SearchOptions(9, beam_size, num_hypotheses=beam_size, length_penalty=0.7)
    call = TranslateCall([(5, 6, 7)], options)
    scheduler.submit(call)
    run(scheduler)
    (hypotheses,) = call.future.result()
    for h in hypotheses:
        expected = [
            log_probabilities((5, 6, 7), h.token_ids[:i])[token]
            for i, token in enumerate(h.token_ids)
        ]
        assert h.log_probabilities == pytest.approx(expected)
        assert h.score == pytest.approx(sum(expected) / len(expected) ** 0.7)
    assert [h.score for h in hypotheses] == sorted((h.score for h in hypotheses), reverse=True)


def test_rows_are_reused_at_the_step_after_their_owner_ends(scheduler, observer):
    rng = random.Random(3)
    for _ in range(40):
        source = tuple(rng.randint(3, 20) for _ in range(2))
        scheduler.submit(
            TranslateCall([source], SearchOptions(max_output_tokens=rng.randint(1, 12)))
        )
    run(scheduler)
    saturated = [report for report in observer.steps if report.num_waiting]
    assert len(saturated) > 10
    assert all(report.num_rows == report.max_rows for report in saturated[2:])


@pytest.mark.parametrize(("beam_size", "num_rows"), [(1, 3), (2, 6), (4, 8)])
def test_sentences_beyond_their_limit_wait_though_there_are_rows(
    model, observer, clock, beam_size, num_rows
):
    limits = translation_limits(max_rows=8, max_queued_texts=50, max_sentences=3)
    scheduler = TranslationScheduler("fake", model, limits, observer, clock)
    options = SearchOptions(max_output_tokens=5, beam_size=beam_size)
    calls = [TranslateCall([(5, 6, n)], options) for n in range(3, 13)]
    for call in calls:
        scheduler.submit(call)
    run(scheduler)
    assert all(call.future.done() for call in calls)
    saturated = [report for report in observer.steps if report.num_waiting]
    assert max(report.num_rows for report in observer.steps) == num_rows
    assert {report.max_rows for report in saturated if report.num_rows == num_rows} == {num_rows}


def test_sources_encoded_between_two_steps_are_bounded(scheduler, model):
    for length in (4, 4, 4, 4, 20, 3):
        scheduler.submit(TranslateCall([(5,) * length], SearchOptions(max_output_tokens=30)))
    run(scheduler)
    padded = [max(map(len, batch)) * len(batch) for batch in model.encoded]
    assert all(n <= 12 or len(b) == 1 for n, b in zip(padded, model.encoded, strict=True))


def test_a_cancelled_call_is_in_no_step_that_starts_later(scheduler, model, observer):
    endless = SearchOptions(max_output_tokens=1000, min_output_tokens=1000)
    kept, cancelled = TranslateCall([(5,)], endless), TranslateCall([(6,)], endless)
    scheduler.submit(kept)
    scheduler.submit(cancelled)
    scheduler.advance(is_alone=True)
    cancelled.future.cancel()
    scheduler.advance(is_alone=True)
    assert model.steps == [(1, 2), (1, 1)]
    assert observer.dropped == [("cancelled", 1)]


def test_an_expired_call_is_in_no_step_that_starts_later(scheduler, model, clock, observer):
    endless = SearchOptions(max_output_tokens=1000, min_output_tokens=1000)
    late = TranslateCall([(6,), (7,)], endless, deadline=5.0)
    scheduler.submit(late)
    scheduler.submit(TranslateCall([(5,)], endless))
    scheduler.advance(is_alone=True)
    clock.now = 5.0
    scheduler.advance(is_alone=True)
    assert model.steps == [(1, 3), (1, 1)]
    assert isinstance(late.future.exception(), DeadlineExceeded)
    assert observer.dropped == [("expired", 2)]


def test_a_call_that_expires_in_the_queue_is_never_encoded(scheduler, model, clock):
    call = TranslateCall([(6,)], SearchOptions(max_output_tokens=3), deadline=1.0)
    scheduler.submit(call)
    clock.now = 2.0
    run(scheduler)
    assert model.encoded == []
    assert isinstance(call.future.exception(), DeadlineExceeded)


def test_a_full_queue_admits_none_of_a_call_and_says_when_to_return(scheduler, clock):
    options = SearchOptions(max_output_tokens=3)
    scheduler.submit(TranslateCall([(5,)] * 59, options))
    clock.now = 7.0
    with pytest.raises(QueueFull) as refusal:
        scheduler.submit(TranslateCall([(5,)] * 2, options))
    assert refusal.value.retry_after_seconds == 7.0
    assert scheduler.num_waiting == 59
    last = TranslateCall([(5,)], options)
    last.caller = Caller("another")
    scheduler.submit(last)


def test_cancelling_frees_places_in_the_queue_at_once(scheduler):
    options = SearchOptions(max_output_tokens=3)
    call = TranslateCall([(5,)] * 60, options)
    scheduler.submit(call)
    call.future.cancel()
    assert scheduler.num_waiting == 0
    scheduler.submit(TranslateCall([(5,)] * 60, options))


@ANY_MODEL
@pytest.mark.parametrize("beam_size", [1, 4])
def test_settled_prefixes_only_grow_and_begin_the_best_hypothesis(scheduler, beam_size):
    prefixes: list[tuple[int, ...]] = []
    options = SearchOptions(max_output_tokens=12, beam_size=beam_size, min_output_tokens=6)
    call = TranslateCall([(9, 4)], options, on_prefix=prefixes.append)
    scheduler.submit(call)
    run(scheduler)
    best = call.future.result()[0][0].token_ids
    assert prefixes
    assert all(best[: len(prefix)] == prefix for prefix in prefixes)
    assert [len(p) for p in prefixes] == sorted({len(p) for p in prefixes})


def test_scoring_gives_the_log_probability_of_every_target_token(scheduler):
    call = ScoreCall([((5, 6), (7, 8, EOS)), ((9,), (EOS,))])
    scheduler.submit(call)
    run(scheduler)
    first, second = call.future.result()
    assert first.log_probabilities.tolist() == pytest.approx(
        [
            log_probabilities((5, 6), ())[7],
            log_probabilities((5, 6), (7,))[8],
            log_probabilities((5, 6), (7, 8))[EOS],
        ]
    )
    assert len(second.log_probabilities) == 1


def test_the_first_input_of_the_decoder_is_the_begin_token(model):
    first_tokens: list[list[int]] = []

    class SpyingCache(FakeCache):
        def step(self, num_slots, step_input):
            first_tokens.append(step_input.tokens.tolist())
            return super().step(num_slots, step_input)

    model.new_cache = lambda step, width, max_slots, _: SpyingCache(model, width, max_slots, step)
    scheduler = TranslationScheduler(
        "fake", model, translation_limits(max_rows=2), RecordingObserver(), Clock()
    )
    scheduler.submit(TranslateCall([(5,)], SearchOptions(max_output_tokens=2)))
    scheduler.advance(is_alone=True)
    assert first_tokens == [[BOS]]


@pytest.mark.parametrize("model", ["language 1"], indirect=True)
def test_the_first_input_after_a_prompt_is_its_last_token(model):
    inputs: list[tuple[list[int], list[int]]] = []

    class SpyingCache(FakeCache):
        def step(self, num_slots, step_input):
            inputs.append((step_input.tokens.tolist(), step_input.lengths.tolist()))
            return super().step(num_slots, step_input)

    model.new_cache = lambda step, width, max_slots, _: SpyingCache(model, width, max_slots, step)
    scheduler = TranslationScheduler(
        "fake", model, translation_limits(max_rows=4), RecordingObserver(), Clock()
    )
    scheduler.submit(TranslateCall([(5, 6, 7), (8,)], SearchOptions(max_output_tokens=2)))
    scheduler.advance(is_alone=True)
    assert inputs == [([7, 8], [2, 0])]


def test_a_call_that_ends_while_others_are_encoded_is_in_no_step(scheduler, model):
    options = SearchOptions(max_output_tokens=9, min_output_tokens=9)
    call = TranslateCall([(5, 6)], options)
    scheduler.submit(call)
    scheduler.advance(is_alone=True)
    encode = model.encode

    def cancelling(sources):
        call.future.cancel()
        return encode(sources)

    model.encode = cancelling
    scheduler.submit(TranslateCall([(7,)], options))
    scheduler.advance(is_alone=True)
    assert model.steps == [(1, 1), (1, 1)]
