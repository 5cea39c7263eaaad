import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from attendant.v1 import bundle_pb2
from attendant_server.bundles import read_bundle
from attendant_server.engine.models import NO_TOKEN_BIAS, StepInput
from attendant_server.runtime.cache_pool import CachePool
from attendant_server.runtime.embedding_model import OnnxEmbeddingModel
from attendant_server.runtime.host_cache import HostDecoderCache
from attendant_server.runtime.model_graphs import RunCounter, ThreadedGraph, ThreadedStep
from attendant_server.runtime.padding import pad
from attendant_server.runtime.translation_model import OnnxTranslationModel

from tests.support.models import translation_model


@pytest.fixture(scope="module")
def bundle(translation_bundle):
    return read_bundle(translation_bundle, "fp32", "cpu")


def test_a_run_is_alone_until_another_begins():
    run_counter = RunCounter(2)
    with run_counter.run() as first, run_counter.run() as second:
        assert (first, second) == (True, False)
    with run_counter.run() as later:
        assert later


def test_a_run_that_failed_is_not_counted_for_ever():
    run_counter = RunCounter(2)
    with pytest.raises(ZeroDivisionError), run_counter.run():
        raise ZeroDivisionError
    with run_counter.run() as is_alone:
        assert is_alone


def test_a_lone_run_has_a_session_of_its_own_and_runs_beside_others_share_one(bundle):
    graph = ThreadedGraph(bundle.graph_path("encoder"), 1, "cpu", RunCounter(2))
    with graph.session() as alone, graph.session() as beside:
        assert alone is graph.alone
        assert beside is graph.shared
        assert alone is not beside


def test_without_threads_to_spare_there_is_one_session(bundle):
    graph = ThreadedGraph(bundle.graph_path("encoder"), 2, "cpu", RunCounter(2))
    assert graph.alone is graph.shared


QUICK, SLOW, DISTURBED = [0.01] * 15, [0.05] * 15, [0.05] * 12 + [1.0] * 3


@pytest.mark.parametrize(
    ("alone_seconds", "shared_seconds", "is_kept"),
    [
        (QUICK, SLOW, True),
        (SLOW, SLOW, False),
        (QUICK, DISTURBED, True),
        (SLOW, DISTURBED, False),
        (DISTURBED, SLOW, False),
    ],
)
def test_a_session_for_lone_runs_is_kept_only_if_it_is_quicker(
    bundle, monkeypatch, alone_seconds, shared_seconds, is_kept
):
    graph = ThreadedGraph(bundle.graph_path("encoder"), 1, "cpu", RunCounter(2))
    alone, now = graph.alone, 0.0
    runs = {id(alone): iter(alone_seconds), id(graph.shared): iter(shared_seconds)}

    def run(session):
        nonlocal now
        now += next(runs[id(session)])

    monkeypatch.setattr("attendant_server.runtime.model_graphs.time.perf_counter", lambda: now)
    graph.keep_what_pays(run)
    assert graph.alone is (alone if is_kept else graph.shared)


def test_both_sessions_give_the_same_steps_over_the_same_caches(bundle):
    model = translation_model(bundle)
    step = model.decoder_step.signature.step
    graph = ThreadedStep(bundle.step_path(step), step, 1, "cpu", RunCounter(2))
    encoded = model.encode([[5, 9, 7, 2], [8, 2]])
    found = []
    for sessions in ([graph.shared] * 4, [graph.shared, graph.alone] * 2):
        pool = CachePool(model.cache_sizes)
        cache = HostDecoderCache(graph, 1, 2, model.vocab_size, pool)
        for slot, source in enumerate(encoded):
            cache.load(slot, source)
        for position, session in enumerate(sessions):
            step_input = StepInput(
                np.array([1 + position, 4]),
                np.full(2, position, np.int32),
                3,
                [NO_TOKEN_BIAS],
            )
            candidates = cache.step_with(session, 2, step_input)
            found.append((candidates.token_ids.copy(), candidates.log_probabilities.copy()))
    for (ids, log_p), (other_ids, other_log_p) in zip(found[:4], found[4:], strict=True):
        np.testing.assert_array_equal(ids, other_ids)
        np.testing.assert_allclose(log_p, other_log_p, atol=1e-5)


def test_workers_may_encode_at_the_same_time(bundle):
    model = OnnxTranslationModel(bundle, 1, "cpu", RunCounter(2))
    sources = [[5, 9, 7, 2], [8, 2]]
    (expected, _) = model.encode(sources)
    wrong = []

    def encode():
        for _ in range(50):
            found = model.encode(sources)[0]
            if not np.allclose(found.keys_values[0], expected.keys_values[0], atol=1e-5):
                wrong.append(found)

    threads = [threading.Thread(target=encode) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


class WatchedSession:
    """Records for each run whether a concurrent run would count as the only one."""

    def __init__(self, session, run_counter):
        self._session, self._run_counter = session, run_counter
        self.is_alone = []

    def run(self, *arguments):
        with self._run_counter.run() as is_alone:
            self.is_alone.append(is_alone)
        return self._session.run(*arguments)


def test_runs_of_the_scorer_are_counted(bundle):
    run_counter = RunCounter(1)
    model = OnnxTranslationModel(bundle, 1, "cpu", run_counter)
    watched: Any = WatchedSession(model.scorer.shared, run_counter)
    model.scorer.shared = watched
    assert model.score([([5, 9, 2], [7, 2])])
    assert watched.is_alone == [False]


def test_runs_of_the_masked_word_head_are_counted(embedding_bundle):
    run_counter = RunCounter(1)
    model = OnnxEmbeddingModel(read_bundle(embedding_bundle, "fp32", "cpu"), 1, "cpu", run_counter)
    assert model.mlm_head is not None
    watched: Any = WatchedSession(model.mlm_head.shared, run_counter)
    model.mlm_head.shared = watched
    hidden = model.embed([[5, 9]], ["hidden_2"])["hidden_2"][0]
    assert model.fill(hidden, top_k=3).token_ids.shape == (2, 3)
    assert watched.is_alone == [False]


def test_sessions_are_compared_on_no_longer_text_than_the_model_takes(bundle, monkeypatch):
    manifest = bundle_pb2.Manifest()
    manifest.CopyFrom(bundle.manifest)
    manifest.limits.max_source_tokens = manifest.limits.max_target_tokens = 5
    lengths: list[int] = []

    def recording_pad(sequences, pad_id):
        lengths.extend(map(len, sequences))
        return pad(sequences, pad_id)

    monkeypatch.setattr("attendant_server.runtime.translation_model.pad", recording_pad)
    OnnxTranslationModel(replace(bundle, manifest=manifest), 1, "cpu", RunCounter(2))
    assert max(lengths) == 5
