"""Models that decode, over ONNX Runtime: what translation models and language models share.

Knows graphs and arrays, but no requests, search or scheduling. The manifest's signatures name the
inputs and outputs of the graphs.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from attendant.v1 import bundle_pb2
from numpy.typing import NDArray

from attendant_server.bundles import Bundle
from attendant_server.engine.attention_calls import Attention
from attendant_server.engine.calls import TokenIds
from attendant_server.engine.models import NO_TOKEN_BIAS, EncodedSource, RowStart, StepInput
from attendant_server.engine.pair_calls import AttentionWeights, TargetScore
from attendant_server.runtime.attention_graph import AttentionGraph
from attendant_server.runtime.cache_pool import CachePool
from attendant_server.runtime.cache_sizes import cache_sizes
from attendant_server.runtime.device_cache import DeviceDecoderCache
from attendant_server.runtime.host_cache import EncodedSentence, HostDecoderCache
from attendant_server.runtime.model_graphs import (
    MAX_TRIAL_TOKENS,
    NUM_TRIAL_TOKENS,
    CountedGraph,
    RunCounter,
    ThreadedGraph,
    ThreadedStep,
    trial_run,
)
from attendant_server.runtime.padding import pad
from attendant_server.runtime.signatures import check_interface, choose_steps
from attendant_server.runtime.step_roles import check_encoder, check_step
from attendant_server.runtime.step_trials import StepTrial, tolerance, trial_sources

TRIAL_WIDTH = 4
"""Rows of the beam search that compares sessions."""
NUM_SHORT_TOKENS = 2
"""Tokens of the text of a run that only releases memory."""


class OnnxDecoderModel(ABC):
    """A model of a bundle with steps. Its subclasses implement the engine's `TranslationModel`."""

    _takes_greedy_graphs: ClassVar[bool] = True
    eos_id: int
    """The end token of what the model decodes."""
    vocab_size: int
    """Number of tokens that the model decodes."""
    source_vocab_size: int
    max_source_tokens: int
    max_row: int
    """Positions of a row that is as long as the limits allow."""
    _source_limit: ClassVar[str]
    """The field of the manifest that limits sources."""
    _row_limit: ClassVar[str]
    """The field of the manifest that limits rows."""
    _source_eos_id: int
    _source_pad_id: int

    def __init__(
        self,
        bundle: Bundle,
        num_threads: int,
        device: str,
        run_counter: RunCounter,
        uses_shortlists: bool = False,
    ) -> None:
        """Load the graphs of ``bundle`` in its chosen precision.

        A run uses ``num_threads`` threads, or all threads of ``run_counter`` if it is the only run
        and that is faster. With ``uses_shortlists``, if the bundle has any, each translation is
        restricted to its source's shortlist. Raises ValueError or an error of ONNX Runtime for a
        graph that differs from the manifest or cannot run.
        """
        self.limits = bundle.manifest.limits
        self._device = device
        self._read_manifest(bundle.manifest)
        self._open(bundle, num_threads, run_counter, uses_shortlists)
        signature = self._step_graph(1).signature
        self.cache_sizes = cache_sizes(signature, self.limits)
        self._position_outputs = [state.encoder_output for state in signature.encoded_states]
        """The outputs of the encoder that are states with positions: of sources, or of rows."""
        self._vector_outputs = [state.encoder_output for state in signature.started_states]
        """The outputs of the encoder that are replaced states."""
        self._state_outputs = [*self._position_outputs, *self._vector_outputs]
        self._encoded_states = (
            self.cache_sizes.sources if signature.source_states else self.cache_sizes.growing
        )
        listed = [bundle.graphs.shortlist_output] if self.uses_shortlists else []
        self._encoded_names = [*self._state_outputs, *listed]
        if device == "cpu":
            self._check_steps(bundle)
            self._choose_sessions()

    @abstractmethod
    def _read_manifest(self, manifest: bundle_pb2.Manifest) -> None:
        """Set the attributes that come from the manifest."""

    @abstractmethod
    def row_start(self, source: TokenIds) -> RowStart:
        """How the rows of a source begin."""

    @abstractmethod
    def score(self, pairs: Sequence[tuple[TokenIds, TokenIds]]) -> list[TargetScore]:
        """Score (source, target) pairs as one padded batch."""

    @abstractmethod
    def align(self, pairs: Sequence[tuple[TokenIds, TokenIds]]) -> list[AttentionWeights]:
        """Align the tokens of (source, target) pairs as one padded batch."""

    @abstractmethod
    def attend(self, source: TokenIds, target: TokenIds) -> Attention:
        """The attention weights of one pair."""

    @abstractmethod
    def _shrink_scorers(self) -> None:
        """Release the working memory of the graphs that read targets, by short runs."""

    def _encoder_input(self, sources: Sequence[TokenIds]) -> Sequence[TokenIds]:
        """The tokens of each source that the encoder reads."""
        return sources

    def _open(
        self, bundle: Bundle, num_threads: int, run_counter: RunCounter, uses_shortlists: bool
    ) -> None:
        """Open the graphs and check them against the manifest; raises ValueError."""
        graphs, how = bundle.graphs, (num_threads, self._device, run_counter)

        def opened(step: bundle_pb2.StepGraph) -> ThreadedStep:
            graph = ThreadedStep(bundle.step_path(step), step, *how)
            check_interface(graph.shared, step.graph)
            check_step(graph.shared, step)
            return graph

        general, greedy = choose_steps(graphs.steps, uses_shortlists, self._takes_greedy_graphs)
        self.uses_shortlists = bool(general.inputs.shortlist)
        self.encoder = ThreadedGraph(bundle.graph_path("encoder"), *how)
        self.decoder_step = opened(general)
        self.greedy_graph = None if greedy is None else opened(greedy)
        self.scorer = CountedGraph(bundle.graph_path("scorer"), *how)
        self.attention: AttentionGraph | None = None
        if bundle.has_graph("attention"):
            self.attention = AttentionGraph(bundle, *how)
        check_interface(self.encoder.shared, graphs.encoder)
        listed = graphs.shortlist_output if self.uses_shortlists else ""
        check_encoder(self.encoder.shared, general, listed)
        check_interface(self.scorer.shared, graphs.scorer)

    def _check_steps(self, bundle: Bundle) -> None:
        """Run every graph, and compare the steps with the scorer; raises ValueError."""
        sources = trial_sources(self.source_vocab_size, self.max_source_tokens)
        with trial_run("encoder"):
            encoded = self._encode_padded(*self._padded_sources(sources))
        with trial_run("encoder", self._source_limit):
            self._encode_longest()
        with trial_run("scorer"):
            self.score([(sources[0], [self.eos_id])])
        trial = StepTrial(
            sources,
            encoded,
            [self.row_start(source) for source in sources],
            self.score,
            self.cache_sizes,
            self.vocab_size,
            self.eos_id,
            self.max_row,
            self._row_limit,
            tolerance=tolerance(bundle.manifest, bundle.precision),
        )
        for step in (self.decoder_step, self.greedy_graph):
            if step is not None:
                trial.check(step)

    def _encode_longest(self) -> None:
        """Encode one text of as many tokens as the limit allows, and release the memory."""
        num_tokens = min(self.max_source_tokens, MAX_TRIAL_TOKENS)
        feeds = self._encoder_feeds(*self._padded_sources([[self._source_eos_id] * num_tokens]))
        self.encoder.shrink(lambda session: session.run(self._encoded_names, feeds))

    def _choose_sessions(self) -> None:
        """Measure whether a lone run of one short text is faster on all threads."""
        num_tokens = min(NUM_TRIAL_TOKENS, self.max_source_tokens)
        for graph, run in self._short_runs(num_tokens):
            graph.keep_what_pays(run)

    def _short_runs(
        self, num_tokens: int
    ) -> Iterator[tuple[ThreadedGraph, Callable[[Any], object]]]:
        """The graphs that decode, each with a function that runs one text in a session."""
        text = [self._source_eos_id] * num_tokens
        padded = self._padded_sources([text])
        feeds = self._encoder_feeds(*padded)
        yield self.encoder, lambda session: session.run(self._encoded_names, feeds)
        (encoded,) = self._encode_padded(*padded)
        for width in (1, TRIAL_WIDTH) if self.greedy_graph is not None else (1,):
            yield self._step_graph(width), self._short_step(encoded, self.row_start(text), width)

    def _short_step(
        self, source: EncodedSentence, start: RowStart, width: int
    ) -> Callable[[Any], object]:
        pool = CachePool(self.cache_sizes)
        cache = HostDecoderCache(self._step_graph(width), width, 1, self.vocab_size, pool)
        cache.load(0, source)
        step_input = StepInput(
            tokens=np.full(width, start.token_id, dtype=np.int64),
            lengths=np.full(width, start.num_positions, dtype=np.int32),
            num_candidates=1,
            token_biases=[NO_TOKEN_BIAS] * cache.num_step_tokens,
        )
        return lambda session: cache.step_with(session, 1, step_input)

    def _graphs(self) -> Iterator[CountedGraph]:
        """All graphs that are open as long as the model is."""
        graphs = (self.encoder, self.decoder_step, self.greedy_graph, self.scorer)
        return (graph for graph in graphs if graph is not None)

    def stop_runs(self) -> None:
        """Let the present runs raise soon. Any thread."""
        for graph in self._graphs():
            graph.stop_runs()
        if self.attention is not None:
            self.attention.stop_runs()

    def release_memory(self) -> None:
        """Release the working memory of runs, and close the attention graph."""
        if self.attention is not None:
            self.attention.close()
        if not self.encoder.can_shrink:
            return
        for graph, run in self._short_runs(NUM_SHORT_TOKENS):
            graph.shrink(run)
        self._shrink_scorers()

    def needed_cache_bytes(
        self, width: int, num_sentences: int, longest_row: int, longest_source: int
    ) -> int:
        """Bytes of cache for this many running sentences of ``width`` rows and these lengths."""
        longest_row += self._step_graph(width).signature.num_extra_positions
        return self.cache_sizes.needed_bytes(width, num_sentences, longest_row, longest_source)

    def encode(self, sources: Sequence[TokenIds]) -> list[EncodedSource]:
        """Encode the sources as one padded batch."""
        return self._encode_padded(*self._padded_sources(sources))

    def _padded_sources(
        self, sources: Sequence[TokenIds]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """What the encoder reads of sources: padded tokens and their lengths."""
        return pad(self._encoder_input(sources), self._source_pad_id)

    def _encode_padded(
        self, source: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> list[EncodedSource]:
        outputs = self._run_encoder(self._encoded_names, source, lengths)
        num_positions, num_states = len(self._position_outputs), len(self._state_outputs)
        keys_values, vectors = outputs[:num_positions], outputs[num_positions:num_states]
        shortlists = outputs[num_states] if self.uses_shortlists else [None] * len(lengths)
        return [
            EncodedSentence(
                [kv[i, :, :n] for kv in keys_values], n, shortlists[i], [v[i] for v in vectors]
            )
            for i, n in enumerate(lengths.tolist())
        ]

    def _run_encoder(
        self, names: list[str], source: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> list[NDArray[Any]]:
        with self.encoder.session() as session:
            found: list[NDArray[Any]] = session.run(names, self._encoder_feeds(source, lengths))
        for name, array in zip(names, found, strict=True):
            is_long = name not in self._position_outputs or array.shape[2] == source.shape[1]
            if len(array) != len(source) or not is_long:  # it could be that of other sources
                raise ValueError(f"{name} is {array.shape} for sources that are {source.shape}")
        return found

    def _encoder_feeds(
        self, source: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> dict[str, NDArray[np.int64]]:
        return {"source": source, "source_lengths": lengths}

    def new_cache_pool(self, max_bytes: int, spare_bytes: int) -> CachePool:
        """A new, empty memory pool for the caches of one worker."""
        return CachePool(self.cache_sizes, max_bytes, spare_bytes)

    def step_for(self, width: int, one_token_steps: bool = False) -> str:
        """Name of the fastest step graph for sentences of ``width`` rows."""
        return self._step_graph(width, one_token_steps).signature.step.name

    def new_cache(
        self, step: str, width: int, max_slots: int, pool: CachePool
    ) -> HostDecoderCache | DeviceDecoderCache:
        """New empty caches for at most ``max_slots`` sentences of ``width`` rows.

        ``step`` is the name of the step graph.
        """
        graphs = (self.decoder_step, self.greedy_graph)
        (graph,) = (g for g in graphs if g is not None and g.signature.step.name == step)
        return HostDecoderCache(graph, width, max_slots, self.vocab_size, pool)

    def _step_graph(self, width: int, one_token_steps: bool = False) -> ThreadedStep:
        """The fastest step graph for these sentences."""
        if width == 1 and not one_token_steps and self.greedy_graph is not None:
            return self.greedy_graph
        return self.decoder_step
