import pytest
from attendant.v1.bundle_pb2 import SpecialTokens, TranslationSizes
from attendant_export import verify
from attendant_export.graph_search import TranslationGraphs
from attendant_export.onnx_graphs import write_embedding_graphs, write_translation_graphs
from attendant_export.search import ReferenceHypothesis
from attendant_export.verify import (
    ParityError,
    SampleSentences,
    TranslationVerifier,
    compare,
    round_up,
    trace_of,
)
from attendant_export.verify_embeddings import EmbeddingGraphs, EmbeddingVerifier

from tests.support.graphs import tiny_bert, tiny_transformer

SAMPLE = SampleSentences(
    [[5, 9, 33, 2], [7, 7, 12, 40, 31, 22, 8, 2], [49, 2], [11, 30, 6, 17, 25, 2]], [8, 9, 6, 8]
)
TEXTS = [[2, 9, 33, 3], [2, 7, 12, 40, 31, 22, 8, 3], [2, 49, 3], [2, 11, 30, 6, 17, 25, 3]]


class DisturbedByMates(TranslationGraphs):
    """Graphs whose encoder gives other results when it encodes several sentences."""

    def encode(self, sources):
        scale = 1.0 if len(sources) == 1 else 1.2
        encoded = super().encode(sources)
        return [(memory.astype(float) * scale).astype(memory.dtype) for memory in encoded]


class DisturbedCandidates(TranslationGraphs):
    """Graphs whose scorer is wrong."""

    def choose(self, sources, targets, chosen):
        return [[value + 0.01 for value in row] for row in super().choose(sources, targets, chosen)]


@pytest.fixture(scope="module")
def model():
    return tiny_transformer(norm_first=True)


@pytest.fixture(scope="module")
def verifier(model):
    return TranslationVerifier(model, SAMPLE)


def open_graphs(model, precision, folder, kind=TranslationGraphs):
    config = model.config
    sizes = TranslationSizes(
        num_heads=config.num_heads,
        head_dim=config.head_dim,
        num_decoder_layers=config.num_decoder_layers,
    )
    written = write_translation_graphs(model, precision, folder)
    return kind(folder, written, sizes, SpecialTokens(pad_id=0, bos_id=1, eos_id=2))


def test_fp32_graphs_follow_the_model_in_every_way_of_running_them(model, verifier, tmp_path):
    parity = verifier.verify("fp32", open_graphs(model, "fp32", tmp_path)).parity

    ways = {(entry.search, entry.batching, entry.cached) for entry in parity.tokens}
    assert ways == {
        (search, batching, True)
        for search in ("greedy", "beam4")
        for batching in ("single", "batched", "ragged")
    } | {("greedy", "batched", False)}
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
    monkeypatch.setitem(verify.MAX_BOUNDS, precision, 0.01)
    graphs = open_graphs(model, precision, tmp_path, DisturbedByMates)

    with pytest.raises(ParityError, match="between batches"):
        verifier.verify(precision, graphs)


def test_a_scorer_that_differs_from_the_cached_steps_is_refused(model, verifier, tmp_path):
    with pytest.raises(ParityError, match=r"differ by 0\.01"):
        verifier.verify("fp32", open_graphs(model, "fp32", tmp_path, DisturbedCandidates))


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


@pytest.mark.parametrize(
    ("value", "rounded"), [(0.0, 0.0), (0.0011, 0.002), (0.002, 0.002), (0.93, 1.0), (3.2, 4.0)]
)
def test_bounds_are_rounded_up_to_one_digit(value, rounded):
    assert round_up(value) == pytest.approx(rounded)


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "int8", "fp16"])
def test_embedding_graphs_follow_the_model(norm_first, precision, tmp_path):
    model = tiny_bert(norm_first)
    written = write_embedding_graphs(model, precision, tmp_path)

    verified = EmbeddingVerifier(model, TEXTS).verify(
        precision, EmbeddingGraphs(tmp_path, written, 0)
    )

    assert verified.parity.embeddings.min_cosine > (0.99999 if precision == "fp32" else 0.99)
    assert verified.mean_pooled.shape == (4, model.config.d_model)
    assert [len(text.candidate_ids) for text in verified.masked] == [5] * 4


def test_embedding_graphs_of_another_model_are_refused(tmp_path):
    model, other = tiny_bert(norm_first=False), tiny_bert(norm_first=False)
    dict(other.named_parameters())["encoder.0.feed_forward.0.bias"].data += 0.5
    graphs = EmbeddingGraphs(tmp_path, write_embedding_graphs(other, "fp32", tmp_path), 0)

    with pytest.raises(ParityError, match="do not follow the model"):
        EmbeddingVerifier(model, TEXTS).verify("fp32", graphs)
