"""Predictions of masks: the likeliest tokens beside the probabilities of given ones."""

from typing import Any

import numpy as np
import pytest
from attendant_server.engine import mask_predictions
from attendant_server.engine.encoder_calls import FillMaskCall, MaskCandidates
from attendant_server.engine.mask_predictions import MaskedText, predictions
from hypothesis import given
from hypothesis import strategies as st

VOCAB = 12


class Head:
    """A head whose probabilities depend on the hidden state of the mask; counts its runs."""

    vocab_size = VOCAB

    def __init__(self):
        self.runs = []

    def fill(self, hidden, top_k):
        self.runs.append((len(hidden), top_k))
        every = np.stack([probabilities(each) for each in hidden])
        ids = np.argsort(-every, axis=1)[:, :top_k]
        return MaskCandidates(ids, np.take_along_axis(every, ids, axis=1))


def made() -> Any:
    return Head()


def probabilities(hidden):
    weights = np.random.default_rng(int(hidden[0])).random(VOCAB).astype(np.float32)
    return weights / weights.sum()


def text(masks, top_k=3, candidates=None):
    call = FillMaskCall([[0]], [masks], top_k, candidate_ids=[candidates] if candidates else ())
    return MaskedText(call, 0, np.array(masks, np.float32)[:, None])


candidate_lists = st.lists(st.lists(st.integers(0, VOCAB - 1), min_size=1), min_size=1, max_size=5)


@given(st.lists(st.one_of(st.integers(1, 5), candidate_lists), min_size=1, max_size=6), st.data())
def test_each_text_has_what_it_asked_for_whatever_is_in_the_batch(wanted, data):
    texts = []
    for each in wanted:
        num_masks = each if isinstance(each, int) else len(each)
        masks = data.draw(st.lists(st.integers(0, 99), min_size=num_masks, max_size=num_masks))
        texts.append(text(masks, num_masks, None if isinstance(each, int) else each))
    for each, found in zip(texts, predictions(made(), texts), strict=True):
        for mask, hidden in enumerate(each.hidden):
            every = probabilities(hidden)
            if each.call.candidate_ids:
                ids = each.call.candidate_ids[0][mask]
                row = found.probabilities[mask].tolist()
                assert row[: len(ids)] == every[ids].tolist()
                assert not any(row[len(ids) :])
            else:
                assert (
                    found.token_ids[mask].tolist() == np.argsort(-every)[: each.call.top_k].tolist()
                )


def test_few_masks_with_candidates_share_a_run(monkeypatch):
    monkeypatch.setattr(mask_predictions, "MAX_RUN_PROBABILITIES", 4 * VOCAB)
    head = made()
    predictions(head, [text([1, 2, 3], candidates=[[1], [2], [3, 4]]), text([4], top_k=2)])
    assert head.runs == [(1, 2), (3, VOCAB)]
    predictions(head, [text(list(range(9)), candidates=[[5]] * 9)])
    assert head.runs[2:] == [(4, VOCAB), (4, VOCAB), (1, VOCAB)]


@pytest.mark.parametrize("missing", [0, VOCAB - 1])
def test_a_head_that_leaves_tokens_out_gives_no_number_for_them(missing, monkeypatch):
    fill = Head.fill

    def incomplete(head, hidden, top_k):
        found = fill(head, hidden, top_k)
        found.token_ids[found.token_ids == missing] = (missing + 1) % VOCAB
        return found

    monkeypatch.setattr(Head, "fill", incomplete)
    (found,) = predictions(made(), [text([3], candidates=[[missing, 5]])])
    assert np.isnan(found.probabilities[0]).tolist() == [True, False]
