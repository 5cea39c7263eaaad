"""The inputs and outputs of a step graph, declared in the graph and in its signature together.

The only module that defines their names. Readers take the names from the signature in the manifest.
"""

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
from attendant.v1.architecture_pb2 import (
    ALIGNMENT_FUNCTION_ADDITIVE,
    Architecture,
    Attention,
    LayerGroup,
)
from attendant.v1.bundle_pb2 import (
    STATE_OWNER_ROW,
    STATE_OWNER_SOURCE,
    STATE_UPDATE_CONSTANT,
    STATE_UPDATE_GROWS,
    STATE_UPDATE_REPLACED,
    StateOwner,
    StateTensor,
    StepGraph,
)
from attendant.v1.embedding_pb2 import DATA_TYPE_FLOAT16, DATA_TYPE_FLOAT32

from attendant_export.graphs.layers import Layers
from attendant_export.models.attention import num_key_value_heads
from attendant_export.models.recurrent import num_states
from attendant_export.models.stack import each_layer

KINDS = ("key", "value")
SHORTLIST = "shortlist"
"""Name of an output of the encoder and of an input of steps."""
KERNELS = "kernels"
"""Name of the state of all convolutions."""
TYPES = {DATA_TYPE_FLOAT16: np.float16, DATA_TYPE_FLOAT32: np.float32}
"""NumPy types of states."""

RowState: TypeAlias = tuple[str, str] | list[str]
"""The state of a row in one layer: keys and values that grow, or vectors that are replaced."""


def source_names(layer: int) -> tuple[str, str]:
    """Names of the cross-attention keys and values of a decoder layer."""
    return f"cross_key_{layer}", f"cross_value_{layer}"


def memory_name(layer: int) -> str:
    """Name of the encoder's output for a decoder layer, whose keys and values are the same."""
    return f"memory_{layer}"


def source_shapes(architecture: Architecture) -> Iterator[dict[str, tuple[int, int]]]:
    """What each decoder layer keeps of a source, by name: number of heads and their width.

    These are the keys and the values of its attention. If an alignment function needs no keys of
    its own, they are one. An unfolding has the outputs of `UnfoldedTexts`. Empty for a layer that
    does not read the source.
    """
    for layer, group in enumerate(each_layer(architecture.decoder)):
        names: tuple[str, ...] = source_names(layer)
        if group.HasField("cross_attention"):
            shape = group.cross_attention.num_heads, group.cross_attention.head_dim
        elif group.HasField("unfolding"):
            names = (memory_name(layer),)
            shape = group.unfolding.length_factor, architecture.d_model
        elif group.HasField("alignment_attention"):
            shape = 1, architecture.d_model
            if group.alignment_attention.function != ALIGNMENT_FUNCTION_ADDITIVE:
                names = (memory_name(layer),)
        else:
            names, shape = (), (0, 0)
        yield dict.fromkeys(names, shape)


def vector_names(layer: int, group: LayerGroup) -> list[str]:
    """Names of the vectors that a run replaces, in a decoder layer with a recurrence."""
    return [f"{kind}_{layer}" for kind in ("vector", "cell")[: num_states(group.recurrent)]]


def first_vector_names(architecture: Architecture) -> dict[int, list[str]]:
    """Names of the vectors that begin with outputs of the encoder, by layer."""
    layers = enumerate(each_layer(architecture.decoder))
    return {
        layer: vector_names(layer, group)
        for layer, group in layers
        if group.recurrent.starts_from_source
    }


def past_names(layer: int) -> tuple[str, str]:
    """Names of the self-attention keys and values of a decoder layer."""
    return f"past_key_{layer}", f"past_value_{layer}"


