"""The engine over real graphs: results do not depend on neighbours, buffers or caches."""

import json
import random
import time
from math import prod

import numpy as np
import pytest
from attendant_server.bundles import read_bundle
from attendant_server.engine.calls import SearchOptions, TranslateCall
from attendant_server.engine.embedding_scheduler import EmbeddingScheduler
from attendant_server.engine.encoder_calls import EmbedCall, FillMaskCall
from attendant_server.engine.pair_calls import ScoreCall
from attendant_server.engine.translation_scheduler import TranslationScheduler
from attendant_server.errors import ModelFailed
from attendant_server.runtime.device_cache import DeviceEncodedSentence
from attendant_server.runtime.device_models import DeviceTranslationModel
from attendant_server.runtime.embedding_model import OnnxEmbeddingModel
from attendant_server.runtime.model_graphs import RunCounter
from attendant_server.runtime.translation_model import OnnxTranslationModel

from tests.support.devices import open_device
from tests.support.fake_model import RecordingObserver
from tests.support.limits import embedding_limits, translation_limits
from tests.support.models import random_bundle, translation_model

PRECISIONS = ["fp32", "int8", "fp16"]
TOLERANCES = {"fp32": 1e-4, "int8": 5e-2, "fp16": 2e-2}
"""Allowed difference between two graphs or two batches of embeddings, due to rounding in int8."""


# Location of the caches, precision, device and bundle. The code for a GPU also runs on a CPU.
VARIANTS = [
    *(
        pytest.param((caches, name, "cpu", bundle), id=f"{bundle}-{caches}-{name}")
        for bundle in ("translation_bundle", "ssru_bundle", "mixed_bundle")
        for caches, names in (("host", PRECISIONS), ("device", ("fp32", "fp16")))
        for name in (names if bundle != "mixed_bundle" else ("fp32",))
    ),
    *(
        pytest.param(("device", "fp16", "cuda", bundle), id=f"{bundle}-cuda", marks=pytest.mark.gpu)
        for bundle in ("translation_bundle", "ssru_bundle")
    ),
]


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request):
    _, _, device, _ = request.param
    open_device(device)
    return request.param


@pytest.fixture(scope="module")
def bundle(request, variant):
    _, precision, device, bundle = variant
    return read_bundle(request.getfixturevalue(bundle), precision, device)


@pytest.fixture
def model(variant, bundle):
    caches, _, device, _ = variant
    kind = {"host": OnnxTranslationModel, "device": DeviceTranslationModel}[caches]
    return kind(bundle, 1, device, RunCounter(1))


def new_scheduler(model, max_rows=12):
    limits = translation_limits(max_rows=max_rows, max_encode_tokens=64)
    return TranslationScheduler("tiny", model, limits, RecordingObserver(), time.monotonic)


def run(scheduler, *calls):
    for call in calls:
        scheduler.submit(call)
    while scheduler.has_work:
        scheduler.advance(is_alone=True)
    return [call.future.result() for call in calls]


def bound_of(bundle):
    (parity,) = (p for p in bundle.manifest.parity.precisions if p.precision == bundle.precision)
    return parity.log_probability_bound


def is_same_or_tied(found, expected, bound):
    """Whether two searches agree, or part at candidates closer than twice the bound."""
    for i, (a, b) in enumerate(zip(found.token_ids, expected.token_ids, strict=False)):
        if a != b:
            return abs(found.log_probabilities[i] - expected.log_probabilities[i]) < 2 * bound
    return np.allclose(found.log_probabilities, expected.log_probabilities, rtol=0, atol=bound)


def random_call(rng, vocab_size):
    length = rng.choice([2, 5, 8, 20, 40])
    source = [*(rng.randrange(4, vocab_size) for _ in range(length - 1)), 2]
    beam_size = rng.choice([1, 1, 2, 4])
    max_output_tokens = rng.randint(3, 40)
    options = SearchOptions(
        max_output_tokens,
        beam_size=beam_size,
        num_hypotheses=beam_size,
        length_penalty=rng.choice([0.0, 1.0]),
        min_output_tokens=rng.randint(0, max_output_tokens),
    )
    return source, options


def test_ragged_mixtures_agree_with_every_text_alone(bundle, model):
    rng = random.Random(11)
    wanted = [random_call(rng, model.vocab_size) for _ in range(40)]
    scheduler, calls = new_scheduler(model), []
    for source, options in wanted:
        calls.append(TranslateCall([source], options))
        scheduler.submit(calls[-1])
        for _ in range(rng.randint(0, 3)):
            scheduler.advance(is_alone=True)
    run(scheduler)
    for (source, options), call in zip(wanted, calls, strict=True):
        [[alone]] = run(new_scheduler(model), TranslateCall([source], options))
        [together] = call.future.result()
        assert is_same_or_tied(together[0], alone[0], bound_of(bundle))


