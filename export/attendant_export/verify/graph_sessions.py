"""Runs the graphs of a translation bundle in ONNX Runtime.

Owns the sessions and their bindings. Works on token ids and does not depend on a search.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from attendant.v1.bundle_pb2 import (
    STATE_OWNER_SOURCE,
    Graph,
    Manifest,
    PrecisionGraphs,
    StateOwner,
    StateTensor,
    StepGraph,
)
from attendant_manifest.special_tokens import target_tokens
from numpy.typing import NDArray

Array = NDArray[np.generic]


class ParityError(ValueError):
    """The graphs differ from the model, or their results depend on the batch."""


def check_finite(name: str, values: Array) -> None:
    """Raise ParityError for NaN or infinity, which comparisons of values would not detect."""
    if not np.isfinite(values).all():
        raise ParityError(f"{name} gives values that are not finite numbers")


def open_session(folder: Path, graph: Graph) -> ort.InferenceSession:
    """Open one graph of a bundle's folder on the CPU."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # Spinning threads slow down everything else on a busy machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    path = str(folder / graph.path)
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def pad(sequences: Sequence[Sequence[int]], pad_id: int) -> NDArray[np.int64]:
    """Right-pad token ids to one (batch, longest) array."""
    padded = np.full((len(sequences), max(map(len, sequences))), pad_id, np.int64)
    for row, ids in zip(padded, sequences, strict=True):
        row[: len(ids)] = ids
    return padded


class StepSession:
    """An open step graph with its signature."""

    def __init__(self, folder: Path, signature: StepGraph) -> None:
        self.signature = signature
        self.session = open_session(folder, signature.graph)

    @property
    def takes_shortlist(self) -> bool:
        """Whether the graph uses shortlists."""
        return bool(self.signature.inputs.shortlist)

    def states(self, owner: StateOwner.ValueType) -> list[StateTensor]:
        """The states with the given owner: a row or a source."""
        return [state for state in self.signature.states if state.owner == owner]


class TranslationGraphs:
    """The graphs of one precision of a translation bundle."""

    def __init__(self, folder: Path, graphs: PrecisionGraphs, manifest: Manifest) -> None:
        """``manifest`` provides the vocabulary, the special tokens and the start token."""
        self.vocab_size = manifest.architecture.target_embeddings.vocab_size
        self.special_tokens = target_tokens(manifest)
        self._source_pad_id = manifest.special_tokens.pad_id
        self.start_token_id = manifest.decoding.start_token_id
        self.encoder = open_session(folder, graphs.encoder)
        # Steps that are fastest on a CPU come first.
        preferred = sorted(graphs.steps, key=lambda s: (-s.num_tokens, -s.rows_per_sentence))
        self.steps = {step.name: StepSession(folder, step) for step in preferred}
        self.scorer = open_session(folder, graphs.scorer)
        self._shortlist_output = graphs.shortlist_output
        states = next(iter(self.steps.values())).states(STATE_OWNER_SOURCE)
        self._source_outputs = [state.encoder_output for state in states]

    @property
    def has_shortlists(self) -> bool:
        """Whether there are step graphs that use shortlists."""
        return any(step.takes_shortlist for step in self.steps.values())

    def steps_for(self, beam_size: int, uses_shortlists: bool = False) -> list[str]:
        """The step graphs for a search, the fastest on a CPU first.

        With ``uses_shortlists``, only graphs that use shortlists; otherwise all graphs.
        """
        return [
            name
            for name, step in self.steps.items()
            if step.signature.rows_per_sentence in (0, beam_size)
            and (step.takes_shortlist or not uses_shortlists)
        ]

    def num_step_tokens(self, step: str) -> int:
        """Number of tokens that one run of the graph ``step`` decodes for each row."""
        return self.steps[step].signature.num_tokens

    def encode_states(self, sources: Sequence[Sequence[int]]) -> dict[str, Array]:
        """The states that steps read for each source, by the name of the encoder's output."""
        return dict(zip(self._source_outputs, self.encode(sources), strict=True))

    def encode(self, sources: Sequence[Sequence[int]]) -> list[Array]:
        """Cross-attention keys and values of each layer, each (batch, heads, source, head_dim)."""
        return self._run_encoder(self._source_outputs, sources)

    def shortlists(self, sources: Sequence[Sequence[int]]) -> Array:
        """The shortlist of each source, with repetitions: (batch, listed)."""
        (listed,) = self._run_encoder([self._shortlist_output], sources)
        return listed

    def _run_encoder(self, names: list[str], sources: Sequence[Sequence[int]]) -> list[Array]:
        inputs = {
            "source": pad(sources, self._source_pad_id),
            "source_lengths": np.array([len(s) for s in sources]),
        }
        # Only the nodes for the requested outputs run, so shortlists do not need the encoder.
        options = ort.RunOptions()
        options.only_execute_path_to_fetches = True
        return list(self.encoder.run(names, inputs, options))

    def score(
        self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        """Log-probability of each target token, teacher-forced in one padded batch."""
        pad_id, start = self.special_tokens.pad_id, self.start_token_id
        inputs = {
            "target_in": pad([[start, *t[:-1]] for t in targets], pad_id),
            "target_out": pad(targets, pad_id),
            "source_lengths": np.array([len(s) for s in sources]),
            **self.encode_states(sources),
        }
        (log_p,) = self.scorer.run(["log_probabilities"], inputs)  # (batch, target)
        rows = [row[: len(t)] for row, t in zip(log_p, targets, strict=True)]
        check_finite("scorer", np.concatenate(rows))
        return [row.tolist() for row in rows]
