"""Shortlists hold the translations of a source, and do not affect other sentences."""

import numpy as np
import pytest
from attendant_export.data.shortlists import MAX_TOKENS, Shortlists, Vocabulary, learn_shortlists
from attendant_export.graphs.writer import write_translation_graphs
from attendant_export.verify.decoder import SampleSentences
from attendant_export.verify.graph_sessions import ParityError, TranslationGraphs
from attendant_export.verify.reference_cache import ReferenceCache
from attendant_export.verify.shortlists import check_shortlists

from tests.support.graphs import manifest_of, tiny_transformer

SPECIAL_IDS = range(4)
VOCABULARY = Vocabulary(200, SPECIAL_IDS)
EOS = 2
SAMPLE = SampleSentences(
    [[5, 9, 33, 2], [7, 7, 12, 40, 31, 22, 8, 2], [49, 2], [11, 30, 6, 17, 25, 2]], [8, 9, 6, 8]
)


def dictionary_pairs(num_pairs=300):
    """Texts of words 10 to 59. Each translation is the word plus 100, in shuffled order."""
    rng = np.random.default_rng(0)
    for _ in range(num_pairs):
        words = rng.choice(np.arange(10, 60), 5, replace=False)
        yield [*words.tolist(), EOS], [*(rng.permutation(words) + 100).tolist(), EOS]


def test_the_likeliest_translation_of_a_word_is_found_among_those_it_occurs_with():
    shortlists = learn_shortlists(dictionary_pairs(), VOCABULARY)
    for word in range(10, 60):
        assert shortlists.translations[word][:2].tolist() == [word, word + 100]


def test_special_tokens_are_on_every_list():
    shortlists = learn_shortlists(dictionary_pairs(), VOCABULARY)
    assert set(SPECIAL_IDS) <= set(shortlists.frequent.tolist())


def test_the_most_frequent_tokens_are_on_every_list():
    pairs = [([10, EOS], [50 + i % 3, 70 + i, EOS]) for i in range(90)]
    shortlists = learn_shortlists(pairs, VOCABULARY)
    assert {50, 51, 52} <= set(shortlists.frequent.tolist())


def test_a_word_that_never_occurred_adds_nothing_but_itself():
    shortlists = learn_shortlists(dictionary_pairs(), VOCABULARY)
    assert set(shortlists.translations[190].tolist()) - set(shortlists.frequent.tolist()) == {190}


def test_special_tokens_add_nothing_even_if_a_text_writes_them():
    pairs = [*dictionary_pairs(), *[([10, 0, EOS], [110, 180, EOS])] * 50]
    shortlists = learn_shortlists(pairs, VOCABULARY)
    assert set(shortlists.translations[list(SPECIAL_IDS)].ravel().tolist()) == {0}


def test_sources_with_a_vocabulary_of_their_own_have_lists_of_targets_only():
    pairs = [([100 + i for i in source], target) for source, target in dictionary_pairs()]
    shortlists = learn_shortlists(pairs, VOCABULARY, Vocabulary(300, [100 + EOS, 299]))
    assert len(shortlists.translations) == 300
    for word in range(10, 60):
        assert shortlists.translations[100 + word][1] == word + 100
    assert set(shortlists.translations[[100 + EOS, 299]].ravel().tolist()) == {0}
    assert shortlists.translations.max() < 200


def test_a_small_vocabulary_gets_no_shortlists():
    with pytest.raises(ValueError, match="a vocabulary of 60 tokens is too small"):
        learn_shortlists(dictionary_pairs(), Vocabulary(60, SPECIAL_IDS))


def test_there_is_nothing_to_learn_from_long_or_empty_texts():
    with pytest.raises(ValueError, match="pairs of texts of at most 64 tokens"):
        learn_shortlists([([5] * (MAX_TOKENS + 1), [5, EOS]), ([], [EOS])], VOCABULARY)


def open_graphs(folder, kind=TranslationGraphs):
    model = tiny_transformer(norm_first=True)
    rng = np.random.default_rng(1)
    translations = rng.integers(4, 50, (50, 4)).astype(np.int32)
    translations[0] = 0  # as for all special tokens
    shortlists = Shortlists(np.arange(8, dtype=np.int32), translations)
    written = write_translation_graphs(model, "fp32", folder, shortlists=shortlists)
    graphs = kind(folder, written, manifest_of(model))
    return graphs, shortlists


def test_the_encoder_gives_each_source_its_translations_and_the_frequent_tokens(tmp_path):
    graphs, shortlists = open_graphs(tmp_path)
    for source, listed in zip(SAMPLE.sources, graphs.shortlists(SAMPLE.sources), strict=True):
        own = set(shortlists.translations[source].ravel().tolist())
        assert set(listed.tolist()) == own | set(shortlists.frequent.tolist())


def test_graphs_with_shortlists_are_checked_with_lists_of_their_own(tmp_path):
    graphs, _ = open_graphs(tmp_path)
    check_shortlists(graphs, SAMPLE, 1e-4)


def test_tokens_that_are_not_on_the_list_are_refused(tmp_path, monkeypatch):
    join = ReferenceCache.join

    def without_lists(cache, sources):
        join(cache, sources)
        cache._may_use[:] = True

    monkeypatch.setattr(ReferenceCache, "join", without_lists)
    graphs, _ = open_graphs(tmp_path)
    with pytest.raises(ParityError, match="tokens that are not on the shortlist"):
        check_shortlists(graphs, SAMPLE, 1e-4)


class ListsOfPadding(TranslationGraphs):
    """Graphs whose shortlists wrongly include the translations of padding."""

    def shortlists(self, sources):
        longest = max(map(len, sources))
        padding = [np.full(25, EOS) if len(s) == longest else np.arange(25, 50) for s in sources]
        return np.concatenate([super().shortlists(sources), padding], axis=1)


def test_lists_that_depend_on_padding_are_refused(tmp_path):
    graphs, _ = open_graphs(tmp_path, ListsOfPadding)
    with pytest.raises(ParityError, match="in a batch than alone"):
        check_shortlists(graphs, SAMPLE, 1e-4)


def test_lists_that_get_lost_among_others_are_refused(tmp_path, monkeypatch):
    leave = ReferenceCache.leave

    def left_behind(cache, slot):
        lists = cache._may_use.copy()
        leave(cache, slot)
        cache._may_use[:] = lists

    monkeypatch.setattr(ReferenceCache, "leave", left_behind)
    graphs, _ = open_graphs(tmp_path)
    with pytest.raises(ParityError, match="in a batch than alone"):
        check_shortlists(graphs, SAMPLE, 1e-4)
