"""The pairs and objectives of word vectors against plain readings of their papers."""

import numpy as np
import pytest
import torch
from attendant_export.data import word_stream
from attendant_export.data.cooccurrences import (
    CooccurrenceBatch,
    Cooccurrences,
    count_cooccurrences,
)
from attendant_export.data.skip_grams import (
    SkipGramDataset,
    SkipGramOptions,
    keep_probabilities,
    near_pairs,
)
from attendant_export.data.word_stream import WordStream
from attendant_export.data.word_tokenizer import train_word_tokenizer
from attendant_export.models.static_embedding import static_architecture
from attendant_export.models.word_vectors import GloVe, SkipGram
from attendant_export.train.word_vectors import GloVeTask, SkipGramTask
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.usefixtures("quiet_threads")

VOCAB_SIZE = 6
DOCUMENTS = st.lists(st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=9), min_size=1, max_size=6)


def stream_of(documents, vocab_size=VOCAB_SIZE):
    ids = [word for document in documents for word in [*document, vocab_size]]
    return WordStream(np.array(ids, np.uint16), vocab_size)


def known(documents):
    """The documents without unknown words."""
    return [[word for word in document if word] for document in documents]


@pytest.fixture
def short_parts(monkeypatch):
    """A text of a few words has several parts."""
    monkeypatch.setattr(word_stream, "PART_WORDS", 5)


def test_words_are_counted_without_unknown_ones_and_ends(short_parts):
    counts = stream_of([[1, 2, 0, 2], [], [5, 2, 2, 1]]).counts()
    assert counts.tolist() == [0, 2, 4, 0, 0, 1]


@pytest.mark.usefixtures("short_parts")
@given(documents=DOCUMENTS, window=st.integers(1, 4))
def test_cooccurrences_are_those_of_a_plain_reading(documents, window):
    expected = np.zeros((VOCAB_SIZE, VOCAB_SIZE))
    for words in known(documents):
        for i, first in enumerate(words):
            for j in range(i + 1, min(i + window + 1, len(words))):
                expected[first, words[j]] += 1 / (j - i)
                expected[words[j], first] += 1 / (j - i)

    cells = count_cooccurrences(stream_of(documents), window)

    found = np.zeros_like(expected)
    found[cells.words, cells.contexts] = cells.counts
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert len(cells) == np.count_nonzero(expected)


@given(documents=DOCUMENTS, reaches=st.lists(st.integers(1, 4), min_size=60, max_size=60))
def test_pairs_are_those_within_the_reach_of_the_first_word(documents, reaches):
    part = stream_of(documents).part(0)
    reach = np.array(reaches[: len(part)], np.int64)
    expected, first = [], 0
    for words in known(documents):
        for i, word in enumerate(words):
            near = [
                *words[max(0, i - reach[first + i]) : i],
                *words[i + 1 : i + reach[first + i] + 1],
            ]
            expected += [(word, each) for each in near]
        first += len(words)
    assert sorted(map(tuple, near_pairs(part, reach).tolist())) == sorted(expected)


def test_frequent_words_are_left_out_as_their_share_says():
    counts = np.array([0, 900, 99, 1])
    np.testing.assert_allclose(
        keep_probabilities(counts, 0.01), [1, np.sqrt(0.01 / 0.9), np.sqrt(0.01 / 0.099), 1]
    )
    assert keep_probabilities(counts, 0).tolist() == [1, 1, 1, 1]
    rng = np.random.default_rng(1)
    stream = stream_of([rng.permutation(np.repeat([1, 2], [9000, 1000])).tolist()])
    options = SkipGramOptions(window=1, subsampling=0.1, num_negatives=1)
    batches = [*SkipGramDataset(stream, stream.counts(), options).batches(rng)]
    words = torch.cat([batch.words for batch in batches])
    assert (words == 1).sum() / (words == 2).sum() == pytest.approx(3, rel=0.1)


def test_negatives_are_drawn_by_counts_to_the_power_of_three_quarters_and_not_the_word_near():
    stream = stream_of([[1, 2] * 4000 + [3] * 500])
    counts, options = stream.counts(), SkipGramOptions(num_negatives=10, max_pairs=1000)
    batches = [*SkipGramDataset(stream, counts, options).batches(np.random.default_rng(2))]
    negatives = torch.cat([batch.contexts[:, 1:] for batch in batches])
    expected = counts**0.75 / (counts**0.75).sum()
    shares = np.bincount(negatives.flatten(), minlength=VOCAB_SIZE) / negatives.numel()
    np.testing.assert_allclose(shares, expected, atol=0.01)
    for batch in batches:
        assert batch.is_counted[:, 0].all()
        is_same = batch.contexts[:, 1:] == batch.contexts[:, :1]
        assert (batch.is_counted[:, 1:] == ~is_same).all()


def test_an_epoch_has_about_the_stated_number_of_batches_and_depends_on_its_seed_alone(short_parts):
    stream = stream_of(np.random.default_rng(3).integers(1, VOCAB_SIZE, (50, 9)).tolist())
    options = SkipGramOptions(window=2, subsampling=0, max_pairs=20)
    dataset = SkipGramDataset(stream, stream.counts(), options)
    first, again, other = ([*dataset.batches(np.random.default_rng(s))] for s in (1, 1, 2))
    assert all((a.contexts == b.contexts).all() for a, b in zip(first, again, strict=True))
    assert any(a.words.tolist() != b.words.tolist() for a, b in zip(first, other, strict=False))
    assert len(first) == pytest.approx(dataset.num_batches(), rel=0.3)
    assert {batch.num_pairs for batch in first[:-1]} == {20}


