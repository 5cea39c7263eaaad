"""The translation model over ONNX Runtime."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from attendant.v1 import bundle_pb2
from attendant_manifest.special_tokens import target_tokens
from numpy.typing import NDArray

from attendant_server.bundles import Bundle
from attendant_server.engine.attention_calls import Attention
from attendant_server.engine.calls import TokenIds
from attendant_server.engine.models import RowStart
from attendant_server.engine.pair_calls import AttentionWeights, TargetScore
from attendant_server.runtime.aligner import ALIGNMENT, Aligner
from attendant_server.runtime.decoder_model import OnnxDecoderModel
from attendant_server.runtime.model_graphs import CountedGraph, RunCounter, trial_run
from attendant_server.runtime.padding import pad
from attendant_server.runtime.signatures import check_interface
from attendant_server.runtime.step_trials import trial_sources


class OnnxTranslationModel(OnnxDecoderModel):
    """A model of an encoder-decoder bundle."""

    _source_limit: ClassVar[str] = "limits.max_source_tokens"
    _row_limit: ClassVar[str] = "limits.max_target_tokens"

    def _read_manifest(self, manifest: bundle_pb2.Manifest) -> None:
        architecture, targets = manifest.architecture, target_tokens(manifest)
        self.vocab_size = architecture.target_embeddings.vocab_size
        self.source_vocab_size = architecture.source_embeddings.vocab_size
        self.max_source_tokens = manifest.limits.max_source_tokens
        self.max_row = manifest.limits.max_target_tokens
        self.start_token_id = manifest.decoding.start_token_id
        self.eos_id, self._target_pad_id = targets.eos_id, targets.pad_id
        self._source_eos_id = manifest.special_tokens.eos_id
        self._source_pad_id = manifest.special_tokens.pad_id

    def row_start(self, source: TokenIds) -> RowStart:
        """The start token, before which the rows are empty."""
        return RowStart(self.start_token_id, begin_token_id=self.start_token_id)

    def _open(
        self, bundle: Bundle, num_threads: int, run_counter: RunCounter, uses_shortlists: bool
    ) -> None:
        super()._open(bundle, num_threads, run_counter, uses_shortlists)
        self.aligner: Aligner | None = None
        if bundle.manifest.HasField("alignment"):
            path = bundle.graph_path("aligner")
            graph = CountedGraph(path, num_threads, self._device, run_counter)
            self.aligner = Aligner(graph, bundle)
            check_interface(graph.shared, bundle.graphs.aligner)

    def _check_steps(self, bundle: Bundle) -> None:
        super()._check_steps(bundle)
        if self.aligner is not None:
            source = trial_sources(self.source_vocab_size, self.max_source_tokens)[0]
            with trial_run("aligner"):
                self.aligner.check(self.align([(source, [self.eos_id, self.eos_id])]))

    def _graphs(self) -> Iterator[CountedGraph]:
        yield from super()._graphs()
        if self.aligner is not None:
            yield self.aligner.graph

    def _shrink_scorers(self) -> None:
        source, end = np.array([[self._source_eos_id]]), np.array([[self.eos_id]])
        lengths = np.ones(1, np.int64)
        feeds: dict[str, NDArray[Any]] = {
            "target_in": end,
            "target_out": end,
            "source_lengths": lengths,
        }
        cross = self._run_encoder(self._state_outputs, source, lengths)
        feeds |= dict(zip(self._state_outputs, cross, strict=True))
        self.scorer.shrink(lambda session: session.run(["log_probabilities"], feeds))
        if self.aligner is not None:
            del feeds["target_out"]
            feeds["head_weights"] = self.aligner.head_weights
            self.aligner.graph.shrink(lambda session: session.run([ALIGNMENT], feeds))

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
        source, source_lengths = self._padded_sources([source for source, _ in pairs])
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
        cross = self._run_encoder(self._state_outputs, source, feeds["source_lengths"])
        feeds_and_cross = {**feeds, **dict(zip(self._state_outputs, cross, strict=True))}
        with graph.session() as session:
            (found,) = session.run([output], feeds_and_cross)
        return found  # type: ignore[no-any-return]
