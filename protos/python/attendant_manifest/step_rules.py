"""The rules for the signatures of step graphs.

A valid signature names every input and output of its graph exactly once, so a reader binds each of
them once.
"""

from collections.abc import Iterator

from attendant.v1 import bundle_pb2, embedding_pb2

MAX_DIMENSION = 65_536
"""Largest size of a state's dimension."""
MAX_STEP_TOKENS = 16
"""Maximum number of tokens that one run of a step may decode."""
_INPUTS = ("tokens", "past_lengths", "total_length")
_SOURCE_INPUTS = ("source_lengths", "total_source_length", "shortlist", "shortlist_mask")
_PENALTY_INPUTS = ("indices", "values", "penalizes_logits")
_OUTPUTS = ("candidate_ids", "candidate_log_probabilities")
_UPDATES = {
    bundle_pb2.STATE_OWNER_ROW: (bundle_pb2.STATE_UPDATE_GROWS, bundle_pb2.STATE_UPDATE_REPLACED),
    bundle_pb2.STATE_OWNER_SOURCE: (bundle_pb2.STATE_UPDATE_CONSTANT,),
}
_TYPES = (embedding_pb2.DATA_TYPE_FLOAT32, embedding_pb2.DATA_TYPE_FLOAT16)


def steps_problems(precision: bundle_pb2.PrecisionGraphs, has_sources: bool) -> Iterator[str]:
    """Descriptions of all broken rules in the steps of one precision.

    With ``has_sources``, steps read encoded sources. Otherwise, the encoder initializes the states
    of rows.
    """
    steps = precision.steps
    names = [step.name for step in steps]
    if not all(names) or len(set(names)) != len(names):
        yield "steps must have names, each once"
    for step in steps:
        for problem in (*_step_problems(step, precision), *_source_problems(step, has_sources)):
            yield f"step {step.name}: {problem}"
    if not any(not s.rows_per_sentence and not s.inputs.shortlist for s in steps):
        yield "no step takes sentences of any number of rows without a shortlist"
    if len({_states_key(step) for step in steps}) > 1:
        yield "all steps must have the same states"
    state_outputs = {state.encoder_output for step in steps for state in step.states}
    takes_shortlist = any(step.inputs.shortlist for step in steps)
    free_outputs = set(precision.encoder.outputs) - state_outputs
    if takes_shortlist and precision.shortlist_output not in free_outputs:
        yield "shortlist_output must be an output of the encoder and no state's encoder_output"


def _states_key(step: bundle_pb2.StepGraph) -> tuple[object, ...]:
    """The properties that determine the memory layout of row states and source states."""
    return tuple(
        tuple(
            (state.data_type, state.update, tuple(state.shape), state.encoder_output)
            for state in step.states
            if state.owner == owner
        )
        for owner in _UPDATES
    )


def _step_problems(
    step: bundle_pb2.StepGraph, precision: bundle_pb2.PrecisionGraphs
) -> Iterator[str]:
    if not 1 <= step.num_tokens <= MAX_STEP_TOKENS:
        yield f"num_tokens must be between 1 and {MAX_STEP_TOKENS}"
    if step.max_prefill_tokens != 1 or step.inputs.num_prefill_tokens:
        yield "max_prefill_tokens must be 1"
    if len(step.inputs.token_biases) != step.num_tokens:
        yield "token_biases must have an entry for each of num_tokens"
    if step.rows_per_sentence not in (0, 1):
        yield "rows_per_sentence must be 0 or 1"
    if (step.num_tokens == 1) != bool(step.inputs.num_candidates):
        yield "num_candidates must be set for steps of one token, and for no others"
    if step.num_tokens > 1 and step.rows_per_sentence != 1:
        yield "a step of several tokens must have rows_per_sentence 1"
    if bool(step.inputs.shortlist) != bool(step.inputs.shortlist_mask):
        yield "shortlist and shortlist_mask belong together"
    for part, names in ((step.inputs, _INPUTS), (step.outputs, _OUTPUTS)):
        for name in names:
            if not getattr(part, name):
                yield f"{name} is missing"
    yield from _penalty_problems(step)
    if step.outputs.log_probabilities or step.outputs.attention:
        yield "outputs other than candidates are not supported"
    for state in step.states:
        for problem in _state_problems(state, step, precision):
            yield f"state {state.input}: {problem}"
    replaced = [s for s in step.states if s.update == bundle_pb2.STATE_UPDATE_REPLACED]
    if len({bool(state.encoder_output) for state in replaced}) > 1:
        yield "either all replaced states must have an encoder_output, or none"
    encoder_outputs = [state.encoder_output for state in step.states if state.encoder_output]
    if len(set(encoder_outputs)) != len(encoder_outputs):
        yield "two states have the same encoder_output"
    yield from _interface_problems(step)