def skip_gram():
    torch.manual_seed(4)
    model = SkipGram(static_architecture(VOCAB_SIZE, 3, 0)).double()
    torch.nn.init.normal_(model.words.weight)
    torch.nn.init.normal_(model.contexts.weight)
    stream = stream_of([[1, 2, 3, 4, 5, 1, 3]])
    dataset = SkipGramDataset(stream, stream.counts(), SkipGramOptions(subsampling=0))
    [batch] = dataset.batches(np.random.default_rng(5))
    return SkipGramTask(model, dataset, [batch], seed=1), batch


def test_the_objective_of_skip_gram_is_that_of_a_plain_reading():
    task, batch = skip_gram()
    words, contexts = (
        each.weight.detach().numpy() for each in (task.model.words, task.model.contexts)
    )
    total = 0.0
    for word, (near, *negatives) in zip(batch.words.tolist(), batch.contexts.tolist(), strict=True):
        total += np.log(1 / (1 + np.exp(-contexts[near] @ words[word])))
        for negative in negatives:
            if negative != near:
                total += np.log(1 / (1 + np.exp(contexts[negative] @ words[word])))
    mean = total / len(batch.words)
    assert -task.loss(batch).item() == pytest.approx(mean, rel=1e-9)
    assert task.validate() == {"log_likelihood": pytest.approx(mean, rel=1e-9)}


def glove():
    torch.manual_seed(6)
    model = GloVe(static_architecture(VOCAB_SIZE, 3, 0)).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    cells = Cooccurrences(
        np.array([1, 2, 3, 5], np.int32),
        np.array([2, 1, 3, 4], np.int32),
        np.array([0.5, 99, 100, 300], np.float32),
    )
    return GloVeTask(model, cells, cells, max_pairs=10, seed=1), cells


def plain_glove(model, cells):
    """The weights of cells and the errors of their estimates."""
    words, contexts = (each.weight.detach().numpy() for each in (model.words, model.contexts))
    biases, others = (b.detach().numpy() for b in (model.word_biases, model.context_biases))
    weights, errors = [], []
    for i, j, count in zip(cells.words, cells.contexts, cells.counts, strict=True):
        weights.append((count / 100) ** 0.75 if count < 100 else 1.0)
        errors.append(words[i] @ contexts[j] + biases[i] + others[j] - np.log(count))
    return np.array(weights), np.array(errors)


def test_the_objective_of_glove_is_that_of_a_plain_reading():
    task, cells = glove()
    batch = task.train.batch(np.arange(4))
    weights, errors = plain_glove(task.model, cells)
    assert task.loss(batch).item() == pytest.approx((weights * errors**2).mean(), rel=1e-5)
    logarithms = np.log(cells.counts)
    covariances = np.cov(errors + logarithms, logarithms, aweights=weights)
    expected = covariances[0, 1] / np.sqrt(covariances[0, 0] * covariances[1, 1])
    assert task.validate()["correlation"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("make", [skip_gram, glove])
def test_gradients_are_the_slopes_of_the_loss(make):
    task, cells = make()
    batch = cells
    if isinstance(task, GloVeTask):
        chosen = task.train.batch(np.arange(4))
        batch = CooccurrenceBatch(chosen.words, chosen.contexts, chosen.counts.double(), 4)
    parameters = list(task.model.parameters())
    names = [name for name, _ in task.model.named_parameters()]

    def loss(*values):
        named = dict(zip(names, values, strict=True))
        return torch.func.functional_call(
            _Loss(task), {f"model.{n}": v for n, v in named.items()}, batch
        )

    assert torch.autograd.gradcheck(loss, tuple(parameters))


class _Loss(torch.nn.Module):
    def __init__(self, task):
        super().__init__()
        self.model, self.task = task.model, task

    def forward(self, batch):
        return self.task.loss(batch)


def test_the_words_of_a_text_are_the_frequent_ones_in_their_order():
    texts = ["The cat, the dog. THE", "don\u2019t e-mail the cat", "[UNK] cat cafe\u0301 caf\u00e9"]
    tokenizer = train_word_tokenizer(texts, max_words=10, min_count=2)
    assert tokenizer.get_vocab() == {"[UNK]": 0, "the": 1, "cat": 2, "caf\u00e9": 3}
    words = train_word_tokenizer(texts, max_words=50, min_count=1)
    assert words.encode("Don't").tokens == ["don't"]
    assert words.encode("e-mail").tokens == ["e", "-", "mail"]
    assert words.encode("[UNK]").tokens == ["[", "unk", "]"]
    cased = train_word_tokenizer(texts, max_words=3, min_count=2, lower_case=False)
    assert cased.encode("the The").tokens == ["the", "[UNK]"]
    with pytest.raises(ValueError, match="no word occurs 9 times"):
        train_word_tokenizer(texts, max_words=10, min_count=9)
