import numpy as np
import pytest
import torch
from attendant_export.graphs.quantization import Int8Layers
from attendant_export.graphs.writer import write_embedding_graphs, write_translation_graphs
from attendant_export.verify import reference_search as search
from attendant_export.verify.agreement import compare, trace_of
from attendant_export.verify.bounds import round_up
from attendant_export.verify.decoder import SampleSentences
from attendant_export.verify.embedding import EmbeddingGraphs, EmbeddingVerifier
from attendant_export.verify.graph_search import SentenceSearch, greedy_uncached
from attendant_export.verify.graph_sessions import ParityError, TranslationGraphs
from attendant_export.verify.reference_cache import ReferenceCache
from attendant_export.verify.reference_search import ReferenceHypothesis, SearchTrace
from attendant_export.verify.translation import TranslationVerifier
from attendant_manifest.rules import MAX_LOG_PROBABILITY_BOUNDS

from tests.support.graphs import manifest_of, tiny_bert, tiny_transformer

SAMPLE = SampleSentences(
    [[5, 9, 33, 2], [7, 7, 12, 40, 31, 22, 8, 2], [49, 2], [11, 30, 6, 17, 25, 2]], [8, 9, 6, 8]
)
TEXTS = [[2, 9, 33, 3], [2, 7, 12, 40, 31, 22, 8, 3], [2, 49, 3], [2, 11, 30, 6, 17, 25, 3]]


class DisturbedByMates(TranslationGraphs):
    """Graphs whose encoder gives different results when it encodes several sentences."""

    def encode(self, sources):
        scale = 1.0 if len(sources) == 1 else 1.2
        encoded = super().encode(sources)
        return [(memory.astype(float) * scale).astype(memory.dtype) for memory in encoded]


class DisturbedScorer(TranslationGraphs):
    """Graphs whose scorer is wrong."""

    def score(self, sources, targets):
        return [[value + 0.04 for value in row] for row in super().score(sources, targets)]


class FullOfNaN:
    """A session whose outputs have the right shapes and types, but hold only NaN."""

    def __init__(self, session):
        self.session = session

    def run(self, names, inputs):
        outputs = self.session.run(names, inputs)
        return [o * np.nan if o.dtype == np.float32 else o for o in outputs]

    def __getattr__(self, name):
        return getattr(self.session, name)


@pytest.fixture(scope="module")
def model():
    return tiny_transformer(norm_first=True)


@pytest.fixture(scope="module")
def verifier(model):
    return TranslationVerifier(model, SAMPLE)


def open_graphs(model, precision, folder, kind=TranslationGraphs):
    written = write_translation_graphs(model, precision, folder)
    return kind(folder, written, manifest_of(model))


def open_embedding_graphs(model, precision, folder):
    written = write_embedding_graphs(model, precision, folder)
    return EmbeddingGraphs(folder, written, manifest_of(model))


def test_fp32_graphs_follow_the_model_in_every_way_of_running_them(model, verifier, tmp_path):
    parity = verifier.verify("fp32", open_graphs(model, "fp32", tmp_path)).parity

    ways = {(entry.search, entry.batching, entry.cached) for entry in parity.tokens}
    assert ways == {
        (search, batching, True)
        for search in ("greedy", "beam4")
        for batching in ("single", "batched", "ragged")
    } | {("greedy", "single", False)}
    assert all(entry.num_identical == entry.num_sentences == 4 for entry in parity.tokens)
    assert parity.max_log_probability_difference < 1e-4
    assert parity.log_probability_bound == 1e-4


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_other_precisions_are_reported_with_a_measured_bound(model, verifier, precision, tmp_path):
    parity = verifier.verify(precision, open_graphs(model, precision, tmp_path)).parity

    assert 0 < parity.max_log_probability_difference < 1
    assert 1e-4 <= parity.log_probability_bound < 0.5


def test_the_outputs_are_those_of_each_sentence_alone(model, verifier, tmp_path):
    outputs = verifier.verify("fp32", open_graphs(model, "fp32", tmp_path)).outputs

    assert set(outputs) == {"greedy", "beam4"}
    for hypothesis, limit in zip(outputs["greedy"], SAMPLE.max_tokens, strict=True):
        assert len(hypothesis.token_ids) == len(hypothesis.log_probabilities) <= limit


def test_graphs_of_another_model_are_refused(verifier, tmp_path):
    other = tiny_transformer(norm_first=True)
    dict(other.named_parameters())["decoder.0.feed_forward.0.bias"].data += 0.5

    with pytest.raises(ParityError, match="do not follow the model: log-probabilities differ"):
        verifier.verify("fp32", open_graphs(other, "fp32", tmp_path))


@pytest.mark.parametrize("precision", ["fp32", "int8", "fp16"])
def test_graphs_whose_results_depend_on_batch_mates_are_refused(
    model, verifier, precision, tmp_path, monkeypatch
):
    monkeypatch.setitem(MAX_LOG_PROBABILITY_BOUNDS, precision, 0.01)
    graphs = open_graphs(model, precision, tmp_path, DisturbedByMates)

    with pytest.raises(ParityError, match="between batches"):
        verifier.verify(precision, graphs)


