"""Token-budget batching of embeddings."""

import logging
import random

import numpy as np
import pytest
from attendant_server.engine.embedding_scheduler import EmbeddingScheduler
from attendant_server.engine.encoder_calls import EmbedCall, FillMaskCall
from attendant_server.errors import DeadlineExceeded, ModelFailed

from tests.support.fake_model import FakeEmbeddingModel, RecordingObserver
from tests.support.limits import embedding_limits


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class SlowModel(FakeEmbeddingModel):
    """Takes one second per padded token on the given clock."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock

    def embed(self, texts, outputs, *lengths, **more):
        self.clock.now += max(map(len, texts)) * len(texts)
        return super().embed(texts, outputs)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def model():
    return FakeEmbeddingModel()


def new_scheduler(model, clock, **limits):
    return EmbeddingScheduler("fake", model, embedding_limits(**limits), RecordingObserver(), clock)


def run(scheduler):
    while scheduler.has_work:
        scheduler.advance(is_alone=True)


def test_every_text_gets_its_own_vector_whatever_it_is_batched_with(model, clock):
    scheduler = new_scheduler(model, clock, max_batch_tokens=24)
    rng = random.Random(5)
    calls = [
        EmbedCall(
            [[rng.randint(1, 99) for _ in range(rng.randint(1, 12))] for _ in range(3)],
            rng.choice([("mean_pooled",), ("hidden_1", "hidden_2")]),
        )
        for _ in range(30)
    ]
    for call in calls:
        scheduler.submit(call)
    run(scheduler)
    for call in calls:
        for text, result in zip(call.texts, call.future.result(), strict=True):
            assert tuple(result) == call.outputs
            if "mean_pooled" in call.outputs:
                assert result["mean_pooled"].tolist() == [sum(text), len(text)]
            else:
                assert result["hidden_2"][:, 0].tolist() == list(text)


def test_batches_keep_to_the_budget_of_padded_tokens(model, clock):
    scheduler = new_scheduler(model, clock, max_batch_tokens=24)
    rng = random.Random(6)
    scheduler.submit(EmbedCall([[1] * rng.randint(1, 30) for _ in range(60)], ("mean_pooled",)))
    run(scheduler)
    assert sum(map(len, model.batches)) == 60
    assert all(max(b) * len(b) <= 24 or len(b) == 1 for b in model.batches)


def test_texts_of_similar_length_share_a_batch(model, clock):
    scheduler = new_scheduler(model, clock, max_batch_tokens=40)
    scheduler.submit(EmbedCall([[1] * n for n in (4, 20, 4, 20, 4)], ("mean_pooled",)))
    run(scheduler)
    assert model.batches == [[4, 4, 4], [20, 20]]


def test_the_oldest_text_is_in_the_next_batch(model, clock):
    scheduler = new_scheduler(model, clock, max_batch_tokens=8)
    scheduler.submit(EmbedCall([[1] * 8, *[[1] * 2] * 20], ("mean_pooled",)))
    scheduler.advance(is_alone=True)
    assert model.batches == [[8]]


def test_batches_shrink_to_the_measured_time_while_another_scheduler_waits(clock):
    model = SlowModel(clock)
    scheduler = new_scheduler(model, clock, max_batch_tokens=100, max_batch_seconds=10.0)
    scheduler.submit(EmbedCall([[1] * 5] * 50, ("mean_pooled",)))
    for is_alone in (False, False, False, True, False):
        scheduler.advance(is_alone)
    assert [len(batch) for batch in model.batches] == [20, 2, 2, 20, 2]


def test_masks_are_filled_from_the_last_layer_at_their_positions(model, clock):
    scheduler = new_scheduler(model, clock)
    call = FillMaskCall([[7, 8, 9], [5]], [[0, 2], [0]], top_k=2)
    scheduler.submit(call)
    run(scheduler)
    first, second = call.future.result()
    assert first.token_ids.tolist() == [[7, 8], [9, 10]]
    assert second.token_ids.tolist() == [[5, 6]]


def test_expired_and_cancelled_texts_are_not_run(model, clock):
    scheduler = new_scheduler(model, clock)
    late = EmbedCall([[1]], ("mean_pooled",), deadline=1.0)
    cancelled = EmbedCall([[2, 2]], ("mean_pooled",))
    kept = EmbedCall([[3, 3, 3]], ("mean_pooled",))
    for call in (late, cancelled, kept):
        scheduler.submit(call)
    cancelled.future.cancel()
    clock.now = 1.5
    run(scheduler)
    assert model.batches == [[3]]
    assert isinstance(late.future.exception(), DeadlineExceeded)
    assert np.array_equal(kept.future.result()[0]["mean_pooled"], [9, 3])


class HeadFailsOnSeven(FakeEmbeddingModel):
    """A model whose masked-word head fails for masks at token 7."""

    def __init__(self, clock=None):
        super().__init__()
        self.clock = clock
        self.num_heads = 0

    def fill(self, hidden, top_k):
        self.num_heads += 1
        if self.clock is not None:
            self.clock.now += 1000
        if 7 in hidden:
            raise RuntimeError("no head")
        return super().fill(hidden, top_k)


def test_one_run_of_the_head_fills_the_masks_of_all_texts(clock):
    model = HeadFailsOnSeven()
    scheduler = new_scheduler(model, clock)
    calls = [
        FillMaskCall([[3, 8], [4, 5, 6]], [[1], [0, 2]], top_k=1),
        FillMaskCall([[20, 30]], [[0]], top_k=3),
    ]
    for call in calls:
        scheduler.submit(call)
    run(scheduler)
    found = [[each.token_ids.tolist() for each in call.future.result()] for call in calls]
    assert found == [[[[8]], [[4], [6]]], [[[20, 21, 22]]]]
    assert model.num_heads == 1


def test_a_head_that_fails_fails_its_call_and_nobody_else(clock, caplog):
    caplog.set_level(logging.CRITICAL)
    model = HeadFailsOnSeven()
    scheduler = new_scheduler(model, clock)
    broken = FillMaskCall([[7, 8]], [[0]], top_k=2)
    embedding = EmbedCall([[1, 2]], ("mean_pooled",))
    masked = FillMaskCall([[5, 8]], [[0]], top_k=2)
    for call in (broken, embedding, masked):
        scheduler.submit(call)
    scheduler.advance(is_alone=True)
    assert model.batches == [[2, 2, 2]]
    assert isinstance(broken.future.exception(), ModelFailed)
    assert embedding.future.result()[0]["mean_pooled"].tolist() == [3, 2]
    assert masked.future.result()[0].token_ids.tolist() == [[5, 6]]


def test_a_failed_head_is_logged_once_for_a_call_and_not_run_for_its_other_texts(clock, caplog):
    model = HeadFailsOnSeven()
    scheduler = new_scheduler(model, clock)
    scheduler.submit(FillMaskCall([[7, 8]] * 20, [[0]] * 20, top_k=2))
    run(scheduler)
    assert model.num_heads == 2  # for all texts together, and for the first one
    assert caplog.messages == ["event=model_failed model=fake run=mlm_head"]


def test_the_budget_of_time_learns_nothing_from_a_failed_head(clock, caplog):
    caplog.set_level(logging.CRITICAL)
    model = HeadFailsOnSeven(clock)
    scheduler = new_scheduler(model, clock, max_batch_tokens=100, max_batch_seconds=10.0)
    scheduler.submit(FillMaskCall([[7, 8]], [[0]], top_k=2))
    run(scheduler)
    scheduler.submit(EmbedCall([[1] * 5] * 20, ("mean_pooled",)))
    scheduler.advance(is_alone=False)
    assert [len(batch) for batch in model.batches] == [1, 20]


def test_the_budget_of_time_learns_nothing_from_a_failed_run(clock, caplog):
    caplog.set_level(logging.CRITICAL)

    class FailsOnSeven(FakeEmbeddingModel):
        def embed(self, texts, outputs, *lengths, **more):
            if 7 in texts[0]:
                clock.now += 1000
                raise RuntimeError("no embedder")
            return super().embed(texts, outputs)

    model = FailsOnSeven()
    scheduler = new_scheduler(model, clock, max_batch_tokens=100, max_batch_seconds=10.0)
    scheduler.submit(EmbedCall([[7]], ("mean_pooled",)))
    run(scheduler)
    scheduler.submit(EmbedCall([[1] * 5] * 20, ("mean_pooled",)))
    scheduler.advance(is_alone=False)
    assert [len(batch) for batch in model.batches] == [20]


def test_the_head_is_not_run_for_a_call_that_was_cancelled_meanwhile(clock):
    call = FillMaskCall([[5, 8]], [[0]], top_k=2)

    class CancellingModel(HeadFailsOnSeven):
        def embed(self, texts, outputs, *lengths, **more):
            call.future.cancel()
            return super().embed(texts, outputs)

    model = CancellingModel()
    scheduler = new_scheduler(model, clock)
    scheduler.submit(call)
    run(scheduler)
    assert model.num_heads == 0


def test_a_text_without_finite_numbers_fails_alone(clock, caplog):
    caplog.set_level(logging.CRITICAL)

    class OverflowingModel(FakeEmbeddingModel):
        def embed(self, texts, outputs, *lengths, **more):
            results = super().embed(texts, outputs)
            for row, text in enumerate(texts):
                if 13 in text:
                    results["mean_pooled"][row] = np.nan
            return results

    scheduler = new_scheduler(OverflowingModel(), clock)
    bad, mate = EmbedCall([[13]], ("mean_pooled",)), EmbedCall([[1, 2]], ("mean_pooled",))
    scheduler.submit(bad)
    scheduler.submit(mate)
    run(scheduler)
    assert isinstance(bad.future.exception(), ModelFailed)
    assert mate.future.result()


def test_a_text_that_the_embedder_cannot_run_fails_alone(clock, caplog):
    caplog.set_level(logging.CRITICAL)

    class RefusesSeven(FakeEmbeddingModel):
        def embed(self, texts, outputs, *lengths, **more):
            if any(7 in text for text in texts):
                raise RuntimeError("no position for this token")
            return super().embed(texts, outputs)

    model = RefusesSeven()
    scheduler = new_scheduler(model, clock)
    calls = [EmbedCall([[1, each]], ("mean_pooled",)) for each in (2, 7, 3)]
    for call in calls:
        scheduler.submit(call)
    run(scheduler)
    assert calls[0].future.result()[0]["mean_pooled"].tolist() == [3, 2]
    assert isinstance(calls[1].future.exception(), ModelFailed)
    assert calls[2].future.result()[0]["mean_pooled"].tolist() == [4, 2]


def test_a_model_that_reads_pairs_gets_the_length_of_each_first_text(clock):
    class ReadsPairs(FakeEmbeddingModel):
        reads_token_types = True

        def embed(self, texts, outputs, first_lengths=None, *lengths, **more):
            self.first_lengths = first_lengths
            return super().embed(texts, outputs)

    model = ReadsPairs()
    scheduler = new_scheduler(model, clock)
    scheduler.submit(EmbedCall([[1, 2, 3], [4, 5]], ("mean_pooled",), None, [2, 1]))
    scheduler.submit(EmbedCall([[6, 7]], ("mean_pooled",)))
    scheduler.submit(FillMaskCall([[8, 9, 9]], [[1]], top_k=1))
    run(scheduler)
    assert model.batches == [[3, 3, 2, 2]]
    assert model.first_lengths == [2, 3, 2, 1]  # one text of each call in turn
