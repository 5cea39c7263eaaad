"""Runs the graphs of a bundle whose model has a decoder in ONNX Runtime.

Owns the sessions and their bindings. Works on token ids and does not depend on a search.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from attendant.v1.bundle_pb2 import (
    Graph,
    Manifest,
    PrecisionGraphs,
    StateOwner,
    StateTensor,
    StepGraph,
)
from attendant_manifest.special_tokens import target_tokens
from numpy.typing import NDArray

from attendant_export.data.batches import pad
from attendant_export.verify.score_batches import score_batches

Array = NDArray[np.generic]


class ParityError(ValueError):
    """The graphs differ from the model, or their results depend on the batch."""


class GraphError(ValueError):
    """A graph is missing, cannot be loaded or cannot be run; the message names its file."""


def check_token_ids(name: str, ids: Array, vocab_size: int) -> None:
    """Raise ParityError for token ids outside the vocabulary that the manifest states."""
    if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < vocab_size:
        raise ParityError(f"{name} gives token ids outside the vocabulary of {vocab_size} tokens")


def check_finite(name: str, values: Array) -> None:
    """Raise ParityError for NaN or infinity, which comparisons of values would not detect."""
    if not np.isfinite(values).all():
        raise ParityError(f"{name} gives values that are not finite numbers")


class GraphSession:
    """One graph of a bundle's folder on the CPU. A closed one is opened again when it is used."""

    def __init__(self, folder: Path, graph: Graph) -> None:
        """Raises GraphError if the graph cannot be loaded or is not as the manifest says."""
        self._path = folder / graph.path
        self._opened: ort.InferenceSession | None = None
        found = [value.name for value in self._session.get_inputs()], self.output_names
        if [sorted(names) for names in found] != [sorted(graph.inputs), sorted(graph.outputs)]:
            raise GraphError(f"{self._path} has other inputs or outputs than the manifest says")

    @property
    def _session(self) -> ort.InferenceSession:
        if self._opened is None:
            self._opened = self._open()
        return self._opened

    def _open(self) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        # Spinning threads slow down everything else on a busy machine.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # An arena keeps up to twice the largest scores of the vocabulary.
        options.enable_cpu_mem_arena = False
        with self.naming_errors():
            return ort.InferenceSession(
                str(self._path), options, providers=["CPUExecutionProvider"]
            )

    def close(self) -> None:
        """Free the memory of the session."""
        self._opened = None

    @property
    def input_names(self) -> list[str]:
        """Names of all inputs, in order."""
        return [value.name for value in self._session.get_inputs()]

    @property
    def output_names(self) -> list[str]:
        """Names of all outputs, in order."""
        return [value.name for value in self._session.get_outputs()]

    def run(self, names: Sequence[str], inputs: dict[str, Any]) -> list[Any]:
        """The outputs ``names``. Raises GraphError."""
        with self.naming_errors():
            return list(self._session.run(list(names), inputs))

    def io_binding(self) -> ort.IOBinding:
        """A new binding of inputs and outputs to memory, for `run_with_binding`."""
        return self._session.io_binding()

    def run_with_binding(self, binding: ort.IOBinding) -> None:
        """Run the graph on bound memory."""
        self._session.run_with_iobinding(binding)

    @contextmanager
    def naming_errors(self) -> Iterator[None]:
        """Turn errors of ONNX Runtime into GraphError."""
        try:
            yield
        except Exception as error:  # ONNX Runtime's errors have no narrower class.
            raise GraphError(f"{self._path}: {' '.join(str(error).split())}") from error


class StepSession:
    """An open step graph with its signature."""

    def __init__(self, folder: Path, signature: StepGraph) -> None:
        self.signature = signature
        self.session = GraphSession(folder, signature.graph)

    @property
    def takes_shortlist(self) -> bool:
        """Whether the graph uses shortlists."""
        return bool(self.signature.inputs.shortlist)

    def states(self, owner: StateOwner.ValueType) -> list[StateTensor]:
        """The states with the given owner: a row or a source."""
        return [state for state in self.signature.states if state.owner == owner]


