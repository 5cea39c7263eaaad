"""The causal language model over ONNX Runtime."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from attendant.v1 import bundle_pb2
from numpy.typing import NDArray

from attendant_server.engine.attention_calls import Attention
from attendant_server.engine.calls import TokenIds
from attendant_server.engine.models import RowStart
from attendant_server.engine.pair_calls import AttentionWeights, TargetScore
from attendant_server.runtime.decoder_model import OnnxDecoderModel
from attendant_server.runtime.padding import pad


class OnnxLanguageModel(OnnxDecoderModel):
    """A model of a bundle with a decoder only.

    Its sources are prompts. What it calls its encoder is the prefill, which reads a prompt except
    its last token and fills the first positions of rows.
    """

    _source_limit: ClassVar[str] = "limits.max_tokens"
    _row_limit: ClassVar[str] = "limits.max_tokens"

    def _read_manifest(self, manifest: bundle_pb2.Manifest) -> None:
        self.vocab_size = manifest.architecture.target_embeddings.vocab_size
        self.source_vocab_size = self.vocab_size
        self.max_source_tokens = manifest.limits.max_tokens
        # The last token of a text is decoded, and never read.
        self.max_row = manifest.limits.max_tokens - 1
        self.eos_id = self._source_eos_id = manifest.special_tokens.eos_id
        self._source_pad_id = manifest.special_tokens.pad_id

    def row_start(self, source: TokenIds) -> RowStart:
        """The last token of the prompt, after the others."""
        return RowStart(source[-1], len(source) - 1)

    def _encoder_input(self, sources: Sequence[TokenIds]) -> Sequence[TokenIds]:
        return [source[:-1] for source in sources]

    def score(self, pairs: Sequence[tuple[TokenIds, TokenIds]]) -> list[TargetScore]:
        """Score the targets of (prompt, target) pairs as one padded batch."""
        feeds = self._scorer_feeds(pairs)
        with self.scorer.session() as session:
            (found,) = session.run(["log_probabilities"], feeds)
        if found.shape != feeds["target_in"].shape:
            raise ValueError(f"log_probabilities are {found.shape}")
        spans = ((len(s) - 1, len(s) - 1 + len(t)) for s, t in pairs)
        return [TargetScore(row[i:j].copy()) for row, (i, j) in zip(found, spans, strict=True)]

    def _scorer_feeds(
        self, pairs: Sequence[tuple[TokenIds, TokenIds]]
    ) -> dict[str, NDArray[np.int64]]:
        texts = [[*source, *target] for source, target in pairs]
        target_in, _ = pad([text[:-1] for text in texts], self._source_pad_id)
        target_out, _ = pad([text[1:] for text in texts], self._source_pad_id)
        return {"target_in": target_in, "target_out": target_out}

    def _shrink_scorers(self) -> None:
        feeds = self._scorer_feeds([([self.eos_id], [self.eos_id])])
        self.scorer.shrink(lambda session: session.run(["log_probabilities"], feeds))

    def align(self, pairs: Sequence[tuple[TokenIds, TokenIds]]) -> list[AttentionWeights]:
        """Never called: bundles of language models have no aligner."""
        raise NotImplementedError

    def attend(self, source: TokenIds, target: TokenIds) -> Attention:
        """Never called: bundles of language models have no attention graph."""
        raise NotImplementedError
