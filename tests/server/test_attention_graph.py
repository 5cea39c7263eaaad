"""Attention graphs in the runtime: opened when they are needed, and equal to the aligner."""

import numpy as np
import pytest
from attendant_server.bundles import BundleError, read_bundle
from attendant_server.engine.attention_calls import (
    AttendPairCall,
    AttendTextCall,
    LayerWeights,
)
from attendant_server.engine.embedding_scheduler import EmbeddingScheduler
from attendant_server.engine.encoder_calls import EmbedCall, FillMaskCall
from attendant_server.engine.pair_calls import AlignCall, ScoreCall
from attendant_server.engine.translation_scheduler import TranslationScheduler
from attendant_server.errors import ModelFailed
from attendant_server.runtime.attention_graph import AttentionGraph
from attendant_server.runtime.embedding_model import OnnxEmbeddingModel
from attendant_server.runtime.translation_model import OnnxTranslationModel

from tests.support.fake_model import FakeEmbeddingModel, FakeTranslationModel, RecordingObserver
from tests.support.limits import embedding_limits, translation_limits
from tests.support.models import embedding_model, translation_model

SOURCE, TARGET = [5, 9, 3, 8, 2], [4, 8, 15, 2]


@pytest.fixture(scope="module", params=["translation_bundle", "ssru_bundle", "mixed_bundle"])
def bundle(request):
    return read_bundle(request.getfixturevalue(request.param), "fp32", "cpu")


@pytest.fixture(scope="module")
def model(bundle):
    return translation_model(bundle)


def graph_of(model: OnnxTranslationModel | OnnxEmbeddingModel) -> AttentionGraph:
    assert model.attention is not None
    return model.attention


def weights_of(kind: LayerWeights | None) -> np.ndarray:
    assert kind is not None
    return kind.weights


def test_the_mean_of_the_heads_that_align_is_the_matrix_of_the_aligner(bundle, model):
    cross = model.attend(SOURCE, TARGET).cross
    alignment = bundle.manifest.alignment
    mean = np.mean([weights_of(cross)[head.layer, head.head] for head in alignment.heads], axis=0)
    if alignment.uses_reading_positions:
        mean = np.concatenate([mean[1:], np.zeros_like(mean[:1])])
    [expected] = model.align([(SOURCE, TARGET)])
    np.testing.assert_allclose(mean, expected, atol=1e-5)


def test_recurrent_layers_have_no_heads_and_no_weights(bundle, model):
    found = model.attend(SOURCE, TARGET).decoder
    groups = bundle.manifest.architecture.decoder.groups
    heads = [each.self_attention.num_heads for each in groups for _ in range(each.num_layers)]
    if not any(heads):
        assert found is None
        return
    assert list(found.num_heads) == heads
    for weights, num_heads in zip(found.weights, heads, strict=True):
        assert weights.shape == (max(heads), len(TARGET), len(TARGET))
        assert not weights[num_heads:].any()
        np.testing.assert_allclose(weights[:num_heads].sum(axis=-1), 1, atol=1e-5)


def test_the_graph_is_open_from_its_first_call_until_the_model_is_idle(bundle):
    model = translation_model(bundle)
    graph = graph_of(model)
    model.score([(SOURCE, TARGET)])
    assert not graph.is_open
    first = model.attend(SOURCE, TARGET).encoder
    assert graph.is_open
    model.release_memory()
    assert not graph.is_open
    np.testing.assert_array_equal(model.attend(SOURCE, TARGET).kinds[0].weights, first.weights)


def test_a_text_has_the_weights_of_the_encoder(embedding_bundle):
    model = embedding_model(read_bundle(embedding_bundle, "fp32", "cpu"))
    found = model.attend(SOURCE)
    assert (found.decoder, found.cross) == (None, None)
    assert found.encoder is not None
    assert found.encoder.weights.shape[2:] == (len(SOURCE), len(SOURCE))
    np.testing.assert_allclose(found.encoder.weights.sum(axis=-1), 1, atol=1e-5)
    model.release_memory()
    assert not graph_of(model).is_open


def test_a_trial_runs_the_graph(bundle):
    graph = graph_of(translation_model(bundle))
    graph.try_out(bundle)
    assert graph.is_open
    manifest = type(bundle.manifest).FromString(bundle.manifest.SerializeToString())
    for precision in manifest.precisions:
        precision.attention.path = precision.scorer.path
    other = type(bundle)(bundle.directory, manifest, bundle.precision)
    graph.close()
    with pytest.raises(BundleError, match="attention: .* differ from the manifest"):
        graph.try_out(other)


class ForgetsSevens(FakeTranslationModel):
    """Gives NaN for pairs whose source begins with 7, and raises for those with 8."""

    def attend(self, source, target):
        if source[0] == 8:
            raise RuntimeError("out of memory")
        found = super().attend(source, target)
        if source[0] == 7:
            weights_of(found.cross)[0] = np.nan
        return found


def test_pairs_that_are_studied_share_batches_with_others_and_fail_alone():
    limits = translation_limits(max_rows=8, max_queued_texts=60, max_encode_tokens=100)
    scheduler = TranslationScheduler(
        "fake", ForgetsSevens(1), limits, RecordingObserver(), lambda: 0.0
    )
    pairs = [(SOURCE, TARGET), ([6, 2], [4, 2])]
    good, score, align = AttendPairCall(pairs), ScoreCall(pairs), AlignCall(pairs)
    not_finite = AttendPairCall([([7, 2], [4, 2])])
    raises = AttendPairCall([([8, 2], [4, 2])])
    calls = (good, not_finite, score, raises, align)
    for call in calls:
        scheduler.submit(call)
    while scheduler.has_work:
        scheduler.advance(is_alone=True)
    shapes = [weights_of(found.cross).shape for found in good.future.result()]
    assert shapes == [(1, 1, 4, 5), (1, 1, 2, 2)]
    assert [len(each.log_probabilities) for each in score.future.result()] == [4, 2]
    assert [each.shape for each in align.future.result()] == [(4, 5), (2, 2)]
    for call in (not_finite, raises):
        with pytest.raises(ModelFailed):
            call.future.result()


def test_texts_that_are_studied_share_batches_with_others():
    model = FakeEmbeddingModel()
    scheduler = EmbeddingScheduler(
        "fake", model, embedding_limits(), RecordingObserver(), lambda: 0.0
    )
    studied = AttendTextCall([SOURCE, [3, 2]])
    embedded = EmbedCall([[1, 2, 3], [4]], ("mean_pooled",))
    filled = FillMaskCall([[5, 6]], [[1]])
    for call in (studied, embedded, filled):
        scheduler.submit(call)
    while scheduler.has_work:
        scheduler.advance(is_alone=True)
    kinds = [each.kinds[0] for each in studied.future.result()]
    assert [each.weights.shape[2:] for each in kinds] == [(5, 5), (2, 2)]
    assert [each["mean_pooled"].tolist() for each in embedded.future.result()] == [[6, 3], [4, 1]]
    assert len(filled.future.result()) == 1
    assert sorted(length for batch in model.batches for length in batch) == [1, 2, 3]


def test_a_scheduler_with_studied_texts_alone_runs_no_embedder():
    model = FakeEmbeddingModel()
    scheduler = EmbeddingScheduler(
        "fake", model, embedding_limits(), RecordingObserver(), lambda: 0.0
    )
    call = AttendTextCall([SOURCE])
    scheduler.submit(call)
    scheduler.advance(is_alone=True)
    assert call.future.done()
    assert model.batches == []