def test_a_scorer_that_differs_from_the_cached_steps_is_refused(model, verifier, tmp_path):
    with pytest.raises(ParityError, match=r"differ by 0\.04"):
        verifier.verify("fp32", open_graphs(model, "fp32", tmp_path, DisturbedScorer))


def test_the_scorer_is_held_against_the_teacher_forced_model(model, verifier, tmp_path):
    parity = verifier.verify("fp16", open_graphs(model, "fp16", tmp_path, DisturbedScorer)).parity

    assert parity.max_log_probability_difference == pytest.approx(0.04, abs=0.01)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_graphs_that_give_no_numbers_are_refused(precision, verifier, tmp_path):
    broken = tiny_transformer(norm_first=True)
    torch.nn.init.constant_(dict(broken.named_parameters())["decoder_norm.bias"], torch.nan)
    graphs = open_graphs(broken, precision, tmp_path)

    with pytest.raises(ParityError, match="greedy_steps gives values that are not finite"):
        verifier.verify(precision, graphs)
    with pytest.raises(ParityError, match="scorer gives values that are not finite"):
        graphs.score([[5, 2]], [[7, 2]])


def test_a_model_that_gives_no_numbers_is_not_followed(model, tmp_path, monkeypatch):
    verifier = TranslationVerifier(model, SAMPLE)
    monkeypatch.setattr(
        search, "score", lambda _, __, targets: [[float("nan")] * len(ids) for ids in targets]
    )

    with pytest.raises(ParityError, match="log-probabilities differ by nan"):
        verifier.verify("fp32", open_graphs(model, "fp32", tmp_path))


def test_uncached_decoding_steps_over_the_whole_prefix_each_time(model, tmp_path, monkeypatch):
    steps: list[list[int]] = []
    step = ReferenceCache.step

    def recorded(cache, tokens, lengths, num_candidates):
        steps.append(lengths)
        return step(cache, tokens, lengths, num_candidates)

    monkeypatch.setattr(ReferenceCache, "step", recorded)
    found = greedy_uncached(
        open_graphs(model, "fp32", tmp_path), "greedy_step", SAMPLE.sources[0], 4
    )

    expected = search.greedy(model, [SAMPLE.sources[0]], 4)[0]
    assert found.token_ids == expected.token_ids
    assert steps == [[i] for length in range(len(found.token_ids)) for i in range(length + 1)]


def test_caches_that_change_the_tokens_are_refused(model, verifier, tmp_path, monkeypatch):
    reorder = ReferenceCache.reorder

    def forgetful(cache, slot, parents):
        reorder(cache, slot, parents)
        for _, memory in cache._past:
            memory[slot] *= 0.5

    monkeypatch.setattr(ReferenceCache, "reorder", forgetful)

    with pytest.raises(ParityError, match="differ by"):
        verifier.verify("fp32", open_graphs(model, "fp32", tmp_path))


def hypothesis(*steps):
    return ReferenceHypothesis(tuple(t for t, _ in steps), tuple(p for _, p in steps))


@pytest.mark.parametrize(("other_log_p", "num_ties"), [(-1.00015, 1), (-1.0003, 0)])
def test_another_token_is_a_tie_if_it_is_closer_than_twice_the_bound(other_log_p, num_ties):
    ours = hypothesis((5, -0.5), (7, -1.0), (2, -0.1))
    theirs = hypothesis((5, -0.5), (8, -1.0), (9, -9.0), (2, -0.1))
    model_log_p: dict[tuple[int, ...], list[float]] = {
        (5, 7): [-0.5, -1.0],
        (5, 8): [-0.5, other_log_p],
    }

    agreement = compare(
        [[4, 2]],
        [trace_of(ours)],
        [trace_of(theirs)],
        lambda _, targets: [model_log_p[tuple(ids)] for ids in targets],
        bound=1e-4,
    )

    assert (agreement.num_identical, agreement.num_ties) == (0, num_ties)
    assert agreement.num_parted == 1 - num_ties


def trace_of_two_steps(first, second):
    """A search with beam size 2 and two steps; each candidate is a token and a log-probability."""
    beams = SentenceSearch(0, beam_size=2, max_tokens=2, eos_id=2, first_token=1)
    for rows in ([first, first], second):
        ids = np.array([[token for token, _ in row] for row in rows])
        beams.advance(ids, np.array([[value for _, value in row] for row in rows]))
    return SearchTrace(beams.finished, beams.steps)


SECOND = [
    [(9, -0.1), (10, -0.2), (11, -5.0), (12, -6.0)],
    [(9, -4.0), (10, -5.0), (11, -6.0), (12, -7.0)],
]
OTHER_SECOND = [[(11, -0.1), (10, -0.2), (9, -5.0), (12, -6.0)], SECOND[1]]


