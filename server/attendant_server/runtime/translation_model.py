"""The translation model over ONNX Runtime.

Knows graphs and arrays, but no requests, search or scheduling. The manifest's signatures name the
inputs and outputs of the graphs.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from attendant.v1 import bundle_pb2
from attendant_manifest.special_tokens import target_tokens
from numpy.typing import NDArray

from attendant_server.bundles import Bundle
from attendant_server.engine.attention_calls import Attention
from attendant_server.engine.calls import TokenIds
from attendant_server.engine.models import NO_TOKEN_BIAS, EncodedSource, StepInput
from attendant_server.engine.pair_calls import AttentionWeights, TargetScore
from attendant_server.runtime.aligner import ALIGNMENT, Aligner
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
from attendant_server.runtime.step_trials import (
    StepTrial,
    tolerance,
    trial_sources,
)

TRIAL_WIDTH = 4
"""Rows of the beam search that compares sessions."""


class OnnxTranslationModel:
    """A model of an encoder-decoder bundle; implements the engine's `TranslationModel`."""

    _takes_greedy_graphs: ClassVar[bool] = True

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
        manifest, graphs = bundle.manifest, bundle.graphs
        self.limits = manifest.limits
        self.vocab_size = manifest.architecture.target_embeddings.vocab_size
        self._source_tokens, targets = manifest.special_tokens, target_tokens(manifest)
        self.start_token_id = manifest.decoding.start_token_id
        self.eos_id, self._target_pad_id = targets.eos_id, targets.pad_id
        self._device = device
        self._open(bundle, num_threads, run_counter, uses_shortlists)
        self.cache_sizes = cache_sizes(self._step_graph(1).signature, self.limits)
        source_states = self.decoder_step.signature.source_states
        self._source_outputs = [state.encoder_output for state in source_states]
        listed = [graphs.shortlist_output] if self.uses_shortlists else []
        self._encoded_names = [*self._source_outputs, *listed]
        if device == "cpu":
            self._check_steps(bundle)
            self._choose_sessions()

    def _open(
        self, bundle: Bundle, num_threads: int, run_counter: RunCounter, uses_shortlists: bool
    ) -> None:
        """Open the graphs and check them against the manifest; raises ValueError."""
        manifest, graphs = bundle.manifest, bundle.graphs
        how = (num_threads, self._device, run_counter)

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
        self.aligner: Aligner | None = None
        if manifest.HasField("alignment"):
            self.aligner = Aligner(CountedGraph(bundle.graph_path("aligner"), *how), bundle)
        self.attention: AttentionGraph | None = None
        if bundle.has_graph("attention"):
            self.attention = AttentionGraph(bundle, *how)
        check_interface(self.encoder.shared, graphs.encoder)
        listed = graphs.shortlist_output if self.uses_shortlists else ""
        check_encoder(self.encoder.shared, general, listed)
        check_interface(self.scorer.shared, graphs.scorer)
        if self.aligner is not None:
            check_interface(self.aligner.graph.shared, graphs.aligner)

    def _check_steps(self, bundle: Bundle) -> None:
        """Run every graph, and compare the steps with the scorer; raises ValueError."""
        vocab_size = bundle.manifest.architecture.source_embeddings.vocab_size
        sources = trial_sources(vocab_size, self.limits.max_source_tokens)
        with trial_run("encoder"):
            encoded = self._encode_padded(*pad(sources, self._source_tokens.pad_id))
        with trial_run("encoder", "limits.max_source_tokens"):
            self._encode_longest()
        with trial_run("scorer"):
            self.score([(sources[0], [self.eos_id])])
        if self.aligner is not None:
            with trial_run("aligner"):
                self.aligner.check(self.align([(sources[0], [self.eos_id, self.eos_id])]))
        trial = StepTrial(
            sources,
            encoded,
            self.score,
            self.cache_sizes,
            self.vocab_size,
            self.start_token_id,
            self.eos_id,
            self.limits.max_target_tokens,
            tolerance=tolerance(bundle.manifest, bundle.precision),
        )
        for step in (self.decoder_step, self.greedy_graph):
            if step is not None:
                trial.check(step)

    def _encode_longest(self) -> None:
        """Encode one text of as many tokens as the limit allows, and release the memory."""
        num_tokens = min(self.limits.max_source_tokens, MAX_TRIAL_TOKENS)
        source, lengths = pad([[self._source_tokens.eos_id] * num_tokens], 0)
        feeds = {"source": source, "source_lengths": lengths}
        self.encoder.shrink(lambda session: session.run(self._encoded_names, feeds))

    def _choose_sessions(self) -> None:
        """Measure whether a lone run of one short text is faster on all threads."""
        num_tokens = min(NUM_TRIAL_TOKENS, self.limits.max_source_tokens)
        for graph, run in self._short_runs(num_tokens):
            graph.keep_what_pays(run)

    def _short_runs(
        self, num_tokens: int
    ) -> Iterator[tuple[ThreadedGraph, Callable[[Any], object]]]:
        """The graphs of translations, each with a function that runs one text in a session."""
        source, lengths = pad(
            [[self._source_tokens.eos_id] * num_tokens], self._source_tokens.pad_id
        )
        feeds = {"source": source, "source_lengths": lengths}
        yield self.encoder, lambda session: session.run(self._encoded_names, feeds)
        (encoded,) = self._encode_padded(source, lengths)
        for width in (1, TRIAL_WIDTH) if self.greedy_graph is not None else (1,):
            yield self._step_graph(width), self._short_step(encoded, width)

    def _short_step(self, source: EncodedSentence, width: int) -> Callable[[Any], object]:
        pool = CachePool(self.cache_sizes)
        cache = HostDecoderCache(self._step_graph(width), width, 1, self.vocab_size, pool)
        cache.load(0, source)
        step_input = StepInput(
            tokens=np.full(width, self.start_token_id, dtype=np.int64),
            lengths=np.zeros(width, dtype=np.int32),
            num_candidates=1,
            token_biases=[NO_TOKEN_BIAS] * cache.num_step_tokens,
        )
        return lambda session: cache.step_with(session, 1, step_input)

    def stop_runs(self) -> None:
        """Let the present runs raise soon. Any thread."""
        aligner = None if self.aligner is None else self.aligner.graph
        for graph in (self.encoder, self.decoder_step, self.greedy_graph, self.scorer, aligner):
            if graph is not None:
                graph.stop_runs()
        if self.attention is not None:
            self.attention.stop_runs()

    def release_memory(self) -> None:
        """Release the working memory of runs, and close the attention graph."""
        if self.attention is not None:
            self.attention.close()
        if not self.encoder.can_shrink:
            return
        for graph, run in self._short_runs(num_tokens=1):
            graph.shrink(run)
        source, end = np.array([[self._source_tokens.eos_id]]), np.array([[self.eos_id]])
        lengths = np.ones(1, np.int64)
        feeds: dict[str, NDArray[Any]] = {
            "target_in": end,
            "target_out": end,
            "source_lengths": lengths,
        }
        cross = self._run_encoder(self._source_outputs, source, lengths)
        feeds |= dict(zip(self._source_outputs, cross, strict=True))
        self.scorer.shrink(lambda session: session.run(["log_probabilities"], feeds))
        if self.aligner is not None:
            del feeds["target_out"]
            feeds["head_weights"] = self.aligner.head_weights
            self.aligner.graph.shrink(lambda session: session.run([ALIGNMENT], feeds))

    def needed_cache_bytes(
        self, width: int, num_sentences: int, longest_output: int, longest_source: int
    ) -> int:
        """Bytes of cache for this many running sentences of ``width`` rows and these lengths."""
        longest_row = longest_output + self._step_graph(width).signature.num_extra_positions
        return self.cache_sizes.needed_bytes(width, num_sentences, longest_row, longest_source)

    def encode(self, sources: Sequence[TokenIds]) -> list[EncodedSource]:
        """Encode the sources as one padded batch."""
        return self._encode_padded(*pad(sources, self._source_tokens.pad_id))

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
            found: list[NDArray[Any]] = session.run(names, feeds)
        for name, array in zip(names, found, strict=True):
            is_long = name not in self._source_outputs or array.shape[2] == source.shape[1]
            if len(array) != len(source) or not is_long:  # it could be that of other sources
                raise ValueError(f"{name} is {array.shape} for sources that are {source.shape}")
        return found

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

    def score(self, pairs: Sequence[tuple[TokenIds, TokenIds]]) -> list[TargetScore]:
        """Score (source, target) pairs as one padded batch."""
        source, feeds, lengths = self._padded(pairs)
        target_out, _ = pad([target for _, target in pairs], self._target_pad_id)
        shape = target_out.shape
        feeds["target_out"] = target_out
        log_p = self._run_targets(self.scorer, "log_probabilities", shape, source, feeds)
        return [TargetScore(row[:n].copy()) for row, n in zip(log_p, lengths, strict=True)]

    def align(self, pairs: Sequence[tuple[TokenIds, TokenIds]]) -> list[AttentionWeights]:
        """Align the tokens of (source, target) pairs as one padded batch."""
        assert self.aligner is not None, "the application checks it"
        source, feeds, lengths = self._padded(pairs)
        shape = (*feeds["target_in"].shape, source.shape[1])
        feeds["head_weights"] = self.aligner.head_weights
        weights = self._run_targets(self.aligner.graph, ALIGNMENT, shape, source, feeds)
        sizes = zip(weights, lengths, feeds["source_lengths"].tolist(), strict=True)
        return [self.aligner.of_tokens(each[:n, :m]) for each, n, m in sizes]

    def attend(self, source: TokenIds, target: TokenIds) -> Attention:
        """The attention weights of one pair."""
        assert self.attention is not None, "the application checks it"
        target_in = [self.start_token_id, *target[:-1]]
        return self.attention.run({"source": source, "target_in": target_in})

    def _padded(
        self, pairs: Sequence[tuple[TokenIds, TokenIds]]
    ) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]], list[int]]:
        """Padded sources, the decoder's inputs for padded targets, and the targets' lengths."""
        source, source_lengths = pad([source for source, _ in pairs], self._source_tokens.pad_id)
        target_in, lengths = pad(
            [[self.start_token_id, *target[:-1]] for _, target in pairs], self._target_pad_id
        )
        return source, {"target_in": target_in, "source_lengths": source_lengths}, lengths.tolist()

    def _run_targets(
        self,
        graph: CountedGraph,
        output: str,
        shape: tuple[int, ...],
        source: NDArray[np.int64],
        feeds: Mapping[str, NDArray[Any]],
    ) -> NDArray[np.float32]:
        """Run the scorer or the aligner; ``output`` has the given shape."""
        cross = self._run_encoder(self._source_outputs, source, feeds["source_lengths"])
        feeds_and_cross = {**feeds, **dict(zip(self._source_outputs, cross, strict=True))}
        with graph.session() as session:
            (found,) = session.run([output], feeds_and_cross)
        return found  # type: ignore[no-any-return]