def _source_problems(step: bundle_pb2.StepGraph, has_sources: bool) -> Iterator[str]:
    """Problems of what depends on whether steps read sources."""
    if has_sources and not step.inputs.source_lengths:
        yield "source_lengths is missing"
    for name in () if has_sources else _SOURCE_INPUTS:
        if getattr(step.inputs, name):
            yield f"{name} is for steps that read sources"
    for state in step.states:
        is_row = state.owner == bundle_pb2.STATE_OWNER_ROW
        is_replaced = state.update == bundle_pb2.STATE_UPDATE_REPLACED
        if is_row and has_sources and state.encoder_output and not is_replaced:
            yield f"state {state.input}: encoder_output is not supported for a growing state"
        if not (is_row or has_sources):
            yield f"state {state.input}: owner must be STATE_OWNER_ROW"
        if is_row and not has_sources and not state.encoder_output:
            yield f"state {state.input}: encoder_output is missing"
        if is_row and not has_sources and state.update != bundle_pb2.STATE_UPDATE_GROWS:
            yield f"state {state.input}: only STATE_UPDATE_GROWS is supported without sources"


def _penalty_problems(step: bundle_pb2.StepGraph) -> Iterator[str]:
    inputs = step.inputs
    takes_penalty = inputs.HasField("repetition_penalty")
    for name in _PENALTY_INPUTS if takes_penalty else ():
        if not getattr(inputs.repetition_penalty, name):
            yield f"repetition_penalty.{name} is missing"
    if takes_penalty and (step.num_tokens > 1 or inputs.shortlist):
        yield "repetition_penalty is for steps of one token without a shortlist"
    if takes_penalty != bool(step.outputs.candidate_scores):
        yield "repetition_penalty and candidate_scores belong together"


def _interface_problems(step: bundle_pb2.StepGraph) -> Iterator[str]:
    """Inputs and outputs without a role, with two roles, or missing in the graph."""
    for kind, named, there in (
        ("input", input_names(step), list(step.graph.inputs)),
        ("output", output_names(step), list(step.graph.outputs)),
    ):
        twice = {name for name in named if named.count(name) > 1}
        for name in sorted(twice):
            yield f"{kind} {name!r} has two roles"
        for name in sorted(set(named) - set(there)):
            yield f"the graph has no {kind} {name!r}"
        for name in sorted(set(there) - set(named)):
            yield f"{kind} {name!r} of the graph has no role"


def input_names(step: bundle_pb2.StepGraph) -> list[str]:
    """Names of all inputs that the signature gives a role."""
    names = [value for _, value in step.inputs.ListFields() if isinstance(value, str)]
    names += [name for bias in step.inputs.token_biases for name in (bias.indices, bias.values)]
    names += [name for _, name in step.inputs.repetition_penalty.ListFields()]
    return names + [state.input for state in step.states]


def output_names(step: bundle_pb2.StepGraph) -> list[str]:
    """Names of all outputs that the signature gives a role."""
    names = [value for _, value in step.outputs.ListFields()]
    return names + [name for state in step.states for name in state.outputs]


def _state_problems(
    state: bundle_pb2.StateTensor,
    step: bundle_pb2.StepGraph,
    precision: bundle_pb2.PrecisionGraphs,
) -> Iterator[str]:
    if state.owner not in _UPDATES:
        yield "owner is missing"
    elif state.update not in _UPDATES[state.owner]:
        wanted = " or ".join(map(bundle_pb2.StateUpdate.Name, _UPDATES[state.owner]))
        yield f"only {wanted} is supported for this owner"
    if state.data_type not in _TYPES:
        yield "data_type must be DATA_TYPE_FLOAT32 or DATA_TYPE_FLOAT16"
    is_row = state.owner == bundle_pb2.STATE_OWNER_ROW
    is_replaced = state.update == bundle_pb2.STATE_UPDATE_REPLACED
    sizes = list(state.shape) if is_replaced else [s for i, s in enumerate(state.shape) if i != 1]
    if is_replaced and len(state.shape) != 1:
        yield "shape must be [width]"
    elif not is_replaced and (len(state.shape) != 3 or state.shape[1] != 0):
        yield "shape must be [heads, 0, width]"
    elif not all(1 <= size <= MAX_DIMENSION for size in sizes):
        yield f"sizes in shape must be between 1 and {MAX_DIMENSION}"
    counts = (step.num_tokens,) if is_row else (0, step.num_tokens)
    if is_replaced and len(state.outputs) != 1:
        yield "outputs must have one entry for a replaced state"
    elif not is_replaced and len(state.outputs) not in counts:
        yield "outputs must have an entry for each of num_tokens"
    is_initialized = state.encoder_output or not is_row
    if is_initialized and state.encoder_output not in precision.encoder.outputs:
        yield "encoder_output is not an output of the encoder"
