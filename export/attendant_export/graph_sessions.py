"""The graphs of a translation bundle, and the caches of sentences that are searched with them.

Owns the sessions and all that is bound to them. Knows token ids only, no text and no search.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from attendant.v1.bundle_pb2 import Graph, PrecisionGraphs, SpecialTokens, TranslationSizes
from numpy.typing import NDArray

from attendant_export.translation_graphs import step_suffix

Array = NDArray[np.generic]
GREEDY_STEPS = "greedy_steps"
"""The graph that decodes several tokens in a run, for sentences of one row each."""
GREEDY_STEP = "greedy_step"
"""The graph that decodes one, for sentences of one row each."""
DECODER_STEP = "decoder_step"
"""The graph that decodes one, for sentences of any number of rows."""
SHORTLIST = "shortlist_"
"""What the names of graphs that choose from shortlists begin with."""
STEPS = (
    GREEDY_STEPS,
    GREEDY_STEP,
    DECODER_STEP,
    SHORTLIST + GREEDY_STEPS,
    SHORTLIST + DECODER_STEP,
)


class ParityError(ValueError):
    """The graphs do not do what the model does, or not the same in every batch."""


def check_finite(name: str, values: Array) -> None:
    """Raise ParityError unless all ``values`` are numbers: no comparison would notice a NaN."""
    if not np.isfinite(values).all():
        raise ParityError(f"{name} gives values that are not finite numbers")


def open_session(folder: Path, graph: Graph) -> ort.InferenceSession:
    """Open one graph of a bundle's folder on the CPU."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # Waiting threads that spin slow down everything else on a busy machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    path = str(folder / graph.path)
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def pad(sequences: Sequence[Sequence[int]], pad_id: int) -> NDArray[np.int64]:
    """Right-pad token ids to one (batch, longest) array."""
    padded = np.full((len(sequences), max(map(len, sequences))), pad_id, np.int64)
    for row, ids in zip(padded, sequences, strict=True):
        row[: len(ids)] = ids
    return padded


