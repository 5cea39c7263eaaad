"""Compares the graphs of a translation bundle with the PyTorch model that they came from.

Adds aligners and attention graphs to the comparison of searches.
"""

from functools import cached_property

from attendant.v1.bundle_pb2 import Alignment

from attendant_export.models.encoder_decoder import EncoderDecoder
from attendant_export.verify.alignment import aligner_difference, choose_heads, num_heads
from attendant_export.verify.attention import check_pair_attention
from attendant_export.verify.bounds import FP32_BOUND
from attendant_export.verify.decoder import DecoderVerifier, SampleSentences, VerifiedPrecision
from attendant_export.verify.graph_sessions import DecoderGraphs, ParityError, TranslationGraphs

NUM_ALIGNED = 8
"""Sentences by which aligners are compared with the model."""


class TranslationVerifier(DecoderVerifier):
    """Searches once with the PyTorch model, then compares each precision with it."""

    def __init__(self, model: EncoderDecoder, sample: SampleSentences) -> None:
        """Raises ParityError if the model gives other log-probabilities without caches."""
        super().__init__(model, sample)
        self._translator = model

    def verify(self, precision: str, graphs: DecoderGraphs) -> VerifiedPrecision:
        """Compare ``graphs``, those of a translation bundle, with the model.

        Raises ParityError as `DecoderVerifier.verify`, and if the weights of fp32 attention differ
        from the model's.
        """
        assert isinstance(graphs, TranslationGraphs)
        verified = super().verify(precision, graphs)
        if graphs.aligner is not None:
            verified.parity.max_alignment_difference = self._check_aligner(precision, graphs)
        if graphs.attention is not None:
            pairs = self._sample.sources, self._greedy_tokens
            session = graphs.use(graphs.attention)
            difference = check_pair_attention(precision, session, self._translator, *pairs)
            verified.parity.max_attention_difference = difference
        return verified

    @cached_property
    def alignment(self) -> Alignment | None:
        """The heads that align words. None: the decoder does not attend to the source."""
        if not any(num_heads(self._translator.architecture)):
            return None
        return choose_heads(self._translator, self._sample.sources, self._greedy_tokens)

    def _check_aligner(self, precision: str, graphs: TranslationGraphs) -> float:
        """Largest difference of the aligner to the model; raises ParityError for fp32."""
        pairs = self._sample.sources[:NUM_ALIGNED], self._greedy_tokens[:NUM_ALIGNED]
        assert self.alignment is not None
        found = aligner_difference(graphs, self._translator, self.alignment, *pairs)
        if precision == "fp32" and not found <= FP32_BOUND:  # also true for NaN
            raise ParityError(
                f"fp32: the aligner differs from the model by {found:.2g}, at most {FP32_BOUND:.0e}"
            )
        return found
