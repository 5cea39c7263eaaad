"""A plain search of our own over the graphs of a translation bundle, greedy and beam.

Written to be obviously right, not fast. Owns the sessions and the memory of the caches; sentences
may join and leave at any step, as in the server. Knows token ids only, no text.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime as ort
from attendant.v1.bundle_pb2 import Graph, PrecisionGraphs, SpecialTokens, TranslationSizes
from numpy.typing import NDArray

from attendant_export.search import ReferenceHypothesis, SearchStep, SearchTrace
from attendant_export.translation_graphs import step_suffix

Array = NDArray[np.generic]
GREEDY_STEPS = "greedy_steps"
"""The graph that decodes several tokens in a run, for sentences of one row each."""
GREEDY_STEP = "greedy_step"
"""The graph that decodes one, for sentences of one row each."""
DECODER_STEP = "decoder_step"
"""The graph that decodes one, for sentences of any number of rows."""


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
            for name in (GREEDY_STEPS, GREEDY_STEP, DECODER_STEP)
            if getattr(graphs, name).path  # Bundles of older versions have decoder_step alone.
        }
        self.scorer = open_session(folder, graphs.scorer)
        layers = range(sizes.num_decoder_layers)
        self.cross_names = [f"cross_{kind}_{i}" for i in layers for kind in ("key", "value")]
        self.cache_names = [f"{kind}_{i}" for i in layers for kind in ("key", "value")]

    def steps_for(self, beam_size: int) -> list[str]:
        """The graphs that can do the steps of a search, first the one that a CPU uses."""
        return [name for name in self.steps if beam_size == 1 or name == DECODER_STEP]

    def num_step_tokens(self, step: str) -> int:
        """Tokens that one run of the graph ``step`` decodes for each row."""
        if step != GREEDY_STEPS:
            return 1
        (ids,) = (o for o in self.steps[step].get_outputs() if o.name == "candidate_ids")
        return int(ids.shape[1])

    def encode(self, sources: Sequence[Sequence[int]]) -> list[Array]:
        """Cross-attention keys and values of each layer, (batch, heads, source, head_dim) each."""
        inputs = {
            "source": pad(sources, self.special_tokens.pad_id),
            "source_lengths": np.array([len(s) for s in sources]),
        }
        return list(self.encoder.run(self.cross_names, inputs))

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
    ) -> None:
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

    def join(self, sources: Sequence[Sequence[int]]) -> None:
        """Encode ``sources`` together and put them into the next free places."""
        encoded = self._graphs.encode(sources)
        for i, source in enumerate(sources):
            for memory, new in zip(self._cross, encoded, strict=True):
                memory[self._count, :, : len(source)] = new[i, :, : len(source)]
            self._source_lengths[self._count] = len(source)
            self._count += 1

    def leave(self, place: int) -> None:
        """Free ``place`` and move the last one into the hole."""
        self._count -= 1
        memories: list[Array] = [*self._past, *self._cross, self._source_lengths]
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
        if self.graph != GREEDY_STEPS:
            inputs["num_candidates"] = np.array([num_candidates], np.int64)
        if self.graph != DECODER_STEP:
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
            if self.graph != DECODER_STEP:
                for suffix in self._suffixes:
                    binding.bind_output(f"present_{name}{suffix}", *where)
        for name, memory in zip(graphs.cache_names, self._past, strict=True):
            # Past and present are one memory: the graph writes the new keys and values in place.
            where = ("cpu", 0, graphs.cache_type, (rows, *memory.shape[2:]), memory.ctypes.data)
            binding.bind_input(f"past_{name}", *where)
            for suffix in self._suffixes:
                binding.bind_output(f"present_{name}{suffix}", *where)


@dataclass(slots=True)
class SentenceSearch:
    """The hypotheses of one sentence. A beam of one is greedy search."""

    number: int
    beam_size: int
    max_tokens: int
    length_penalty: float
    eos_id: int
    running: list[ReferenceHypothesis] = field(default_factory=list)
    finished: list[ReferenceHypothesis] = field(default_factory=list)
    steps: list[SearchStep] = field(default_factory=list)

    def advance(self, ids: Array, log_p: Array) -> list[int]:
        """Take the candidates (width, candidates) of every row; returns each new row's parent."""
        beams = self.running or [ReferenceHypothesis((), ())]
        expanded = [
            (beam.followed_by(int(token), float(value)), row)
            for row, beam in enumerate(beams)
            for token, value in zip(ids[row], log_p[row], strict=True)
        ]
        expanded.sort(key=lambda candidate: -sum(candidate[0].log_probabilities))
        expanded = expanded[: 2 * self.beam_size]
        best = [hypothesis for hypothesis, _ in expanded[: self.beam_size]]
        ended = [h for h in best if h.token_ids[-1] == self.eos_id]
        going_on = [(h, row) for h, row in expanded if h.token_ids[-1] != self.eos_id]
        self.running = [h for h, _ in going_on[: self.beam_size]]
        self.steps.append(SearchStep(best, self.running))
        self._finish([*ended, *(self.running if len(self.steps) == self.max_tokens else [])])
        return [row for _, row in going_on[: self.beam_size]]

    def _finish(self, hypotheses: list[ReferenceHypothesis]) -> None:
        self.finished += hypotheses
        self.finished.sort(key=lambda h: -h.score(self.length_penalty))
        del self.finished[self.beam_size :]

    def is_over(self) -> bool:
        """Whether no running beam may still replace a finished one."""
        if len(self.steps) == self.max_tokens:
            return True
        if not self.running:  # nothing but an end, or nothing yet
            return bool(self.steps)
        best = max(h.score(self.length_penalty) for h in self.running)
        is_full = len(self.finished) == self.beam_size
        return is_full and best <= self.finished[-1].score(self.length_penalty)