def num_parted(ours, theirs, theirs_second=OTHER_SECOND):
    """Compare two searches by their first steps, with our log-probabilities as the model's."""

    def model(tokens):
        first = dict(ours)[tokens[0]]
        return [first, *(dict(SECOND[0])[token] for token in tokens[1:])]

    return compare(
        [[4, 2]],
        [trace_of_two_steps(ours, SECOND)],
        [trace_of_two_steps(theirs, theirs_second)],
        lambda _, targets: [model(tokens) for tokens in targets],
        bound=1e-4,
    ).num_parted


def test_a_tie_of_dropped_candidates_excuses_nothing_that_comes_later():
    ours = [(5, -0.1), (6, -0.2), (7, -3.0), (8, -3.0001)]
    theirs = [(5, -0.1), (6, -0.2), (8, -3.0), (7, -3.0001)]

    assert num_parted(ours, theirs) == 1


@pytest.mark.parametrize("begin", [[], [(2, -0.2)]])
def test_a_tie_of_kept_candidates_excuses_nothing_that_comes_later(begin):
    ours = [*begin, (5, -0.21), (6, -0.2101), (7, -3.0), (8, -4.0)][:4]
    theirs = [*begin, (6, -0.21), (5, -0.2101), (7, -3.0), (8, -4.0)][:4]

    assert num_parted(ours, theirs, OTHER_SECOND[::-1]) == 1


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ([(6, -0.1), (5, -0.2)], [(6, -0.1), (7, -0.2), (5, -0.2001)]),  # in the beam
        ([(5, -0.1), (6, -0.2)], [(5, -0.1), (2, -0.2), (6, -0.2001)]),  # ended in the beam
        ([(5, -0.1), (2, -0.15), (6, -0.2)], [(5, -0.1), (2, -0.15), (7, -0.2), (6, -0.2001)]),
    ],
)
@pytest.mark.parametrize(("difference", "parted"), [(0.00015, 0), (0.0003, 1)])
def test_a_kept_and_a_dropped_candidate_are_a_tie_if_they_are_close(
    ours, theirs, difference, parted
):
    (other,) = {token for token, _ in theirs} - {token for token, _ in ours}
    ours, theirs = (
        [*row, (8, -3.0), (9, -4.0), (10, -5.0)][:4]
        for row in ([*ours, (other, -0.2 - difference)], theirs)
    )

    assert num_parted(ours, theirs) == parted


@pytest.mark.parametrize(
    ("value", "rounded"), [(0.0, 0.0), (0.0011, 0.002), (0.002, 0.002), (0.93, 1.0), (3.2, 4.0)]
)
def test_bounds_are_rounded_up_to_one_digit(value, rounded):
    assert round_up(value) == pytest.approx(rounded)


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "int8", "fp16"])
def test_embedding_graphs_follow_the_model(norm_first, precision, tmp_path):
    model = tiny_bert(norm_first)

    verified = EmbeddingVerifier(model, TEXTS).verify(
        precision, open_embedding_graphs(model, precision, tmp_path)
    )

    assert verified.parity.embeddings.min_cosine > (0.99999 if precision == "fp32" else 0.99)
    assert verified.mean_pooled.shape == (4, model.architecture.d_model)
    assert [len(text.candidate_ids) for text in verified.masked] == [5] * 4


@pytest.mark.parametrize("graph", ["embedder", "mlm_head"])
def test_embedding_graphs_that_give_no_numbers_are_refused(graph, tmp_path):
    model = tiny_bert(norm_first=True)
    graphs = open_embedding_graphs(model, "int8", tmp_path)
    setattr(graphs, graph, FullOfNaN(getattr(graphs, graph)))

    with pytest.raises(ParityError, match=f"{graph}.* gives values that are not finite"):
        EmbeddingVerifier(model, TEXTS).verify("int8", graphs)


@pytest.mark.parametrize("norm_first", [True, False])
def test_one_scale_for_the_activations_of_a_batch_is_refused(norm_first, tmp_path, monkeypatch):
    largest_of_each = Int8Layers._largest

    def largest_of_all(g, x):
        of_each = largest_of_each(g, x)
        return g.op("Expand", g.op("ReduceMax", of_each, keepdims=1), g.op("Shape", of_each))

    monkeypatch.setattr(Int8Layers, "_largest", largest_of_all)
    model = tiny_bert(norm_first)
    graphs = open_embedding_graphs(model, "int8", tmp_path)

    with pytest.raises(ParityError, match="cosine of alone and batched"):
        EmbeddingVerifier(model, TEXTS).verify("int8", graphs)


def test_embedding_graphs_of_another_model_are_refused(tmp_path):
    model, other = tiny_bert(norm_first=False), tiny_bert(norm_first=False)
    dict(other.named_parameters())["encoder.0.feed_forward.0.bias"].data += 0.5
    graphs = open_embedding_graphs(other, "fp32", tmp_path)

    with pytest.raises(ParityError, match="do not follow the model"):
        EmbeddingVerifier(model, TEXTS).verify("fp32", graphs)
