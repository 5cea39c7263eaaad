"""Models over ONNX Runtime.

Knows graphs and arrays, and nothing of requests, search or scheduling. Graph inputs and outputs
are those that ``attendant-export`` writes.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from attendant.v1 import bundle_pb2, embedding_pb2
from numpy.typing import NDArray

from attendant_server.bundles import Bundle
from attendant_server.engine.calls import TargetScore, TokenIds
from attendant_server.engine.models import NO_TOKEN_BIAS, DecoderCache, EncodedSource, StepInput
from attendant_server.runtime.cache_sizes import CacheSizes
from attendant_server.runtime.device_cache import (
    DeviceDecoderCache,
)
from attendant_server.runtime.host_cache import EncodedSentence, HostDecoderCache
from attendant_server.runtime.padding import pad
from attendant_server.runtime.step import StepRunner, StepSignature
from attendant_server.runtime.threads import CountedGraph, RunCounter, ThreadedGraph

TENSOR_TYPES = {
    embedding_pb2.DATA_TYPE_FLOAT32: "tensor(float)",
    embedding_pb2.DATA_TYPE_FLOAT16: "tensor(float16)",
}
"""ONNX Runtime's names of the types of states."""
NUM_TRIAL_TOKENS = 16
"""Tokens of the text with which sessions are compared, or as many as the model takes."""
TRIAL_WIDTH = 4
"""Rows of its beam search."""