class StepInterface:
    """Declares the inputs and outputs of a step graph.

    A state must be declared before its outputs. States lie in memory in the order of declaration.
    """

    def __init__(
        self,
        g: Layers,
        *,
        num_tokens: int = 1,
        rows_per_sentence: int = 0,
        has_prefill: bool = False,
    ) -> None:
        """See `StepGraph` for ``num_tokens`` and ``rows_per_sentence``.

        With ``has_prefill``, the keys and values of rows begin with those of an output of the
        prefill that has the name of the input. Otherwise they begin empty.
        """
        self._g, self._has_prefill = g, has_prefill
        self.signature = StepGraph(
            name=g.name,
            num_tokens=num_tokens,
            max_prefill_tokens=1,
            rows_per_sentence=rows_per_sentence,
        )
        self._sentences = "rows" if rows_per_sentence == 1 else "sentences"
        self._states: dict[str, StateTensor] = {}

    def rows(self) -> tuple[str, str, str]:
        """Last tokens (rows), past lengths (rows), and the largest past length plus one (1)."""
        inputs = self.signature.inputs
        inputs.tokens, inputs.past_lengths = "tokens", "past_lengths"
        inputs.total_length = "total_length"
        tokens = self._g.input(inputs.tokens, np.int64, "rows")
        lengths = self._g.input(inputs.past_lengths, np.int32, "rows")
        return tokens, lengths, self._g.input(inputs.total_length, np.int32, 1)

    def source_lengths(self) -> str:
        """Number of tokens of each source (sentences)."""
        self.signature.inputs.source_lengths = "source_lengths"
        return self._g.input("source_lengths", np.int64, self._sentences)

    def total_source_length(self) -> str:
        """Number of tokens of the longest source (1)."""
        self.signature.inputs.total_source_length = "total_source_length"
        return self._g.input("total_source_length", np.int32, 1)

    def num_candidates(self) -> str:
        """Number of candidates per row (1)."""
        self.signature.inputs.num_candidates = "num_candidates"
        return self._g.input("num_candidates", np.int64, 1)

    def shortlist(self) -> tuple[str, str]:
        """Token ids (listed), and a mask (rows, listed) of the ids that each row may use."""
        inputs = self.signature.inputs
        inputs.shortlist, inputs.shortlist_mask = SHORTLIST, "shortlist_mask"
        return (
            self._g.input(inputs.shortlist, np.int64, "listed"),
            self._g.input(inputs.shortlist_mask, np.bool_, "rows", "listed"),
        )

    def token_bias(self) -> tuple[str, str]:
        """Indices (biased, 2) and values (biased) for the next token of the run."""
        biases = self.signature.inputs.token_biases
        suffix = _suffix(len(biases))
        names = biases.add(indices=f"bias_indices{suffix}", values=f"bias_values{suffix}")
        return (
            self._g.input(names.indices, np.int64, f"biased{suffix}", 2),
            self._g.input(names.values, np.float32, f"biased{suffix}"),
        )

    def repetition_penalty(self) -> tuple[str, str, str]:
        """Indices (penalized, 2), penalties (penalized), and whether they change logits (1)."""
        names = self.signature.inputs.repetition_penalty
        names.indices, names.values = "penalty_indices", "penalty_values"
        names.penalizes_logits = "penalizes_logits"
        return (
            self._g.input(names.indices, np.int64, "penalized", 2),
            self._g.input(names.values, np.float32, "penalized"),
            self._g.input(names.penalizes_logits, np.bool_, 1),
        )

    def past(self, layer: int, part: Attention) -> tuple[str, str]:
        """Self-attention keys and values of a layer, each (rows, heads, max_length, head_dim)."""
        shape = num_key_value_heads(part), part.head_dim
        keys, values = (self._state(name, shape, STATE_OWNER_ROW) for name in past_names(layer))
        return keys, values

    def replaced(self, layer: int, group: LayerGroup, width: int) -> list[str]:
        """The vectors of a layer, each (rows, width), fp32, which each run replaces."""
        begins = group.recurrent.starts_from_source
        return [
            self._replaced(name, width, name if begins else "")
            for name in vector_names(layer, group)
        ]

    def kernels(self, width: int) -> str:
        """The state of all convolutions (rows, width), fp32, which each run replaces."""
        return self._replaced(KERNELS, width)

    def _replaced(self, name: str, width: int, encoder_output: str = "") -> str:
        return self._declare(
            StateTensor(
                input=name,
                data_type=DATA_TYPE_FLOAT32,
                shape=[width],
                owner=STATE_OWNER_ROW,
                update=STATE_UPDATE_REPLACED,
                encoder_output=encoder_output,
            )
        )

    def sources(self, architecture: Architecture) -> list[list[str]]:
        """What each layer keeps of sources, each (sentences, heads, source, width)."""
        return [
            [self._state(name, shape, STATE_OWNER_SOURCE) for name, shape in shapes.items()]
            for shapes in source_shapes(architecture)
        ]

    def _state(self, name: str, shape: tuple[int, int], owner: StateOwner.ValueType) -> str:
        is_row = owner == STATE_OWNER_ROW
        state = StateTensor(
            input=name,
            data_type=DATA_TYPE_FLOAT16 if self._g.dtype == np.float16 else DATA_TYPE_FLOAT32,
            shape=[shape[0], 0, shape[1]],
            owner=owner,
            update=STATE_UPDATE_GROWS if is_row else STATE_UPDATE_CONSTANT,
            encoder_output="" if is_row and not self._has_prefill else name,
            reads_padding=not is_row,
        )
        return self._declare(state)

    def _declare(self, state: StateTensor) -> str:
        """Declare a state and the input that reads it."""
        self.signature.states.append(state)
        self._states[state.input] = self.signature.states[-1]
        return self._g.input(state.input, TYPES[state.data_type], *self._dimensions(state))

    def _dimensions(self, state: StateTensor) -> tuple[str | int, ...]:
        is_row = state.owner == STATE_OWNER_ROW
        entries, positions = ("rows", "max_length") if is_row else (self._sentences, "source")
        return entries, *(size or positions for size in state.shape)

    def give_past(self, layer: int, presents: Sequence[str]) -> None:
        """Declare the self-attention keys and values of a layer after the next token of the run."""
        for kind, name, present in zip(KINDS, past_names(layer), presents, strict=True):
            self._give(name, f"present_{kind}_{layer}", present)

    def give_replaced(self, layer: int, group: LayerGroup, values: Sequence[str]) -> None:
        """Declare the vectors of a layer after the last token of the run."""
        for name, value in zip(vector_names(layer, group), values, strict=True):
            self._give(name, f"next_{name}", value)

    def give_kernels(self, value: str) -> None:
        """Declare the state of all convolutions after the last token of the run."""
        self._give(KERNELS, f"next_{KERNELS}", value)

    def give_source(self, layer: int, presents: Sequence[str]) -> None:
        """Declare outputs for the unchanged cross-attention keys and values of a layer."""
        for name, present in zip(source_names(layer), presents, strict=True):
            self._give(name, f"present_{name}", present)

    def _give(self, state_name: str, output: str, value: str) -> None:
        state = self._states[state_name]
        name = f"{output}{_suffix(len(state.outputs))}"
        state.outputs.append(name)
        state.reads_padding = False  # Kernels that write a state use its length.
        self._g.output(name, value, TYPES[state.data_type], *self._dimensions(state))

    def give_candidates(self, ids: str, log_probabilities: str) -> None:
        """Declare the candidates of each row, or the best token at each step of the run."""
        outputs, width = self.signature.outputs, self.signature.num_tokens
        columns = width if width > 1 else "candidates"
        outputs.candidate_ids = "candidate_ids"
        outputs.candidate_log_probabilities = "candidate_log_probabilities"
        self._g.output(outputs.candidate_ids, ids, np.int64, "rows", columns)
        name = outputs.candidate_log_probabilities
        self._g.output(name, log_probabilities, np.float32, "rows", columns)

    def give_scores(self, scores: str) -> None:
        """Declare the scores that rank the candidates of each row."""
        self.signature.outputs.candidate_scores = "candidate_scores"
        self._g.output("candidate_scores", scores, np.float32, "rows", "candidates")


def _suffix(token: int) -> str:
    """The suffix of names for a later token of a run."""
    return f"_{token}" if token else ""
