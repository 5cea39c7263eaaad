"""Diverse beam search and alternatives, compared with naive searches over whole prefixes."""

import random
from collections import Counter
from functools import partial
from math import inf
from os.path import commonprefix

import pytest
from attendant_server.engine.calls import SearchOptions, TranslateCall
from attendant_server.engine.grouped_search import AlternativesSearch, DiverseBeamSearch
from attendant_server.engine.translation_scheduler import TranslationScheduler

from tests.server.test_translation_scheduler import (
    Clock,
    beam,
    forbidden_tokens,
    greedy,
    random_options,
    run,
)
from tests.support.fake_model import (
    BOS,
    EOS,
    VOCAB,
    FakeTranslationModel,
    RecordingObserver,
    log_probabilities,
)
from tests.support.limits import translation_limits


@pytest.fixture(params=[1, 2])
def scheduler(request):
    limits = translation_limits(max_rows=12, max_queued_texts=90, max_encode_tokens=12)
    model = FakeTranslationModel(request.param)
    return TranslationScheduler("fake", model, limits, RecordingObserver(), Clock())


class NaiveGroup:
    """A beam search over whole prefixes, of which each step may see penalties of tokens."""

    def __init__(self, source, options, width, start=()):
        self.source, self.options, self.width = source, options, width
        self.running = [(start, 0.0, 0.0)]
        """Tokens, sum of the ranking, sum of log-probabilities."""
        self.finished = []
        self.is_over = False

    def score(self, hypothesis):
        return hypothesis[1] / len(hypothesis[0]) ** self.options.length_penalty

    def step(self, penalties=None):
        options, num_wanted = self.options, round(self.options.patience * self.width)
        extended = []
        for tokens, total, log_total in self.running:
            never = forbidden_tokens(options, tokens)
            for token, log_p in enumerate(log_probabilities(self.source, tokens)):
                if token not in never:
                    ranking = log_p - (penalties[token] if penalties else 0.0)
                    extended.append(((*tokens, token), total + ranking, log_total + log_p))
        extended.sort(key=lambda h: -h[1])
        self.finished += [h for h in extended[: self.width] if h[0][-1] == EOS]
        self.finished = sorted(self.finished, key=self.score, reverse=True)[:num_wanted]
        self.running = [h for h in extended if h[0][-1] != EOS][: self.width]
        if self.running and len(self.running[0][0]) == options.max_output_tokens:
            self.finished = sorted(self.finished + self.running, key=self.score, reverse=True)
            self.is_over = True
        elif not self.running or (
            len(self.finished) == num_wanted
            and (
                options.early_stopping
                or self.score(self.running[0]) <= self.score(self.finished[-1])
            )
        ):
            self.is_over = True

    def results(self):
        """Tokens and score of the finished hypotheses, best first."""
        power = self.options.length_penalty
        return [(tokens, total / len(tokens) ** power) for tokens, _, total in self.finished]


def diverse(source, options):
    num_groups, prefix = options.num_beam_groups, options.forced_token_ids
    width = options.beam_size // num_groups
    groups = [NaiveGroup(source, options, width, prefix) for _ in range(num_groups)]
    while not all(group.is_over for group in groups):
        penalties = Counter[int]()
        for group in groups:
            if not group.is_over:
                group.step(penalties)
            if not group.is_over:
                for tokens, _, _ in group.running:
                    penalties[tokens[-1]] += options.diversity_penalty
    found = []
    for rank in range(width * 4):
        of_rank = [
            group.results()[rank] for group in groups if rank < min(width, len(group.finished))
        ]
        for tokens, _ in sorted(of_rank, key=lambda result: -result[1]):
            if tokens not in found:
                found.append(tokens)
    return found[: options.num_hypotheses]


