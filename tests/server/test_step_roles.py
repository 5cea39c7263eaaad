"""A signature whose names are in wrong roles is refused when the model is loaded."""

import re
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from attendant.v1.bundle_pb2 import (
    STATE_OWNER_ROW,
    STATE_OWNER_SOURCE,
    StateOwner,
    StateTensor,
    StepGraph,
)
from attendant_server.bundles import read_bundle

from tests.support.models import random_bundle, translation_model

STEPS = ["decoder_step", "greedy_steps", "shortlist_decoder_step", "shortlist_greedy_steps"]
"""The step graphs that a model uses without or with shortlists."""

Change = Callable[[StepGraph], None]


def refusal(bundle: Path, step: str, change: Change, precision: str = "fp32") -> str:
    """The reason for refusing the bundle after ``change`` of one step; empty if it is loaded."""
    changed = read_bundle(bundle, precision, "cpu")
    [graph] = (each for each in changed.graphs.steps if each.name == step)
    change(graph)
    try:
        translation_model(changed, uses_shortlists=step.startswith("shortlist"))
    except ValueError as error:
        return str(error)
    return ""


def swap(a: Any, a_field: Any, b: Any, b_field: Any) -> None:
    """Swap two fields of messages, or two items of lists."""
    if isinstance(a_field, int):
        a[a_field], b[b_field] = b[b_field], a[a_field]
    else:
        values = getattr(a, a_field), getattr(b, b_field)
        setattr(a, a_field, values[1])
        setattr(b, b_field, values[0])


def swap_inputs(a: str, b: str) -> Change:
    return lambda step: swap(step.inputs, a, step.inputs, b)


@pytest.mark.parametrize(
    ("step", "a", "b", "problem"),
    [
        ("decoder_step", "tokens", "source_lengths", "inputs.tokens: shape differs"),
        ("decoder_step", "tokens", "past_lengths", "inputs.past_lengths: type differs"),
        ("decoder_step", "tokens", "num_candidates", "inputs.tokens: shape differs"),
        ("decoder_step", "past_lengths", "total_length", "inputs.past_lengths: shape differs"),
        ("greedy_steps", "past_lengths", "total_source_length", "inputs.past_lengths: shape"),
        ("greedy_steps", "tokens", "source_lengths", "cannot run: "),
        ("greedy_steps", "total_length", "total_source_length", "check inputs"),
        ("shortlist_decoder_step", "tokens", "shortlist", "inputs.tokens: shape differs"),
        ("shortlist_greedy_steps", "shortlist", "shortlist_mask", "inputs.shortlist_mask: type"),
        ("shortlist_greedy_steps", "tokens", "source_lengths", "check inputs"),
    ],
)
def test_swapped_inputs_are_refused_by_step_and_field(
    translation_bundle: Path, step: str, a: str, b: str, problem: str
):
    found = refusal(translation_bundle, step, swap_inputs(a, b))
    assert found.startswith(f"step {step}")
    assert problem in found


@pytest.mark.parametrize("step", STEPS)
def test_no_two_inputs_of_a_step_can_be_swapped(translation_bundle: Path, step: str):
    graphs = read_bundle(translation_bundle, "fp32", "cpu").graphs
    [graph] = (each for each in graphs.steps if each.name == step)
    fields = [field.name for field, name in graph.inputs.ListFields() if isinstance(name, str)]
    for a, b in combinations(fields, 2):
        found = refusal(translation_bundle, step, swap_inputs(a, b))
        assert found.startswith(f"step {step}"), (a, b)


def test_swapped_candidates_are_refused_by_step_and_field(translation_bundle: Path):
    def change(step: StepGraph) -> None:
        swap(step.outputs, "candidate_ids", step.outputs, "candidate_log_probabilities")

    for step in ("decoder_step", "greedy_steps"):
        found = refusal(translation_bundle, step, change)
        assert found.startswith(f"step {step}: outputs.candidate_ids: type differs")


def test_token_biases_in_another_order_are_refused(translation_bundle: Path):
    def change(step: StepGraph) -> None:
        first, second = step.inputs.token_biases
        for field in ("indices", "values"):
            swap(first, field, second, field)

    found = refusal(translation_bundle, "greedy_steps", change)
    assert "token 1 in a trial differs from the scorer's" in found
    assert "inputs.token_biases" in found


def test_token_biases_with_indices_of_another_token_are_refused(translation_bundle: Path):
    def change(step: StepGraph) -> None:
        swap(step.inputs.token_biases[0], "indices", step.inputs.token_biases[1], "indices")

    found = refusal(translation_bundle, "greedy_steps", change)
    assert found.startswith("step greedy_steps: inputs.token_biases[0].values: shape differs")


def states_of(step: StepGraph, owner: StateOwner.ValueType) -> Sequence[StateTensor]:
    return [state for state in step.states if state.owner == owner]


