"""The pairs and objectives of word vectors against plain readings of their papers."""

import itertools
from dataclasses import replace

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
    SkipGramBatch,
    SkipGramDataset,
    SkipGramOptions,
    keep_probabilities,
    near_pairs,
)
from attendant_export.data.word_stream import WordStream
from attendant_export.data.word_tokenizer import train_word_tokenizer
from attendant_export.models.static_embedding import static_architecture
from attendant_export.models.word_vectors import GloVe, SkipGram
from attendant_export.runs import checkpoint
from attendant_export.train.loop import Trainer
from attendant_export.train.schedule import TrainingOptions
from attendant_export.train.word_vectors import GloVeTask, SkipGramTask
from hypothesis import given, settings
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
@settings(deadline=None)
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


@settings(deadline=None)
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
    counts = sum(pairs_of(batch) for batch in batches).sum(axis=1)
    assert counts[1] / counts[2] == pytest.approx(3, rel=0.1)


def in_vocabulary(batch, values):
    """A matrix of a batch as one of the whole vocabulary."""
    whole = np.zeros((VOCAB_SIZE, VOCAB_SIZE))
    whole[np.ix_(batch.words, batch.contexts)] = values
    return whole


def pairs_of(batch):
    return in_vocabulary(batch, batch.near)


def test_a_batch_has_the_number_of_each_of_its_pairs():
    words = [1, 2, 1, 3, 2, 1]
    expected = np.zeros((VOCAB_SIZE, VOCAB_SIZE))
    for first, second in itertools.pairwise(words):
        expected[first, second] += 1
        expected[second, first] += 1
    stream = stream_of([words, [5]])
    options = SkipGramOptions(window=1, subsampling=0)
    [batch] = SkipGramDataset(stream, stream.counts(), options).batches(np.random.default_rng(8))
    assert (pairs_of(batch) == expected).all()
    assert batch.num_pairs == expected.sum()
    assert batch.words.tolist() == [1, 2, 3]


@pytest.mark.parametrize("num_negatives", [1, 5])
def test_each_pair_has_its_negatives_by_counts_to_the_power_of_three_quarters(num_negatives):
    stream = stream_of([[1, 2] * 40 + [3] * 20, [4, 5]])
    shares = stream.counts() ** 0.75 / (stream.counts() ** 0.75).sum()
    options = SkipGramOptions(window=1, subsampling=0, num_negatives=num_negatives)
    dataset, rng = SkipGramDataset(stream, stream.counts(), options), np.random.default_rng(2)
    batches = [batch for _ in range(1500) for batch in dataset.batches(rng)]
    noise = np.mean([in_vocabulary(batch, batch.noise) for batch in batches], axis=0)
    pairs = pairs_of(batches[0])
    other_pairs = pairs.sum(axis=1, keepdims=True) - pairs  # Of the word, with another neighbour.
    np.testing.assert_allclose(noise, num_negatives * shares * other_pairs, rtol=0.1)


def test_an_epoch_has_about_the_stated_number_of_batches_and_depends_on_its_seed_alone(short_parts):
    stream = stream_of(np.random.default_rng(3).integers(1, VOCAB_SIZE, (50, 9)).tolist())
    options = SkipGramOptions(window=2, subsampling=0, max_pairs=20)
    dataset = SkipGramDataset(stream, stream.counts(), options)
    first, again, other = ([*dataset.batches(np.random.default_rng(s))] for s in (1, 1, 2))
    assert all(torch.equal(a.noise, b.noise) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a.noise, b.noise) for a, b in zip(first, other, strict=False))
    assert len(first) == pytest.approx(dataset.num_batches(), rel=0.3)
    assert {batch.num_pairs for batch in first[:-1]} == {20}


def skip_gram(sparse=False):
    torch.manual_seed(4)
    model = SkipGram(static_architecture(VOCAB_SIZE, 3, 0), sparse).double()
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
    scores = words[batch.words] @ contexts[batch.contexts].T
    total = 0.0
    weights = (each.double().flatten().tolist() for each in (batch.near, batch.noise))
    for score, near, noise in zip(scores.flat, *weights, strict=True):
        total += near * np.log(1 / (1 + np.exp(-score))) + noise * np.log(1 / (1 + np.exp(score)))
    mean = total / batch.num_pairs
    assert -task.loss(batch).item() == pytest.approx(mean, rel=1e-9)
    assert task.validate() == {"log_likelihood": pytest.approx(mean, rel=1e-9)}


