"""Checks that the tensors of a step graph have the types and shapes of their roles.

The signature in the manifest states the roles. `step_trials` finds swapped roles of equal types and
shapes.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import onnxruntime
from attendant.v1 import bundle_pb2, embedding_pb2

INT32, INT64, BOOL, FLOAT = "tensor(int32)", "tensor(int64)", "tensor(bool)", "tensor(float)"
DATA_TYPES = {
    embedding_pb2.DATA_TYPE_FLOAT32: FLOAT,
    embedding_pb2.DATA_TYPE_FLOAT16: "tensor(float16)",
}
"""ONNX Runtime's names of the data types of states."""

Dimension: TypeAlias = int | str
"""A size, or the key of a dimension that several tensors share."""


class Role(NamedTuple):
    """A field of a signature, and the tensor that it names."""

    field: str
    name: str
    type: str
    shape: tuple[Dimension, ...]


def check_step(session: onnxruntime.InferenceSession, step: bundle_pb2.StepGraph) -> None:
    """Raise ValueError unless each tensor of a step has the type and shape of its role.

    Graphs name their dynamic dimensions. Tensors that share a dimension must use the same name.
    """
    shared: dict[Dimension, str] = {}
    _check(f"step {step.name}", session.get_inputs(), _input_roles(step), shared)
    _check(f"step {step.name}", session.get_outputs(), _output_roles(step), shared)


def check_encoder(
    session: onnxruntime.InferenceSession, step: bundle_pb2.StepGraph, shortlist_output: str
) -> None:
    """Raise ValueError unless the encoder's outputs have the types and shapes of their roles.

    They initialize the states of ``step``. ``shortlist_output`` is empty without shortlists.
    """
    _check("encoder", session.get_outputs(), _encoder_roles(step, shortlist_output), {})


def _check(
    graph: str, values: Sequence[Any], roles: Iterable[Role], shared: dict[Dimension, str]
) -> None:
    by_name = {value.name: value for value in values}
    for role in roles:
        found = by_name[role.name]
        for what, is_right in (
            ("type", found.type == role.type),
            ("shape", _has_shape(found.shape, role.shape, shared)),
        ):
            if not is_right:
                raise ValueError(
                    f"{graph}: {role.field}: {what} differs between manifest and graph"
                )


def _has_shape(
    found: list[Any], expected: tuple[Dimension, ...], shared: dict[Dimension, str]
) -> bool:
    """Whether sizes are equal, and equal keys stand for equal names. A name may be absent."""
    if len(found) != len(expected):
        return False
    return all(
        dimension == key if isinstance(key, int) else shared.setdefault(key, dimension) == dimension
        for dimension, key in zip(found, expected, strict=True)
        if dimension is not None
    )


def _input_roles(step: bundle_pb2.StepGraph) -> Iterator[Role]:
    """Roles of inputs: states, whose shapes the manifest states, come first."""
    inputs = step.inputs
    for state in step.states:
        yield Role(f"state {state.input}", state.input, *_of_state(state))
    for field, kind, shape in (
        ("past_lengths", INT32, ("rows",)),
        ("tokens", INT64, ("rows",)),
        ("total_length", INT32, (1,)),
        ("source_lengths", INT64, ("sources",)),
        ("total_source_length", INT32, (1,)),
        ("num_candidates", INT64, (1,)),
        ("shortlist_mask", BOOL, ("rows", "listed")),
        ("shortlist", INT64, ("listed",)),
    ):
        if name := getattr(inputs, field):
            yield Role(f"inputs.{field}", name, kind, shape)
    for i, bias in enumerate(inputs.token_biases):
        field = f"inputs.token_biases[{i}]"
        yield Role(f"{field}.indices", bias.indices, INT64, (f"biases {i}", 2))
        yield Role(f"{field}.values", bias.values, FLOAT, (f"biases {i}",))
    if inputs.HasField("repetition_penalty"):
        penalty, field = inputs.repetition_penalty, "inputs.repetition_penalty"
        yield Role(f"{field}.indices", penalty.indices, INT64, ("penalized", 2))
        yield Role(f"{field}.values", penalty.values, FLOAT, ("penalized",))
        yield Role(f"{field}.penalizes_logits", penalty.penalizes_logits, BOOL, (1,))


def _output_roles(step: bundle_pb2.StepGraph) -> Iterator[Role]:
    outputs = step.outputs
    shape = "rows", step.num_tokens if step.num_tokens > 1 else "candidates"
    yield Role("outputs.candidate_ids", outputs.candidate_ids, INT64, shape)
    name = outputs.candidate_log_probabilities
    yield Role("outputs.candidate_log_probabilities", name, FLOAT, shape)
    if name := outputs.candidate_scores:
        yield Role("outputs.candidate_scores", name, FLOAT, shape)
    for state in step.states:
        for output in state.outputs:
            yield Role(f"output {output} of state {state.input}", output, *_of_state(state))


def _encoder_roles(step: bundle_pb2.StepGraph, shortlist_output: str) -> Iterator[Role]:
    for state in step.states:
        if name := state.encoder_output:
            yield Role(f"encoder_output of state {state.input}", name, *_of_state(state))
    if shortlist_output:
        yield Role("shortlist_output", shortlist_output, INT32, ("sources", "listed"))


def _of_state(state: bundle_pb2.StateTensor) -> tuple[str, tuple[Dimension, ...]]:
    """Type and shape of a state."""
    owner = "rows" if state.owner == bundle_pb2.STATE_OWNER_ROW else "sources"
    sizes = (size or f"positions of {owner}" for size in state.shape)
    return DATA_TYPES[state.data_type], (owner, *sizes)