def alternatives(source, options):
    prefix, found = options.forced_token_ids, []
    never = forbidden_tokens(options, prefix)
    following = log_probabilities(source, prefix)
    allowed = [token for token in range(VOCAB) if token not in never]
    best = sorted(allowed, key=lambda token: -following[token])[: options.num_alternatives]
    for token in best:
        group = NaiveGroup(source, options, options.beam_size)
        group.running = [((*prefix, token), following[token], following[token])]
        if token == EOS or len(prefix) + 1 == options.max_output_tokens:
            found.append((*prefix, token))
        elif options.beam_size == 1:
            tokens = (*prefix, token)
            while tokens[-1] != EOS and len(tokens) < options.max_output_tokens:
                forbidden = forbidden_tokens(options, tokens)
                allowed = [t for t in range(VOCAB) if t not in forbidden]
                if not allowed:
                    break
                tokens += (max(allowed, key=log_probabilities(source, tokens).__getitem__),)
            if tokens[-1] == EOS or len(tokens) == options.max_output_tokens:
                found.append(tokens)
        else:
            while not group.is_over:
                group.step()
            found += [tokens for tokens, _ in group.results()[:1]]
    return found


def with_prefix(rng, options):
    """The options with forced tokens, which rules do not have to allow, or as they are."""
    prefix = tuple(rng.randint(3, VOCAB - 1) for _ in range(rng.choice([0, 0, 0, 1, 2])))
    if not prefix:
        # The model gives tokens 0 and 1 equal probabilities, between which any search may choose.
        others = rng.sample(range(2, VOCAB), rng.choice([0, 4, 16]))
        return options._replace(suppressed_token_ids=(0, 1, *others))
    most = max(options.max_output_tokens, len(prefix) + 1)
    return options._replace(
        forced_token_ids=prefix,
        max_output_tokens=most,
        suppressed_token_ids=(),
        no_repeat_ngram_size=0,
    )


def diverse_options(rng):
    num_groups, width = rng.choice([(2, 1), (2, 2), (3, 1), (2, 3), (5, 1), (3, 2)])
    options = random_options(rng)._replace(
        beam_size=num_groups * width,
        num_beam_groups=num_groups,
        diversity_penalty=rng.choice([0.0, 0.3, 1.0, 5.0, 100.0]),
        num_hypotheses=rng.randint(1, num_groups * width),
    )
    return with_prefix(rng, options)


def alternatives_options(rng):
    num_alternatives, beam_size = rng.choice([(2, 1), (5, 1), (3, 2), (2, 3), (4, 1)])
    options = random_options(rng)._replace(
        beam_size=beam_size, num_alternatives=num_alternatives, num_hypotheses=num_alternatives
    )
    return with_prefix(rng, options)


def expected_of(source, options):
    if options.num_beam_groups > 1:
        return diverse(source, options)
    if options.num_alternatives > 1:
        return alternatives(source, options)
    return (greedy if options.beam_size == 1 else beam)(source, options)


@pytest.mark.parametrize("seed", range(12))
def test_grouped_searches_among_others_give_what_naive_searches_give(scheduler, seed):
    rng = random.Random(seed)
    kinds = [diverse_options, alternatives_options, random_options]
    calls = []
    for _ in range(30):
        sources = [
            tuple(rng.randint(3, 20) for _ in range(rng.randint(1, 9)))
            for _ in range(rng.randint(1, 3))
        ]
        calls.append(TranslateCall(sources, rng.choice(kinds)(rng)))
    for call in calls:
        while scheduler.num_waiting > 60 or (rng.random() < 0.5 and scheduler.has_work):
            scheduler.advance(is_alone=True)
        scheduler.submit(call)
    run(scheduler)
    for call in calls:
        found = [[h.token_ids for h in hypotheses] for hypotheses in call.future.result()]
        assert found == [expected_of(source, call.options) for source in call.sources]


def results(scheduler, options, source=(5, 6, 7)):
    call = TranslateCall([source], options)
    scheduler.submit(call)
    run(scheduler)
    (hypotheses,) = call.future.result()
    return hypotheses