PAIRS = list(combinations(range(4), 2))
"""Two states of the same owner: keys and values of two layers."""


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("step", ["decoder_step", "greedy_steps"])
@pytest.mark.parametrize("owner", [STATE_OWNER_ROW, STATE_OWNER_SOURCE])
def test_swapped_inputs_of_states_are_refused(
    translation_bundle: Path,
    step: str,
    owner: StateOwner.ValueType,
    precision: str,
):
    for i, j in PAIRS:

        def change(graph: StepGraph, i: int = i, j: int = j) -> None:
            states = states_of(graph, owner)
            swap(states[i], "input", states[j], "input")

        found = refusal(translation_bundle, step, change, precision)
        assert re.match(rf"step {step}: .* check .* input", found), (i, j)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("step", ["decoder_step", "greedy_steps"])
@pytest.mark.parametrize("owner", [STATE_OWNER_ROW, STATE_OWNER_SOURCE])
def test_swapped_outputs_of_states_are_refused(
    translation_bundle: Path,
    step: str,
    owner: StateOwner.ValueType,
    precision: str,
):
    graphs = read_bundle(translation_bundle, precision, "cpu").graphs
    [graph] = (each for each in graphs.steps if each.name == step)
    for token in range(len(states_of(graph, owner)[0].outputs)):
        for i, j in PAIRS:

            def change(graph: StepGraph, i: int = i, j: int = j, token: int = token) -> None:
                states = states_of(graph, owner)
                swap(states[i].outputs, token, states[j].outputs, token)

            found = refusal(translation_bundle, step, change, precision)
            assert re.match(rf"step {step}: .* check .* outputs", found), (i, j)


def test_a_row_state_that_is_named_as_a_source_state_is_refused_by_step_and_field(
    translation_bundle: Path,
):
    def change(graph: StepGraph) -> None:
        row, source = states_of(graph, STATE_OWNER_ROW), states_of(graph, STATE_OWNER_SOURCE)
        swap(row[1], "input", source[1], "input")

    for step in ("decoder_step", "greedy_steps"):
        found = refusal(translation_bundle, step, change)
        assert re.match(rf"step {step}: state \w+: shape differs", found)


def test_an_output_that_is_named_as_that_of_a_source_state_is_refused_by_step_and_field(
    translation_bundle: Path,
):
    def change(graph: StepGraph) -> None:
        row, source = states_of(graph, STATE_OWNER_ROW), states_of(graph, STATE_OWNER_SOURCE)
        swap(row[0].outputs, 1, source[0].outputs, 1)

    found = refusal(translation_bundle, "greedy_steps", change)
    assert re.match(r"step greedy_steps: output \w+ of state \w+: shape differs", found)


@pytest.mark.parametrize(("a", "b"), PAIRS)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_swapped_outputs_of_the_encoder_are_refused(
    translation_bundle: Path, precision: str, a: int, b: int
):
    bundle = read_bundle(translation_bundle, precision, "cpu")
    for step in bundle.graphs.steps:
        states = states_of(step, STATE_OWNER_SOURCE)
        swap(states[a], "encoder_output", states[b], "encoder_output")
    with pytest.raises(ValueError, match=r"step decoder_step: .* encoder_output"):
        translation_model(bundle)


def test_a_shortlist_that_is_named_as_a_state_is_refused_by_its_field(translation_bundle: Path):
    bundle = read_bundle(translation_bundle, "fp32", "cpu")
    for step in bundle.graphs.steps:
        [state] = (s for s in step.states if s.encoder_output == "cross_key_1")
        state.encoder_output = bundle.graphs.shortlist_output
    bundle.graphs.shortlist_output = "cross_key_1"
    with pytest.raises(ValueError, match=r"encoder: encoder_output of state cross_key_1: type"):
        translation_model(bundle)


@pytest.mark.parametrize("precision", ["fp32", "int8", "fp16"])
@pytest.mark.parametrize("max_tokens", [1, 2, 3, 7])
def test_random_models_of_any_length_are_loaded(tmp_path: Path, max_tokens: int, precision: str):
    model = translation_model(random_bundle(tmp_path, max_tokens, precision))
    assert len(model.encode([[5] * max_tokens])) == 1


@pytest.mark.parametrize("uses_shortlists", [False, True])
@pytest.mark.parametrize(("max_source_tokens", "max_target_tokens"), [(1, 1), (1, 64), (64, 1)])
def test_a_model_is_tried_out_within_its_limits(
    translation_bundle: Path,
    uses_shortlists: bool,
    max_source_tokens: int,
    max_target_tokens: int,
):
    bundle = read_bundle(translation_bundle, "int8", "cpu")
    bundle.manifest.limits.max_source_tokens = max_source_tokens
    bundle.manifest.limits.max_target_tokens = max_target_tokens
    assert translation_model(bundle, uses_shortlists=uses_shortlists)


def test_limits_beyond_the_positions_of_the_graphs_are_refused_by_their_field(tmp_path: Path):
    for field in ("max_source_tokens", "max_target_tokens"):
        bundle = random_bundle(tmp_path, 24, "fp32")
        setattr(bundle.manifest.limits, field, 26)
        with pytest.raises(ValueError, match=f"cannot run: .*; check limits.{field}"):
            translation_model(bundle)
