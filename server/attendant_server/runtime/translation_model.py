"""Models over ONNX Runtime.

Knows graphs and arrays, and nothing of requests, search or scheduling. Graph inputs and outputs
are those that ``attendant-export`` writes.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from attendant_server.bundles import Bundle
from attendant_server.engine.calls import TargetScore, TokenIds
from attendant_server.engine.models import NO_TOKEN_BIAS, EncodedSource, StepInput
from attendant_server.runtime.cache_pool import CachePool
from attendant_server.runtime.cache_sizes import CacheSizes
from attendant_server.runtime.device_cache import (
    DeviceDecoderCache,
)
from attendant_server.runtime.host_cache import EncodedSentence, HostDecoderCache
from attendant_server.runtime.padding import pad
from attendant_server.runtime.step import StepSignature
from attendant_server.runtime.threads import CountedGraph, RunCounter, ThreadedGraph

GREEDY_GRAPHS = "greedy_steps", "greedy_step"
"""The steps of greedy search, the quickest first."""
SHORTLIST_GRAPHS = "shortlist_decoder_step", "shortlist_greedy_steps"
"""The steps of all searches and of greedy search, with outputs from shortlists."""
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
        self.uses_shortlists = uses_shortlists and all(map(bundle.has_graph, SHORTLIST_GRAPHS))
        self.sizes, self.limits = manifest.translation_sizes, manifest.limits
        self.pad_id = manifest.special_tokens.pad_id
        self.bos_id = manifest.special_tokens.bos_id
        self.eos_id = manifest.special_tokens.eos_id

        def opened(name: str) -> ThreadedGraph:
            return ThreadedGraph(bundle.graph_path(name), num_threads, device, run_counter)

        step, greedy = self._step_names(bundle)
        self.encoder, self.decoder_step = opened("encoder"), opened(step)
        self.greedy_graph = opened(greedy) if greedy else None
        self.num_greedy_tokens = StepSignature.of(self._step_graph(1).shared).num_tokens
        self.scorer = CountedGraph(bundle.graph_path("scorer"), num_threads, device, run_counter)
        self._check_sizes()
        is_half = self.encoder.shared.get_outputs()[0].type == "tensor(float16)"
        self.cache_sizes = CacheSizes(
            self.sizes.num_decoder_layers,
            self.sizes.num_heads,
            self.sizes.head_dim,
            self.limits.max_source_tokens,
            # The last tokens of a step may lie behind the end of the longest output.
            self.limits.max_target_tokens + self.num_greedy_tokens - 1,
            np.dtype(np.float16 if is_half else np.float32),
        )
        self._cross_names = [f"cross_{name}" for name in self.cache_sizes.names]
        self._encoded_names = [*self._cross_names]
        if self.uses_shortlists:
            self._encoded_names.append("shortlist")
        self._device = device
        if self.encoder.has_choice:
            self._choose_threads()

    def _step_names(self, bundle: Bundle) -> tuple[str, str]:
        """The graphs of steps for all searches and for greedy search.

        "" for none of greedy search, as with bundles of older versions.
        """
        if self.uses_shortlists:
            return SHORTLIST_GRAPHS
        greedy = filter(bundle.has_graph, GREEDY_GRAPHS if self._takes_greedy_graphs else ())
        return "decoder_step", next(greedy, "")

    def _choose_threads(self) -> None:
        """Find out whether a lone run of one short text is quicker on all threads."""
        num_tokens = min(NUM_TRIAL_TOKENS, self.limits.max_source_tokens)
        for graph, run in self._short_runs(num_tokens):
            graph.keep_what_pays(run)

    def _short_runs(
        self, num_tokens: int
    ) -> Iterator[tuple[ThreadedGraph, Callable[[Any], object]]]:
        """The graphs of translations, each with a run of one text in one of its sessions."""
        source, lengths = pad([[self.eos_id] * num_tokens], self.pad_id)
        feeds = {"source": source, "source_lengths": lengths}
        yield self.encoder, lambda session: session.run(self._encoded_names, feeds)
        (encoded,) = self._encode_padded(source, lengths)
        for width in (1, TRIAL_WIDTH) if self.greedy_graph is not None else (1,):
            yield self._step_graph(width), self._short_step(encoded, width)

    def _short_step(self, source: EncodedSentence, width: int) -> Callable[[Any], object]:
        cache = self._new_host_cache(width, max_slots=1)
        cache.load(0, source)
        step_input = StepInput(
            tokens=np.full(width, self.bos_id, dtype=np.int64),
            lengths=np.zeros(width, dtype=np.int32),
            num_candidates=1,
            token_biases=[NO_TOKEN_BIAS] * cache.num_step_tokens,
        )
        return lambda session: cache.step_with(session, 1, step_input)

    def release_memory(self) -> None:
        """Give back what runs took for their work."""
        for graph, run in self._short_runs(num_tokens=1):
            graph.shrink(run)
        end = np.array([[self.eos_id]])
        feeds = {"target_in": end, "target_out": end, "source_lengths": np.ones(1, np.int64)}
        cross = self._run_encoder(self._cross_names, end, feeds["source_lengths"])
        feeds |= dict(zip(self._cross_names, cross, strict=True))
        self.scorer.shrink(lambda session: session.run(["log_probabilities"], feeds))

    def needed_cache_bytes(
        self, width: int, num_sentences: int, longest_output: int, longest_source: int
    ) -> int:
        """What so many running sentences of ``width`` rows need when they are as long as this."""
        num_step_tokens = self.num_greedy_tokens if width == 1 else 1
        # Of an output, the last token is never written; of a run, all tokens are.
        longest_row = longest_output + num_step_tokens - 1
        return self.cache_sizes.needed_bytes(width, num_sentences, longest_row, longest_source)

    def _check_sizes(self) -> None:
        """Raise ValueError if the graphs are not of the sizes that the manifest states."""
        stated = [self.sizes.num_heads, self.sizes.head_dim]
        num_caches = 4 * self.sizes.num_decoder_layers
        for graph in filter(None, (self.decoder_step, self.greedy_graph)):
            inputs = graph.shared.get_inputs()
            caches = [i.shape for i in inputs if i.name.startswith(("past_", "cross_"))]
            shapes = [[heads, head_dim] for _, heads, _, head_dim in caches]
            if len(shapes) != num_caches or any(shape != stated for shape in shapes):
                raise ValueError("translation_sizes in the manifest are not those of the graphs")
        outputs = {value.name for value in self.encoder.shared.get_outputs()}
        if self.uses_shortlists and "shortlist" not in outputs:
            raise ValueError("the encoder gives no shortlist for the graphs that take one")

    def encode(self, sources: Sequence[TokenIds]) -> list[EncodedSource]:
        """Encode the sources as one padded batch."""
        return self._encode_padded(*pad(sources, self.pad_id))

    def _encode_padded(
        self, source: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> list[EncodedSource]:
        outputs = self._run_encoder(self._encoded_names, source, lengths)
        num_cross = len(self._cross_names)
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

    def new_cache_pool(self, max_bytes: int, spare_bytes: int) -> CachePool:
        """The memory of the caches of one worker, none as yet."""
        return CachePool(self.cache_sizes, max_bytes, spare_bytes)

    def new_cache(
        self, width: int, max_slots: int, pool: CachePool | None = None
    ) -> HostDecoderCache | DeviceDecoderCache:
        """The caches for at most ``max_slots`` sentences of ``width`` rows, empty as yet.

        Without a ``pool`` they have one of their own, without a limit.
        """
        return self._new_host_cache(width, max_slots, pool)

    def _new_host_cache(
        self, width: int, max_slots: int, pool: CachePool | None = None
    ) -> HostDecoderCache:
        graph = self._step_graph(width)
        vocab_size = self.sizes.vocab_size
        return HostDecoderCache(graph, self.cache_sizes, width, max_slots, vocab_size, pool)

    def _step_graph(self, width: int) -> ThreadedGraph:
        return (self.greedy_graph if width == 1 else None) or self.decoder_step

    def score(self, pairs: Sequence[tuple[TokenIds, TokenIds]]) -> list[TargetScore]:
        """Score (source, target) pairs as one padded batch."""
        source, source_lengths = pad([source for source, _ in pairs], self.pad_id)
        target_out, target_lengths = pad([target for _, target in pairs], self.pad_id)
        target_in = np.roll(target_out, 1, axis=1)
        target_in[:, 0] = self.bos_id
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
        cross = self._run_encoder(self._cross_names, source, feeds["source_lengths"])
        feeds_and_cross = {**feeds, **dict(zip(self._cross_names, cross, strict=True))}
        with self.scorer.session() as session:
            (log_p,) = session.run(["log_probabilities"], feeds_and_cross)
        return log_p  # type: ignore[no-any-return]