class DecoderGraphs(ABC):
    """The graphs of one precision of a bundle whose model has a decoder.

    At most the encoder and one other graph are open, because each session loads all its weights. A
    source is the token ids that an output depends on: what a translation model translates, or the
    prompt of a language model.
    """

    def __init__(self, folder: Path, graphs: PrecisionGraphs, manifest: Manifest) -> None:
        """``manifest`` provides the vocabulary and the special tokens.

        Raises GraphError if a graph cannot be loaded or is not as the manifest says.
        """
        self.vocab_size = manifest.architecture.target_embeddings.vocab_size
        self.special_tokens = target_tokens(manifest)
        self._source_pad_id = manifest.special_tokens.pad_id
        # Steps that are fastest on a CPU come first.
        preferred = sorted(graphs.steps, key=lambda s: (-s.num_tokens, -s.rows_per_sentence))
        self.steps: dict[str, StepSession] = {}
        for step in preferred:
            self.steps[step.name] = StepSession(folder, step)
            self.steps[step.name].session.close()
        self.scorer = self._in_use = GraphSession(folder, graphs.scorer)
        self.scorer.close()
        self.encoder = GraphSession(folder, graphs.encoder)
        states = preferred[0].states
        self._encoded_states = [state for state in states if state.encoder_output]
        self._encoder_outputs = [state.encoder_output for state in self._encoded_states]

    @abstractmethod
    def first_token(self, source: Sequence[int]) -> int:
        """The first input token of the decoder."""

    @abstractmethod
    def num_past(self, num_source_tokens: int) -> int:
        """Number of positions that a row has before its first token, for a source of this size."""

    @abstractmethod
    def uncached(
        self, source: Sequence[int], token_ids: Sequence[int]
    ) -> tuple[Sequence[int], Sequence[int]]:
        """What to encode and what to step through, so that nothing is kept of earlier steps.

        ``token_ids`` are those of the output so far.
        """

    @abstractmethod
    def encode(self, sources: Sequence[Sequence[int]]) -> list[Array]:
        """The encoder's outputs that initialize states.

        They are (batch, heads, source, head_dim), or (batch, width) for replaced states.
        """

    @abstractmethod
    def score(
        self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        """Log-probability of each target token, teacher-forced in padded batches."""

    def use(self, session: GraphSession) -> GraphSession:
        """``session``, a step or the scorer, after closing the one that was used before."""
        if session is not self._in_use:
            self._in_use.close()
            self._in_use = session
        return session

    def close(self) -> None:
        """Free the memory of all sessions."""
        self._in_use.close()
        self.encoder.close()

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

    def takes_penalties(self, step: str) -> bool:
        """Whether the graph ``step`` takes repetition penalties."""
        return self.steps[step].signature.inputs.HasField("repetition_penalty")

    def encode_states(self, sources: Sequence[Sequence[int]]) -> dict[str, Array]:
        """The initial states of each source, by the name of the encoder's output."""
        encoded = self.encode(sources)
        for state, array in zip(self._encoded_states, encoded, strict=True):
            wanted = [size or array.shape[i] for i, size in enumerate(state.shape, start=1)]
            if list(array.shape[1:]) != wanted:
                raise ParityError(f"encoder: {state.encoder_output} has another shape than stated")
        return dict(zip(self._encoder_outputs, encoded, strict=True))

    def _run_encoder(self, names: list[str], sources: Sequence[Sequence[int]]) -> list[Array]:
        inputs = {
            "source": pad(sources, self._source_pad_id).numpy(),
            "source_lengths": np.array([len(s) for s in sources]),
        }
        return self.encoder.run(names, inputs)


class TranslationGraphs(DecoderGraphs):
    """The graphs of one precision of a translation bundle."""

    def __init__(self, folder: Path, graphs: PrecisionGraphs, manifest: Manifest) -> None:
        """The parameters are those of `DecoderGraphs`; the manifest also has the start token."""
        super().__init__(folder, graphs, manifest)
        self.start_token_id = manifest.decoding.start_token_id
        self.aligner: GraphSession | None = None
        if graphs.HasField("aligner"):
            self.aligner = GraphSession(folder, graphs.aligner)
            self.aligner.close()
        self.attention: GraphSession | None = None
        if graphs.HasField("attention"):
            self.attention = GraphSession(folder, graphs.attention)
            self.attention.close()
        self._shortlist_output = graphs.shortlist_output

    def first_token(self, source: Sequence[int]) -> int:
        """The start token."""
        return self.start_token_id

    def num_past(self, num_source_tokens: int) -> int:
        """None: rows begin empty."""
        return 0

    def uncached(
        self, source: Sequence[int], token_ids: Sequence[int]
    ) -> tuple[Sequence[int], Sequence[int]]:
        """The source, and all tokens of the output after the start token."""
        return source, [self.start_token_id, *token_ids]

    def encode(self, sources: Sequence[Sequence[int]]) -> list[Array]:
        """What each layer keeps of sources, and the first states of rows."""
        return self._run_encoder(self._encoder_outputs, sources)

    def shortlists(self, sources: Sequence[Sequence[int]]) -> Array:
        """The shortlist of each source, with repetitions: (batch, listed)."""
        (listed,) = self._run_encoder([self._shortlist_output], sources)
        check_token_ids("encoder", listed, self.vocab_size)
        return listed

    def score(
        self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        """Log-probability of each target token, teacher-forced in padded batches."""
        scored: list[list[float]] = []
        for batch in score_batches(targets, self.vocab_size):
            scored += self._score_batch([sources[i] for i in batch], [targets[i] for i in batch])
        return scored

    def align(
        self,
        sources: Sequence[Sequence[int]],
        targets: Sequence[Sequence[int]],
        head_weights: Array,
    ) -> Array:
        """Weights (batch, target, source) by the aligner, which must exist."""
        assert self.aligner is not None
        inputs = {
            "target_in": self._target_in(targets),
            "source_lengths": np.array([len(s) for s in sources]),
            "head_weights": head_weights,
            **self.encode_states(sources),
        }
        weights: Array
        (weights,) = self.use(self.aligner).run(["alignment"], inputs)
        check_finite("aligner", weights)
        return weights

    def _target_in(self, targets: Sequence[Sequence[int]]) -> Array:
        shifted = [[self.start_token_id, *t[:-1]] for t in targets]
        target_in: Array = pad(shifted, self.special_tokens.pad_id).numpy()
        return target_in

    def _score_batch(
        self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        inputs = {
            "target_in": self._target_in(targets),
            "target_out": pad(targets, self.special_tokens.pad_id).numpy(),
            "source_lengths": np.array([len(s) for s in sources]),
            **self.encode_states(sources),
        }
        scorer = self.use(self.scorer)
        (log_p,) = scorer.run(["log_probabilities"], inputs)  # (batch, target)
        rows = [row[: len(t)] for row, t in zip(log_p, targets, strict=True)]
        check_finite("scorer", np.concatenate(rows))
        return [row.tolist() for row in rows]