def test_a_long_source_that_joins_and_leaves_changes_nothing_for_others(bundle, model):
    rng = random.Random(5)
    short = [rng.randrange(4, model.vocab_size) for _ in range(6)] + [2]
    long = [rng.randrange(4, model.vocab_size) for _ in range(60)] + [2]
    options = SearchOptions(30, min_output_tokens=30)
    [[alone]] = run(new_scheduler(model), TranslateCall([short], options))
    scheduler = new_scheduler(model)
    before = TranslateCall([short], options)
    scheduler.submit(before)
    scheduler.advance(is_alone=True)
    visitor = TranslateCall([long], SearchOptions(4, min_output_tokens=4))
    scheduler.submit(visitor)
    scheduler.advance(is_alone=True)
    after = TranslateCall([short], options)
    run(scheduler, after)
    for call in (before, after):
        assert is_same_or_tied(call.future.result()[0][0], alone[0], bound_of(bundle))


def test_a_translation_scores_what_decoding_gave_it(bundle, model):
    source = [10, 20, 30, 40, 2]
    options = SearchOptions(20, beam_size=4, num_hypotheses=4)
    [[hypotheses]] = run(new_scheduler(model), TranslateCall([source], options))
    complete = [h for h in hypotheses if h.is_complete]
    assert complete
    call = ScoreCall([(source, list(h.token_ids)) for h in complete])
    [scores] = run(new_scheduler(model), call)
    for hypothesis, score in zip(complete, scores, strict=True):
        assert np.allclose(
            score.log_probabilities,
            hypothesis.log_probabilities,
            rtol=0,
            atol=TOLERANCES[bundle.precision],
        )


def test_a_search_that_backs_out_of_loops_scores_what_decoding_gave_it(bundle, model):
    rng = random.Random(2)
    options = SearchOptions(60, min_output_tokens=50, repetition_guard=True)
    calls = [
        TranslateCall([[*(rng.randrange(4, model.vocab_size) for _ in range(9)), 2]], options)
        for _ in range(16)
    ]
    found = [hypotheses[0][0] for hypotheses in run(new_scheduler(model), *calls)]
    can_rewind = not model.decoder_step.signature.replaced_states
    assert any(h.num_rewinds > 1 for h in found) == can_rewind
    pairs = [(call.sources[0], list(h.token_ids)) for call, h in zip(calls, found, strict=True)]
    [scores] = run(new_scheduler(model), ScoreCall(pairs))
    for hypothesis, score in zip(found, scores, strict=True):
        assert np.allclose(
            score.log_probabilities,
            hypothesis.log_probabilities,
            rtol=0,
            atol=TOLERANCES[bundle.precision],
        )


def test_searches_find_the_reference_outputs_of_the_bundle(bundle, model):
    reference = json.loads((bundle.directory / bundle.manifest.reference_outputs).read_text())
    for search, beam_size in reference["beam_sizes"].items():
        calls = [
            TranslateCall([text["token_ids"]], SearchOptions(text["max_output_tokens"], beam_size))
            for text in reference["texts"]
        ]
        results = run(new_scheduler(model), *calls)
        for [[found]], expected in zip(
            results, reference["outputs"][bundle.precision][search], strict=True
        ):
            assert list(found.token_ids) == expected["token_ids"]
            assert np.allclose(
                found.log_probabilities,
                expected["log_probabilities"],
                rtol=0,
                atol=bound_of(bundle) + 1e-6,  # the file rounds to six digits
            )


def make_infinite(sentence):
    if isinstance(sentence, DeviceEncodedSentence):
        batch = sentence.batch.keys_values
        assert batch is not None
        layout = batch._layout
        values = np.full(layout.num_tensors * prod(batch._shape), np.inf, layout.dtype)
        batch._buffer.write(values.view(np.int64))
    else:
        for keys_values in sentence.keys_values:
            keys_values[...] = np.inf


@pytest.mark.parametrize("beam_size", [1, 4])
def test_a_source_that_gives_no_numbers_fails_alone_and_leaves_nothing_behind(
    bundle, model, beam_size
):
    options = SearchOptions(6, beam_size, min_output_tokens=6)
    healthy = [[9, 8, 7, 2], [5, 6, 2]]
    expected = [run(new_scheduler(model), TranslateCall([s], options))[0] for s in healthy]
    scheduler = new_scheduler(model)
    encode = model.encode

    def broken(sources):
        encoded = encode(sources)
        for sentence in encoded:
            make_infinite(sentence)
        return encoded

    model.encode = broken
    bad = TranslateCall([[12] * 30 + [2]], options)
    scheduler.submit(bad)
    scheduler._encode()
    model.encode = encode
    calls = [TranslateCall([source], options) for source in healthy * 3]
    for call in calls:
        scheduler.submit(call)
    while scheduler.has_work:
        scheduler.advance(is_alone=True)
    assert isinstance(bad.future.exception(), ModelFailed)
    for call, want in zip(calls, expected * 3, strict=True):
        assert is_same_or_tied(call.future.result()[0][0], want[0][0], bound_of(bundle))