def test_log_probabilities_and_scores_are_those_of_the_model_without_penalties(scheduler):
    options = SearchOptions(9, 4, 4, length_penalty=0.7, num_beam_groups=2, diversity_penalty=3.0)
    for options_of in (options, SearchOptions(9, 2, 3, length_penalty=0.7, num_alternatives=3)):
        for h in results(scheduler, options_of):
            expected = [
                log_probabilities((5, 6, 7), h.token_ids[:i])[token]
                for i, token in enumerate(h.token_ids)
            ]
            assert h.log_probabilities == pytest.approx(expected)
            assert h.score == pytest.approx(sum(expected) / len(expected) ** 0.7)


def test_a_penalty_makes_the_first_hypotheses_differ_more(scheduler):
    def num_different(penalty):
        options = SearchOptions(9, 4, 4, 1.0, 6, num_beam_groups=4, diversity_penalty=penalty)
        found = results(scheduler, options)
        return len({h.token_ids[0] for h in found})

    assert num_different(0.0) == 1
    assert num_different(100.0) == 4


def test_without_a_penalty_all_groups_find_the_same(scheduler):
    found = results(scheduler, SearchOptions(9, 4, 4, num_beam_groups=2))
    alone = results(scheduler, SearchOptions(9, 2, 2))
    assert [h.token_ids for h in found] == [h.token_ids for h in alone]


def random_step(rng, width):
    token_ids = [rng.sample(range(VOCAB), 2 * width) for _ in range(width)]
    return token_ids, [sorted((rng.uniform(-3, 0) for _ in row), reverse=True) for row in token_ids]


@pytest.mark.parametrize("seed", range(60))
def test_settled_tokens_only_grow_and_all_hypotheses_begin_with_them(seed):
    rng = random.Random(seed)
    options = (diverse_options if seed % 2 else alternatives_options)(rng)
    make = DiverseBeamSearch if seed % 2 else AlternativesSearch
    search = partial(make, options, BOS, EOS)()
    settled: tuple[int, ...] = ()
    while not search.is_finished:
        search.advance(*random_step(rng, search.width))
        assert len(search.prefixes()) == len(search.next_tokens) == search.width
        assert {len(prefix) for prefix in search.prefixes()} == {search.num_tokens}
        assert search.settled_prefix()[: len(settled)] == settled
        settled = search.settled_prefix()
        assert search.num_settled == len(settled)
    prefixes = [each.token_ids for each in search.hypotheses()]
    assert tuple(commonprefix(prefixes))[: len(settled)] == settled


@pytest.mark.parametrize("seed", range(40))
def test_loops_end_in_their_groups_only(seed):
    rng = random.Random(seed)
    num_groups, width = rng.choice([(2, 1), (2, 2), (3, 1), (3, 2)])
    options = SearchOptions(
        14, num_groups * width, num_groups * width, num_beam_groups=num_groups, min_output_tokens=14
    )
    searches = [DiverseBeamSearch(options, BOS, EOS) for _ in range(2)]
    looping = rng.randrange(num_groups)
    for number in range(14):
        token_ids, log_probabilities = random_step(rng, num_groups * width)
        ends = [row.index(EOS) if EOS in row else None for row in token_ids]
        for row, end in zip(log_probabilities, ends, strict=True):
            if end is not None:
                row[end] = -inf  # as the rule of the least length does
        for search in searches:
            search.advance(token_ids, log_probabilities)
        if number == 5:
            rows = range(looping * width, (looping + 1) * width)
            searches[1].end_loops(dict.fromkeys(rows, 2))
    plain, ended = ({h.token_ids for h in search.hypotheses()} for search in searches)
    cut = {tokens for tokens in ended if len(tokens) == 2}
    assert cut
    assert ended - cut < plain
    assert len(ended - cut) == (num_groups - 1) * width