class TranslationGraphs:
    """The graphs of one precision of a translation bundle."""

    def __init__(
        self,
        folder: Path,
        graphs: PrecisionGraphs,
        sizes: TranslationSizes,
        special_tokens: SpecialTokens,
    ) -> None:
        self.sizes, self.special_tokens = sizes, special_tokens
        self.cache_type = np.float16 if graphs.name == "fp16" else np.float32
        self.encoder = open_session(folder, graphs.encoder)
        self.steps = {
            name: open_session(folder, getattr(graphs, name))
            for name in STEPS
            if getattr(graphs, name).path  # Bundles of older versions have decoder_step alone.
        }
        self.scorer = open_session(folder, graphs.scorer)
        layers = range(sizes.num_decoder_layers)
        self.cross_names = [f"cross_{kind}_{i}" for i in layers for kind in ("key", "value")]
        self.cache_names = [f"{kind}_{i}" for i in layers for kind in ("key", "value")]

    @property
    def has_shortlists(self) -> bool:
        """Whether there are graphs that choose from shortlists."""
        return SHORTLIST + DECODER_STEP in self.steps

    def steps_for(self, beam_size: int, uses_shortlists: bool = False) -> list[str]:
        """The graphs that can do the steps of a search, first the one that a CPU uses.

        With ``uses_shortlists`` those that choose from them, otherwise all.
        """
        return [
            name
            for name in self.steps
            if (beam_size == 1 or name.endswith(DECODER_STEP))
            and (name.startswith(SHORTLIST) or not uses_shortlists)
        ]

    def num_step_tokens(self, step: str) -> int:
        """Tokens that one run of the graph ``step`` decodes for each row."""
        if not step.endswith(GREEDY_STEPS):
            return 1
        (ids,) = (o for o in self.steps[step].get_outputs() if o.name == "candidate_ids")
        return int(ids.shape[1])

    def encode(self, sources: Sequence[Sequence[int]]) -> list[Array]:
        """Cross-attention keys and values of each layer, (batch, heads, source, head_dim) each."""
        return self._run_encoder(self.cross_names, sources)

    def shortlists(self, sources: Sequence[Sequence[int]]) -> Array:
        """The target tokens, not all different, that each source may become: (batch, listed)."""
        (listed,) = self._run_encoder(["shortlist"], sources)
        return listed

    def _run_encoder(self, names: list[str], sources: Sequence[Sequence[int]]) -> list[Array]:
        inputs = {
            "source": pad(sources, self.special_tokens.pad_id),
            "source_lengths": np.array([len(s) for s in sources]),
        }
        # Looking up shortlists must not encode.
        options = ort.RunOptions()
        options.only_execute_path_to_fetches = True
        return list(self.encoder.run(names, inputs, options))

    def score(
        self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        """Log-probability of every token of each target, teacher-forced in one padded batch."""
        pad_id, bos_id = self.special_tokens.pad_id, self.special_tokens.bos_id
        inputs = {
            "target_in": pad([[bos_id, *t[:-1]] for t in targets], pad_id),
            "target_out": pad(targets, pad_id),
            "source_lengths": np.array([len(s) for s in sources]),
            **dict(zip(self.cross_names, self.encode(sources), strict=True)),
        }
        (log_p,) = self.scorer.run(["log_probabilities"], inputs)  # (batch, target)
        rows = [row[: len(t)] for row, t in zip(log_p, targets, strict=True)]
        check_finite("scorer", np.concatenate(rows))
        return [row.tolist() for row in rows]


class Places:
    """Caches of running sentences, ``width`` rows each, packed from the first row on."""

    def __init__(
        self,
        graphs: TranslationGraphs,
        step: str,
        width: int,
        max_sentences: int,
        max_source_tokens: int,
        max_target_tokens: int,
        uses_shortlists: bool = False,
    ) -> None:
        """``step`` is the graph of the steps; one with shortlists may be given all tokens."""
        sizes = graphs.sizes
        heads, head_dim = sizes.num_heads, sizes.head_dim
        self._suffixes = [step_suffix(i) for i in range(graphs.num_step_tokens(step))]
        # The last tokens of a step may lie behind the end of the longest output.
        max_positions = max_target_tokens + len(self._suffixes) - 1
        own = (max_sentences, width, heads, max_positions, head_dim)
        cross = (max_sentences, heads, max_source_tokens, head_dim)
        self._graphs, self.graph, self._width, self._count = graphs, step, width, 0
        self._past: list[Array] = [np.zeros(own, graphs.cache_type) for _ in graphs.cache_names]
        self._cross: list[Array] = [np.zeros(cross, graphs.cache_type) for _ in graphs.cross_names]
        self._source_lengths = np.zeros(max_sentences, np.int64)
        self._uses_shortlists = uses_shortlists
        self._may_use = np.ones((max_sentences, sizes.vocab_size), np.bool_)

    def join(self, sources: Sequence[Sequence[int]]) -> None:
        """Encode ``sources`` together and put them into the next free places."""
        encoded = self._graphs.encode(sources)
        listed = self._graphs.shortlists(sources) if self._uses_shortlists else None
        for i, source in enumerate(sources):
            if listed is not None:
                self._may_use[self._count] = False
                # A step is asked for as many candidates.
                self._may_use[self._count, : 2 * self._width] = True
                self._may_use[self._count, listed[i]] = True
            for memory, new in zip(self._cross, encoded, strict=True):
                memory[self._count, :, : len(source)] = new[i, :, : len(source)]
            self._source_lengths[self._count] = len(source)
            self._count += 1

    def leave(self, place: int) -> None:
        """Free ``place`` and move the last one into the hole."""
        self._count -= 1
        memories: list[Array] = [*self._past, *self._cross, self._source_lengths, self._may_use]
        for memory in memories:
            memory[place] = memory[self._count]

    def reorder(self, place: int, parents: Sequence[int]) -> None:
        """Make row i of ``place`` continue what was its row ``parents[i]``."""
        for memory in self._past:
            memory[place] = memory[place, parents]

    def step(
        self, tokens: Sequence[int], lengths: Sequence[int], num_candidates: int
    ) -> tuple[Array, Array]:
        """Feed one token to every row; ``lengths`` tokens are in its cache already.

        Returns ids and log-probabilities of the best candidates, (places, width, candidates) each;
        of ``greedy_steps`` the best of each of its steps instead. Nothing is suppressed here.
        """
        inputs = {
            "tokens": np.array(tokens, np.int64),
            "lengths": np.array(lengths, np.int32),
            "total_length": np.array([max(lengths) + 1], np.int32),
            "source_lengths": self._source_lengths[: self._count],
        }
        for suffix in self._suffixes:
            inputs[f"adjusted_positions{suffix}"] = np.zeros((0, 2), np.int64)
            inputs[f"adjustments{suffix}"] = np.zeros(0, np.float32)
        if not self.graph.endswith(GREEDY_STEPS):
            inputs["num_candidates"] = np.array([num_candidates], np.int64)
        if self.graph.startswith(SHORTLIST):
            may_use = self._may_use[: self._count]
            inputs["shortlist"] = listed = np.flatnonzero(may_use.any(axis=0))
            inputs["may_use"] = np.repeat(may_use[:, listed], self._width, axis=0)
        if not self.graph.endswith(DECODER_STEP):
            longest = self._source_lengths[: self._count].max()
            inputs["total_source_length"] = np.array([longest], np.int32)
        session = self._graphs.steps[self.graph]
        binding = session.io_binding()
        binding.bind_output("candidate_ids")
        binding.bind_output("candidate_log_probabilities")
        for name, array in inputs.items():
            binding.bind_cpu_input(name, array)
        self._bind_caches(binding)
        session.run_with_iobinding(binding)
        ids, log_p = (value.numpy() for value in binding.get_outputs()[:2])
        shape = (self._count, self._width, -1)
        return ids.reshape(shape), log_p.reshape(shape)

    def _bind_caches(self, binding: ort.IOBinding) -> None:
        graphs, rows = self._graphs, self._count * self._width
        for name, memory in zip(graphs.cross_names, self._cross, strict=True):
            shape = (self._count, *memory.shape[1:])
            where = ("cpu", 0, graphs.cache_type, shape, memory.ctypes.data)
            binding.bind_input(name, *where)
            if not self.graph.endswith(DECODER_STEP):
                for suffix in self._suffixes:
                    binding.bind_output(f"present_{name}{suffix}", *where)
        for name, memory in zip(graphs.cache_names, self._past, strict=True):
            # Past and present are one memory: the graph writes the new keys and values in place.
            where = ("cpu", 0, graphs.cache_type, (rows, *memory.shape[2:]), memory.ctypes.data)
            binding.bind_input(f"past_{name}", *where)
            for suffix in self._suffixes:
                binding.bind_output(f"present_{name}{suffix}", *where)