def glove(sparse=False):
    torch.manual_seed(6)
    model = GloVe(static_architecture(VOCAB_SIZE, 3, 0), sparse).double()
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


def trained(task, run_dir, **given):
    """The vectors of words and of contexts before and after some steps at the rate of 0.1."""
    options = TrainingOptions(
        **given, learning_rate=0.1, warmup_steps=1, final_learning_rate_ratio=1.0
    )
    names = ("words.weight", "contexts.weight")
    before = [task.model.get_parameter(name).detach().numpy().copy() for name in names]
    Trainer(task.model, task.as_task(), options, run_dir, show_progress=False).train()
    weights = checkpoint.read_weights(run_dir / "last/weights.safetensors")
    return before, [weights[name].numpy() for name in names]


def after_adagrad(tables, slopes):
    """Tables after a first step with these slopes of the sum of all losses."""
    pairs = zip(tables, slopes, strict=True)
    return [table - 0.1 * slope / np.sqrt(1 + slope**2) for table, slope in pairs]


@pytest.mark.parametrize("sparse", [False, True])
def test_a_step_of_skip_gram_follows_the_slopes_of_all_pairs(sparse, tmp_path):
    task, batch = skip_gram(sparse)
    task.batches = lambda epoch: iter([batch])
    (words, contexts), after = trained(task, tmp_path, max_steps=1)
    rows, columns = batch.words.numpy(), batch.contexts.numpy()
    probabilities = 1 / (1 + np.exp(-words[rows] @ contexts[columns].T))
    errors = batch.noise.numpy() * probabilities - batch.near.numpy() * (1 - probabilities)
    slopes = [np.zeros_like(words), np.zeros_like(contexts)]
    slopes[0][rows] = errors @ contexts[columns]
    slopes[1][columns] = errors.T @ words[rows]
    expected = after_adagrad((words, contexts), slopes)
    np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sparse", [False, True])
def test_a_step_of_glove_follows_the_slopes_of_all_cells(sparse, tmp_path):
    task, cells = glove(sparse)
    weights, errors = plain_glove(task.model, cells)
    (words, contexts), after = trained(task, tmp_path, max_steps=1)
    slopes = [np.zeros_like(words), np.zeros_like(contexts)]
    for i, j, weight, error in zip(cells.words, cells.contexts, weights, errors, strict=True):
        slopes[0][i] += 2 * weight * error * contexts[j]
        slopes[1][j] += 2 * weight * error * words[i]
    expected = after_adagrad((words, contexts), slopes)
    np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [skip_gram, glove])
def test_sparse_gradients_train_and_resume_as_dense_ones(make, tmp_path):
    tables = {}
    for name, stops in {"dense": [6], "sparse": [6], "resumed": [2, 6]}.items():
        for max_steps in stops:
            task, _ = make(name != "dense")
            _, tables[name] = trained(task, tmp_path / name, max_steps=max_steps)
    np.testing.assert_allclose(tables["sparse"], tables["dense"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(tables["sparse"], tables["resumed"], rtol=1e-5, atol=1e-6)


def doubled(batch):
    """A batch with every pair twice."""
    if isinstance(batch, SkipGramBatch):
        near, noise = 2 * batch.near, 2 * batch.noise
        return replace(batch, near=near, noise=noise, num_pairs=2 * batch.num_pairs)
    words, contexts, counts = (
        torch.cat([each, each]) for each in (batch.words, batch.contexts, batch.counts)
    )
    return CooccurrenceBatch(words, contexts, counts, 2 * batch.num_cells)


@pytest.mark.parametrize("make", [skip_gram, glove])
def test_the_batches_of_a_step_are_added_up_as_one_large_batch(make, tmp_path):
    tables = []
    for name in ("several", "large"):
        task, _ = make(sparse=True)
        [batch] = task.batches(0)
        batches = [batch, batch] if name == "several" else [doubled(batch)]
        task.batches = lambda epoch, batches=batches: iter(batches)
        accumulated = len(batches)
        tables += [trained(task, tmp_path / name, max_steps=1, accumulate_steps=accumulated)[1]]
    np.testing.assert_allclose(tables[0], tables[1], rtol=1e-5, atol=1e-6)


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