class OnnxTranslationModel:
    """An encoder-decoder bundle: the engine's `TranslationModel`."""

    _takes_greedy_graphs: ClassVar[bool] = True

    def __init__(
        self,
        bundle: Bundle,
        num_threads: int,
        device: str = "cpu",
        run_counter: RunCounter | None = None,
        uses_shortlists: bool = False,
    ) -> None:
        """Load the graphs of ``bundle`` in its chosen precision.

        A run takes ``num_threads``, or all of ``run_counter`` if it is alone and that is quicker.
        With ``uses_shortlists``, if the bundle has any, each translation is made of the target
        tokens that its source may become.
        """
        manifest = bundle.manifest
        run_counter = run_counter or RunCounter(num_threads)
        general, greedy = self._choose_steps(bundle.graphs.steps, uses_shortlists)
        self.uses_shortlists = bool(general.inputs.shortlist)
        self.limits = manifest.limits
        self.vocab_size = manifest.architecture.target_embeddings.vocab_size
        self.pad_id = manifest.special_tokens.pad_id
        self.start_token_id = manifest.decoding.start_token_id
        self.eos_id = manifest.special_tokens.eos_id

        def opened(step: bundle_pb2.StepGraph) -> StepRunner:
            return StepRunner(bundle.step_path(step), step, num_threads, device, run_counter)

        self.encoder = ThreadedGraph(bundle.graph_path("encoder"), num_threads, device, run_counter)
        self.decoder_step = opened(general)
        self.greedy_graph = None if greedy is None else opened(greedy)
        self.scorer = CountedGraph(bundle.graph_path("scorer"), num_threads, device, run_counter)
        for runner in filter(None, (self.decoder_step, self.greedy_graph)):
            _check_states(runner)
        self.cache_sizes = _cache_sizes(self._step_graph(1).signature, self.limits)
        source_states = self.decoder_step.signature.source_states
        self._source_outputs = [state.encoder_output for state in source_states]
        self._encoded_names = [*self._source_outputs]
        if self.uses_shortlists:
            self._encoded_names.append(bundle.graphs.shortlist_output)
        self._device = device
        self._caches: list[HostDecoderCache | DeviceDecoderCache] = []
        if self.encoder.has_choice:
            self._choose_threads()

    def _choose_steps(
        self, steps: Sequence[bundle_pb2.StepGraph], uses_shortlists: bool
    ) -> tuple[bundle_pb2.StepGraph, bundle_pb2.StepGraph | None]:
        """The graphs of steps for all searches and, where there is one, for greedy search."""
        general = [step for step in steps if not step.rows_per_sentence]
        listed = [step for step in general if step.inputs.shortlist]
        chosen = (listed if uses_shortlists else None) or [
            step for step in general if not step.inputs.shortlist
        ]
        takes_shortlist = bool(chosen[0].inputs.shortlist)
        greedy = [
            step
            for step in steps
            if step.rows_per_sentence == 1 and bool(step.inputs.shortlist) == takes_shortlist
        ]
        if not (greedy and self._takes_greedy_graphs):
            return chosen[0], None
        return chosen[0], max(greedy, key=lambda step: step.num_tokens)

    def _choose_threads(self) -> None:
        """Find out whether a lone run of one short text is quicker on all threads."""
        num_tokens = min(NUM_TRIAL_TOKENS, self.limits.max_source_tokens)
        source, lengths = pad([[self.eos_id] * num_tokens], self.pad_id)
        feeds = {"source": source, "source_lengths": lengths}
        self.encoder.keep_what_pays(lambda session: session.run(self._encoded_names, feeds))
        (encoded,) = self._encode_padded(source, lengths)
        self._choose_step_threads(encoded, width=1)
        if self.greedy_graph is not None:
            self._choose_step_threads(encoded, width=TRIAL_WIDTH)

    def _choose_step_threads(self, source: EncodedSentence, width: int) -> None:
        cache = self._new_host_cache(width, max_slots=1)
        cache.load(0, source)
        step_input = StepInput(
            tokens=np.full(width, self.start_token_id, dtype=np.int64),
            lengths=np.zeros(width, dtype=np.int32),
            num_candidates=1,
            token_biases=[NO_TOKEN_BIAS] * cache.num_step_tokens,
        )
        graph = self._step_graph(width)
        graph.keep_what_pays(lambda session: cache.step_with(session, 1, step_input))

    @property
    def cache_bytes(self) -> int:
        """Memory of all caches."""
        return sum(cache.num_bytes for cache in list(self._caches))

    def encode(self, sources: Sequence[TokenIds]) -> list[EncodedSource]:
        """Encode the sources as one padded batch."""
        return self._encode_padded(*pad(sources, self.pad_id))

    def _encode_padded(
        self, source: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> list[EncodedSource]:
        outputs = self._run_encoder(self._encoded_names, source, lengths)
        num_cross = len(self._source_outputs)
        shortlists = outputs[num_cross] if self.uses_shortlists else [None] * len(lengths)
        return [
            EncodedSentence([kv[i, :, :n] for kv in outputs[:num_cross]], n, shortlists[i])
            for i, n in enumerate(lengths.tolist())
        ]

    def _run_encoder(
        self, names: list[str], source: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> list[NDArray[Any]]:
        feeds = {"source": source, "source_lengths": lengths}
        with self.encoder.session() as session:
            return session.run(names, feeds)  # type: ignore[no-any-return]

    def new_cache(self, width: int, max_slots: int, one_token_steps: bool = False) -> DecoderCache:
        """Allocate the caches for ``max_slots`` sentences of ``width`` rows."""
        cache = self._new_host_cache(width, max_slots, one_token_steps)
        self._caches.append(cache)
        return cache

    def _new_host_cache(
        self, width: int, max_slots: int, one_token_steps: bool = False
    ) -> HostDecoderCache:
        graph = self._step_graph(width, one_token_steps)
        return HostDecoderCache(graph, self.cache_sizes, width, max_slots, self.vocab_size)

    def _step_graph(self, width: int, one_token_steps: bool = False) -> StepRunner:
        """The quickest graph that can do it."""
        if width == 1 and not one_token_steps and self.greedy_graph is not None:
            return self.greedy_graph
        return self.decoder_step

    def score(self, pairs: Sequence[tuple[TokenIds, TokenIds]]) -> list[TargetScore]:
        """Score (source, target) pairs as one padded batch."""
        source, source_lengths = pad([source for source, _ in pairs], self.pad_id)
        target_out, target_lengths = pad([target for _, target in pairs], self.pad_id)
        target_in = np.roll(target_out, 1, axis=1)
        target_in[:, 0] = self.start_token_id
        log_p = self._run_scorer(
            source,
            {"target_in": target_in, "target_out": target_out, "source_lengths": source_lengths},
        )  # (batch, target)
        return [
            TargetScore(row[:n].copy())
            for row, n in zip(log_p, target_lengths.tolist(), strict=True)
        ]

    def _run_scorer(
        self, source: NDArray[np.int64], feeds: dict[str, NDArray[np.int64]]
    ) -> NDArray[np.float32]:
        cross = self._run_encoder(self._source_outputs, source, feeds["source_lengths"])
        feeds_and_cross = {**feeds, **dict(zip(self._source_outputs, cross, strict=True))}
        with self.scorer.session() as session:
            (log_p,) = session.run(["log_probabilities"], feeds_and_cross)
        return log_p  # type: ignore[no-any-return]


def _check_states(runner: StepRunner) -> None:
    """Raise ValueError if states of the graph are not those that its signature states."""
    shapes = {value.name: value.shape for value in runner.shared.get_inputs()}
    types = {value.name: value.type for value in runner.shared.get_inputs()}
    for state in runner.signature.step.states:
        heads, _, width = state.shape
        found = shapes.get(state.input, [])
        if len(found) != 4 or [found[1], found[3]] != [heads, width]:
            raise ValueError(f"state {state.input} in the manifest has not the graph's shape")
        if types[state.input] != TENSOR_TYPES[state.type]:
            raise ValueError(f"state {state.input} in the manifest has not the graph's type")


def _cache_sizes(signature: StepSignature, limits: bundle_pb2.Limits) -> CacheSizes:
    """Sizes of the caches; raises ValueError for states of several shapes."""
    rows, sources = signature.row_states, signature.source_states
    shapes = {(state.type, tuple(state.shape)) for state in (*rows, *sources)}
    if len(shapes) != 1 or len(rows) != len(sources):
        raise ValueError("the states of rows and of sources must be alike")
    (type_, (heads, _, width)) = shapes.pop()
    return CacheSizes(
        len(rows),
        heads,
        width,
        limits.max_source_tokens,
        # The last tokens of a run may lie behind the end of the longest output.
        limits.max_target_tokens + signature.num_tokens - 1,
        np.dtype(np.float16 if type_ == embedding_pb2.DATA_TYPE_FLOAT16 else np.float32),
    )
