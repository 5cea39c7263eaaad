"""Steps of greedy_step, on the host alone, give those of decoder_step and touch nothing else."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
from attendant_server.bundles import read_bundle
from attendant_server.engine.models import StepInput
from attendant_server.onnx_memory import HostDecoderMemory
from attendant_server.onnx_models import OnnxTranslationModel

from tests.server.test_onnx_memory import Twins, search_at_random, source_of, without_greedy_step

NOTHING = np.zeros((0, 2), np.int64), np.zeros(0, np.float32)


def step_of(*tokens):
    """The input of a first step for one row a sentence."""
    return StepInput(np.array(tokens), np.zeros(len(tokens), np.int32), 5, *NOTHING)


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("fp32", 1e-4), ("int8", 5e-2), ("fp16", 2e-2)]
)
def test_greedy_steps_agree_with_steps_of_any_width(translation_bundle, precision, tolerance):
    bundle = read_bundle(translation_bundle, precision, "cpu")
    both = SimpleNamespace(
        host=without_greedy_step(bundle),
        device=OnnxTranslationModel(bundle, 1),
        tolerance=tolerance,
    )
    assert both.device.greedy_step is not None
    search_at_random(Twins(both, width=1), random.Random(3))


@pytest.fixture(scope="module", params=["fp32", "int8"])
def model(request, translation_bundle):
    return OnnxTranslationModel(read_bundle(translation_bundle, request.param, "cpu"), 1)


def new_memory(model, max_blocks, left_there=0.0):
    """A memory as new, or in which earlier sentences have left something."""
    memory = HostDecoderMemory(model.greedy_step, model.cache_sizes, 1, max_blocks, True)
    memory._cross_memory[...] = left_there
    return memory


def load(memory, model, *sources):
    for block, encoded in enumerate(model.encode(sources)):
        memory.load(block, encoded)


def test_a_greedy_step_reads_nothing_behind_a_source(model):
    found = []
    for left_there in (0, np.nan):
        memory = new_memory(model, 3, left_there)
        load(memory, model, source_of(5), source_of(40), source_of(3))
        memory.move(2, 1, 0)
        found.append(memory.step(2, step_of(9, 8)).log_probabilities.copy())
    np.testing.assert_array_equal(found[0], found[1])


def test_a_longer_source_that_joins_sources_of_one_token_changes_nothing_for_them(model):
    memory = new_memory(model, 3)
    load(memory, model, [2], [2])
    alone = memory.step(2, step_of(9, 8)).log_probabilities.copy()
    (longer,) = model.encode([source_of(20)])
    memory.load(2, longer)
    together = memory.step(3, step_of(9, 8, 7)).log_probabilities.copy()
    np.testing.assert_allclose(together[:2], alone, atol=1e-5)
    memory.step(3, step_of(9, 8, 7))
    for cross, keys_values in zip(memory._cross, longer.keys_values, strict=True):
        np.testing.assert_array_equal(cross[2, :, :20], keys_values)


def test_a_bound_greedy_step_is_used_again(model):
    memory = new_memory(model, 4)
    load(memory, model, *([source_of(5)] * 4))
    for num_blocks in (4, 3, 4, 3, 2, 4):
        memory.step(num_blocks, step_of(*[9] * num_blocks))
    assert len(memory._bindings) == 3
