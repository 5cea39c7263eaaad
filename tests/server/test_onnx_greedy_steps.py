"""Steps of greedy search, on the host alone, give those of decoder_step and touch nothing else."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
from attendant_server.bundles import read_bundle
from attendant_server.engine.models import NO_ADJUSTMENTS, Adjustments, Candidates, StepInput
from attendant_server.onnx_memory import HostDecoderMemory
from attendant_server.onnx_models import OnnxTranslationModel

from tests.server.test_onnx_memory import Twins, search_at_random, source_of, without_greedy_steps


def step_of(*tokens):
    """The input of a first step for one row a sentence."""
    return StepInput(np.array(tokens), np.zeros(len(tokens), np.int32), 5, [NO_ADJUSTMENTS])


def model_of(folder, precision, graph):
    """A model whose greedy search takes the steps of ``graph``."""
    bundle = read_bundle(folder, precision, "cpu")
    for graphs in bundle.manifest.precisions:
        for name in {"greedy_step", "greedy_steps"} - {graph}:
            graphs.ClearField(name)  # type: ignore[arg-type]
    return OnnxTranslationModel(bundle, 1)


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("fp32", 1e-4), ("int8", 5e-2), ("fp16", 2e-2)]
)
def test_greedy_steps_agree_with_steps_of_any_width(translation_bundle, precision, tolerance):
    both = SimpleNamespace(
        host=without_greedy_steps(read_bundle(translation_bundle, precision, "cpu")),
        device=model_of(translation_bundle, precision, "greedy_step"),
        tolerance=tolerance,
    )
    assert both.device.greedy_steps is not None
    search_at_random(Twins(both, width=1), random.Random(3))


@pytest.fixture(scope="module", params=["fp32", "int8"])
def model(request, translation_bundle):
    return model_of(translation_bundle, request.param, "greedy_step")


def new_memory(model, max_blocks, left_there=0.0):
    """A memory as new, or in which earlier sentences have left something."""
    memory = HostDecoderMemory(model.greedy_steps, model.cache_sizes, 1, max_blocks)
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


class OneByOne:
    """What each of several steps in a run should find, by single steps over the same sources."""

    def __init__(self, memory):
        self.memory = memory

    def step(self, num_blocks, step_input):
        tokens, lengths = step_input.tokens, step_input.lengths
        found = []
        for adjusted in step_input.adjustments:
            best = self.memory.step(num_blocks, StepInput(tokens, lengths, 1, [adjusted]))
            tokens, lengths = best.token_ids[:, 0].copy(), lengths + 1
            found.append((tokens, best.log_probabilities[:, 0].copy()))
        return [np.stack(each, axis=1) for each in zip(*found, strict=True)]


@pytest.fixture(params=["fp32", "int8", "fp16"])
def one_by_one_and_together(request, translation_bundle):
    graphs = ("greedy_step", "greedy_steps")
    models = [model_of(translation_bundle, request.param, graph) for graph in graphs]
    memories = [model.new_memory(1, 3) for model in models]
    for model, memory in zip(models, memories, strict=True):
        load(memory, model, source_of(5), source_of(40), source_of(3))
    return OneByOne(memories[0]), memories[1]


def assert_equal(found, expected):
    np.testing.assert_array_equal(found.token_ids, expected[0])
    # To the last bit, but for fp16, whose conversions ONNX Runtime places as it likes.
    np.testing.assert_allclose(found.log_probabilities, expected[1], rtol=0, atol=1e-6)


def test_several_steps_in_a_run_find_what_they_find_one_by_one(one_by_one_and_together):
    one_by_one, together = one_by_one_and_together
    num_tokens = together.num_step_tokens
    assert num_tokens > 1
    tokens, lengths = np.array([9, 8, 7]), np.zeros(3, np.int32)
    for num_rows in (1, 2, 3, 3, 2, 3):  # so that rows of one run differ in age
        rows = slice(num_rows)
        step_input = StepInput(
            tokens[rows].copy(), lengths[rows].copy(), 1, [NO_ADJUSTMENTS] * num_tokens
        )
        found = together.step(num_rows, step_input)
        assert_equal(found, one_by_one.step(num_rows, step_input))
        tokens[rows], lengths[rows] = found.token_ids[:, -1], lengths[rows] + num_tokens


def test_each_step_of_a_run_has_adjustments_of_its_own(one_by_one_and_together):
    one_by_one, together = one_by_one_and_together
    nothing = [NO_ADJUSTMENTS] * (together.num_step_tokens - 1)
    plain = StepInput(np.array([9, 8, 7]), np.zeros(3, np.int32), 1, [NO_ADJUSTMENTS, *nothing])
    likeliest = together.step(3, plain).token_ids.copy()
    for step in (0, len(nothing)):
        suppressed = Adjustments(
            np.array([[1, likeliest[1, step]]]), np.full(1, -np.inf, np.float32)
        )
        adjustments = [*nothing[:step], suppressed, *nothing[step:]]
        step_input = StepInput(plain.tokens, plain.lengths, 1, adjustments)
        found = together.step(3, step_input)
        assert found.token_ids[1, step] != likeliest[1, step]
        np.testing.assert_array_equal(found.token_ids[[0, 2]], likeliest[[0, 2]])
        assert_equal(found, one_by_one.step(3, step_input))
    assert_equal(together.step(3, plain), one_by_one.step(3, plain))


def test_a_run_may_go_on_behind_the_end_of_a_full_row(one_by_one_and_together, translation_bundle):
    one_by_one, together = one_by_one_and_together
    limit = read_bundle(translation_bundle, "fp32", "cpu").manifest.limits.max_target_tokens
    lengths = np.array([limit - 1, 0, 0], np.int32)
    nothing = [NO_ADJUSTMENTS] * together.num_step_tokens
    found = together.step(3, StepInput(np.array([9, 8, 7]), lengths, 1, nothing))
    expected = one_by_one.step(3, StepInput(np.array([9, 8, 7]), lengths, 1, nothing[:1]))
    first = Candidates(found.token_ids[:, :1], found.log_probabilities[:, :1])
    assert_equal(first, expected)
    assert np.isfinite(found.log_probabilities).all()