def test_sizes_that_are_not_those_of_the_graphs_are_refused(translation_bundle):
    wrong = read_bundle(translation_bundle, "fp32", "cpu")
    for state in (state for step in wrong.graphs.steps for state in step.states):
        state.shape[0] = 4
    with pytest.raises(ValueError, match="shape differs between manifest and graph"):
        translation_model(wrong)


@pytest.mark.parametrize("missing", [["greedy_steps"], ["greedy_steps", "greedy_step"]])
def test_a_bundle_of_an_older_version_decodes_greedily_as_well(translation_bundle, missing):
    bundle, older = (read_bundle(translation_bundle, "fp32", "cpu") for _ in range(2))
    for graphs in older.manifest.precisions:
        for step in [step for step in graphs.steps if step.name in missing]:
            graphs.steps.remove(step)
    source = [9, 8, 7, 2]
    found = []
    for each in (bundle, older):
        scheduler = new_scheduler(translation_model(each))
        call = TranslateCall([source], SearchOptions(6, min_output_tokens=6))
        found.append(run(scheduler, call)[0][0][0])
    assert is_same_or_tied(found[1], found[0], TOLERANCES["fp32"])


@pytest.mark.parametrize("spare_bytes", [0, 20_000])
def test_caches_follow_what_runs_and_are_given_back(model, spare_bytes):
    limits = translation_limits(max_rows=12, max_encode_tokens=64, spare_cache_bytes=spare_bytes)
    scheduler = TranslationScheduler("tiny", model, limits, RecordingObserver(), time.monotonic)
    rng, pool, most = random.Random(2), scheduler.pool, 0
    for _ in range(40):
        for source, options in (random_call(rng, model.vocab_size) for _ in range(2)):
            scheduler.submit(TranslateCall([source], options))
        for _ in range(rng.choice([1, 5, 1000])):
            if scheduler.has_work:
                scheduler.advance(is_alone=True)
            needed, allocated = pool.figures
            assert needed <= allocated <= 1.5 * needed + spare_bytes
            most = max(most, allocated)
    run(scheduler)
    assert pool.figures.needed == 0
    assert pool.figures.allocated <= spare_bytes < most
    scheduler.release_memory()
    assert pool.figures.allocated == 0


@pytest.fixture(
    scope="module",
    params=[
        *(pytest.param((name, "cpu"), id=name) for name in PRECISIONS),
        pytest.param(("fp16", "cuda"), id="cuda-fp16", marks=pytest.mark.gpu),
    ],
)
def embedder(request, embedding_bundle):
    precision, device = request.param
    open_device(device)
    bundle = read_bundle(embedding_bundle, precision, device)
    return OnnxEmbeddingModel(bundle, 1, device, RunCounter(1)), TOLERANCES[precision]


def test_embeddings_do_not_depend_on_batch_mates(embedder):
    embedding_model, tolerance = embedder
    rng = random.Random(4)
    texts = [[2, *(rng.randrange(5, 90) for _ in range(rng.randint(1, 50))), 3] for _ in range(20)]
    outputs = ("mean_pooled", "cls_pooled", "max_pooled", "hidden_0", "hidden_1", "hidden_2")

    def embed(*calls):
        limits = embedding_limits(max_batch_tokens=300)
        scheduler = EmbeddingScheduler(
            "tiny", embedding_model, limits, RecordingObserver(), time.monotonic
        )
        return run(scheduler, *calls)

    [together] = embed(EmbedCall(texts, outputs))
    for text, found in zip(texts, together, strict=True):
        [[alone]] = embed(EmbedCall([text], outputs))
        for name in outputs:
            assert np.allclose(found[name], alone[name], rtol=0, atol=tolerance)
    masks = [[1, 2], [1]] * 10
    [filled] = embed(FillMaskCall(texts, masks, top_k=7))
    for text, positions, found in zip(texts, masks, filled, strict=True):
        [[alone]] = embed(FillMaskCall([text], [positions], top_k=7))
        assert found.token_ids.shape == (len(positions), 7)
        assert (np.diff(found.probabilities) <= 0).all()
        assert np.allclose(found.probabilities, alone.probabilities, rtol=0, atol=tolerance)


@pytest.mark.parametrize("beam_size", [2, 4, 5])
def test_beams_may_have_more_candidates_than_the_vocabulary_has_tokens(tmp_path, beam_size):
    model = translation_model(random_bundle(tmp_path, 16, "fp32", vocab_size=6))
    options = SearchOptions(
        max_output_tokens=8, beam_size=beam_size, num_hypotheses=beam_size, length_penalty=1.0
    )
    [found] = run(new_scheduler(model), TranslateCall([(3, 4, 5, 2)], options))
    assert len({hypothesis.token_ids for hypothesis in found[0]}) == beam_size
    for hypothesis in found[0]:
        [scores] = model.score([((3, 4, 5, 2), hypothesis.token_ids)])
        assert np.allclose(scores.log_probabilities, hypothesis.log_probabilities, atol=1e-4)
