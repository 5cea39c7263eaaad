"""Tokens that a step decodes after EOS have no effect."""

import time

import numpy as np
import pytest
from attendant_server.engine.calls import SearchOptions, TranslateCall
from attendant_server.engine.translation_scheduler import TranslationScheduler
from attendant_server.errors import ModelFailed

from tests.server.test_translation_scheduler import greedy, run
from tests.support.fake_model import EOS, FakeCache, FakeTranslationModel, RecordingObserver
from tests.support.limits import translation_limits


class HalfBrokenCache(FakeCache):
    """Returns NaN for the second token of a step: always, or only after EOS."""

    def __init__(self, model, width, max_slots, step, is_broken_behind_ends_alone):
        super().__init__(model, width, max_slots, step)
        self.is_broken_behind_ends_alone = is_broken_behind_ends_alone

    def step(self, num_slots, step_input):
        found = super().step(num_slots, step_input)
        has_ended = found.token_ids[:, 0] == EOS
        found.log_probabilities[has_ended | (not self.is_broken_behind_ends_alone), 1] = np.nan
        return found


@pytest.mark.parametrize(
    ("max_output_tokens", "is_broken_behind_ends_alone", "fails"),
    [
        pytest.param(50, True, False, id="behind an end token"),
        pytest.param(1, False, False, id="behind the limit"),
        pytest.param(50, False, True, id="before the end"),
    ],
)
def test_what_is_no_number_fails_a_call_unless_it_lies_behind_the_end(
    max_output_tokens, is_broken_behind_ends_alone, fails
):
    class HalfBrokenModel(FakeTranslationModel):
        def new_cache(self, step, width, max_slots, pool=None):
            return HalfBrokenCache(self, width, max_slots, step, is_broken_behind_ends_alone)

    model = HalfBrokenModel(num_greedy_tokens=2)
    scheduler = TranslationScheduler(
        "fake", model, translation_limits(), RecordingObserver(), time.monotonic
    )
    options = SearchOptions(max_output_tokens)
    # A sentence whose EOS is the first token of a step.
    source = next((n,) for n in range(100) if len(greedy((n,), options)[0]) % 2 == 1)
    call = TranslateCall([source], options)
    scheduler.submit(call)
    run(scheduler)
    assert isinstance(call.future.exception(), ModelFailed) == fails
