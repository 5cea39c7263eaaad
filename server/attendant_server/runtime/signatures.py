"""Signatures of graphs in the manifest, checks of graphs against them, and the choice of steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import onnxruntime
from attendant.v1 import bundle_pb2


@dataclass(frozen=True)
class StepSignature:
    """The interface of one step graph, as the manifest states it."""

    step: bundle_pb2.StepGraph

    @cached_property
    def num_tokens(self) -> int:
        """Tokens that the graph decodes for each row in one run."""
        return self.step.num_tokens

    @cached_property
    def num_extra_positions(self) -> int:
        """Positions that a run writes to each row after the position of its first token.

        A row needs this many positions more than its longest output.
        """
        return self.num_tokens - 1

    @cached_property
    def takes_num_candidates(self) -> bool:
        """Whether the graph reads the number of candidates; otherwise it returns one per token."""
        return bool(self.step.inputs.num_candidates)

    @cached_property
    def takes_penalties(self) -> bool:
        """Whether the graph takes repetition penalties."""
        return self.step.inputs.HasField("repetition_penalty")

    @cached_property
    def takes_shortlist(self) -> bool:
        """Whether the graph scores only the tokens of a shortlist."""
        return bool(self.step.inputs.shortlist)

    @cached_property
    def reads_source_padding(self) -> bool:
        """Whether the graph reads padding after the end of a source."""
        return any(state.reads_padding for state in self.source_states)

    @cached_property
    def growing_states(self) -> list[bundle_pb2.StateTensor]:
        """States of a row that grow, in the order of their layout in memory."""
        return [s for s in self.step.states if s.update == bundle_pb2.STATE_UPDATE_GROWS]

    @cached_property
    def replaced_states(self) -> list[bundle_pb2.StateTensor]:
        """States of a row that each run replaces, in the order of their layout in memory."""
        return [s for s in self.step.states if s.update == bundle_pb2.STATE_UPDATE_REPLACED]

    @cached_property
    def source_states(self) -> list[bundle_pb2.StateTensor]:
        """States of a source, in the order of their layout in memory."""
        return [s for s in self.step.states if s.owner == bundle_pb2.STATE_OWNER_SOURCE]

    @cached_property
    def encoded_states(self) -> list[bundle_pb2.StateTensor]:
        """States with positions that outputs of the encoder initialize.

        These are the states of sources, or else the growing ones.
        """
        return self.source_states or self.growing_states

    @cached_property
    def started_states(self) -> list[bundle_pb2.StateTensor]:
        """Replaced states that outputs of the encoder initialize: all of them, or none."""
        return [s for s in self.replaced_states if s.encoder_output]


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
