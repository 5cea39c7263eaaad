"""Checks of graphs against their signatures in the manifest, and the choice of step graphs."""

from collections.abc import Sequence

import numpy as np
import onnxruntime
from attendant.v1 import bundle_pb2, embedding_pb2

from attendant_server.runtime.cache_sizes import CacheSizes
from attendant_server.runtime.step import StepSignature


def choose_steps(
    steps: Sequence[bundle_pb2.StepGraph], uses_shortlists: bool, takes_greedy: bool
) -> tuple[bundle_pb2.StepGraph, bundle_pb2.StepGraph | None]:
    """The step graph for all searches and, if there is one, the step graph for greedy search.

    With ``uses_shortlists``, graphs with a shortlist are chosen, if there are any. Among equal
    graphs, the one with the most tokens per run and then the fewest outputs is chosen.
    """

    def best(rows_per_sentence: int, takes_shortlist: bool) -> bundle_pb2.StepGraph | None:
        able = [
            step
            for step in steps
            if step.rows_per_sentence == rows_per_sentence
            and bool(step.inputs.shortlist) == takes_shortlist
        ]
        return max(able, key=lambda s: (s.num_tokens, -len(s.graph.outputs)), default=None)

    general = (best(0, True) if uses_shortlists else None) or best(0, False)
    assert general is not None, "a rule of manifests"
    greedy = best(1, bool(general.inputs.shortlist)) if takes_greedy else None
    return general, greedy


def check_interface(session: onnxruntime.InferenceSession, graph: bundle_pb2.Graph) -> None:
    """Raise ValueError unless the graph has the inputs and outputs that the manifest states."""
    for kind, stated, values in (
        ("inputs", graph.inputs, session.get_inputs()),
        ("outputs", graph.outputs, session.get_outputs()),
    ):
        different = set(stated) ^ {value.name for value in values}
        if different:
            raise ValueError(f"{graph.path}: {kind} differ from the manifest: {min(different)}")


def cache_sizes(signature: StepSignature, limits: bundle_pb2.Limits) -> CacheSizes:
    """Sizes of the caches; raises ValueError for states of several shapes."""
    rows, sources = signature.row_states, signature.source_states
    shapes = {(state.data_type, tuple(state.shape)) for state in (*rows, *sources)}
    if len(shapes) != 1 or len(rows) != len(sources):
        raise ValueError("states of rows and of sources must have equal counts, types and shapes")
    (data_type, (heads, _, width)) = shapes.pop()
    return CacheSizes(
        len(rows),
        heads,
        width,
        limits.max_source_tokens,
        # The last tokens of a run may exceed the longest output.
        limits.max_target_tokens + signature.num_tokens - 1,
        np.dtype(np.float16 if data_type == embedding_pb2.DATA_TYPE_FLOAT16 else np.float32),
    )