def search_all(
    graphs: TranslationGraphs,
    sources: Sequence[Sequence[int]],
    max_tokens: Sequence[int],
    *,
    beam_size: int = 1,
    step: str | None = None,
    length_penalty: float = 1.0,
    max_running: int = 64,
    max_joining: int = 64,
) -> list[SearchTrace]:
    """Search all ``sources``, at most ``max_running`` at a time, in the order given.

    At most ``max_joining`` join between two steps; each leaves as soon as its search is over.
    ``max_tokens`` limits each output; ``step`` is one of `TranslationGraphs.steps_for`, by default
    the first. Returns the searches in the order of ``sources``.
    """
    waiting = deque(
        SentenceSearch(i, beam_size, limit, length_penalty, graphs.special_tokens.eos_id)
        for i, limit in enumerate(max_tokens)
    )
    step = step or graphs.steps_for(beam_size)[0]
    places = Places(graphs, step, beam_size, max_running, max(map(len, sources)), max(max_tokens))
    running: list[SentenceSearch] = []
    traces: dict[int, SearchTrace] = {}
    while waiting or running:
        num_joining = min(max_joining, max_running - len(running), len(waiting))
        joining = [waiting.popleft() for _ in range(num_joining)]
        if joining:
            places.join([sources[search.number] for search in joining])
        running += joining
        _step(places, running, graphs.special_tokens.bos_id)
        for place in reversed(range(len(running))):
            search = running[place]
            if search.is_over():
                traces[search.number] = SearchTrace(search.finished, search.steps)
                places.leave(place)
                running[place] = running[-1]
                running.pop()
    return [traces[i] for i in range(len(sources))]


def _step(places: Places, running: list[SentenceSearch], bos_id: int) -> None:
    tokens, lengths = [], []
    for search in running:
        # Before its first step a sentence has no hypotheses: all its rows begin alike.
        begun = [h.token_ids[-1] for h in search.running] or [bos_id] * search.beam_size
        tokens += begun
        lengths += [len(search.steps)] * len(begun)
    beam_size = running[0].beam_size
    ids, log_p = places.step(tokens, lengths, 2 * beam_size if beam_size > 1 else 1)
    for place, search in enumerate(running):
        if beam_size > 1:
            check_finite(places.graph, log_p[place])
            places.reorder(place, search.advance(ids[place], log_p[place]))
            continue
        for i in range(ids.shape[2]):
            if not search.is_over():  # What is behind an end means nothing.
                check_finite(places.graph, log_p[place, :, i])
                search.advance(ids[place, :, i : i + 1], log_p[place, :, i : i + 1])


def greedy_uncached(
    graphs: TranslationGraphs, step: str, source: Sequence[int], max_tokens: int
) -> ReferenceHypothesis:
    """Greedy search for one sentence that encodes it anew and begins with empty caches each step.

    So every token follows from the whole prefix, and nothing of an earlier step is kept. ``step``
    is the graph that does the steps, of one token each.
    """
    special_tokens = graphs.special_tokens
    found = ReferenceHypothesis((), ())
    while len(found.token_ids) < max_tokens and special_tokens.eos_id not in found.token_ids:
        places = Places(graphs, step, 1, 1, len(source), max_tokens)
        places.join([source])
        for length, token in enumerate([special_tokens.bos_id, *found.token_ids]):
            ids, log_p = places.step([token], [length], 1)
        check_finite(step, log_p)
        found = found.followed_by(ids.item(), log_p.item())
    return found
