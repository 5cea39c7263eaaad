"""The results of comparisons of texts. This module knows neither protobuf nor gRPC."""

from dataclasses import dataclass

from attendant_client.embedding_results import FloatArray, IntArray
from attendant_client.errors import TextError
from attendant_client.results import CallReport, TextResult, TruncationReport


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SimilarTexts(TextResult):
    """The texts that are most similar to one query, most similar first.

    `indices` are their indices among the texts of the call, and `scores` their cosines with the
    query, -1 to 1. Both are empty if the query failed. A text that failed is in neither;
    `text_errors` are the errors of all such texts, with their `index`.
    """

    indices: IntArray
    scores: FloatArray
    text_errors: tuple[TextError, ...]
    num_tokens: int
    truncation: TruncationReport | None
    error: TextError | None
    call: CallReport

    def _shown(self) -> str:
        best = f", best={self.indices[0]}, score={self.scores[0]:.4f}" if len(self.indices) else ""
        return f"num_texts={len(self.indices)}{best}"


@dataclass(frozen=True, slots=True, repr=False)
class RankedDocument(TextResult):
    """A document of `rerank`: its `index` in the call and its score, NaN if it failed."""

    index: int
    score: float
    truncation: TruncationReport | None
    error: TextError | None
    call: CallReport

    def _shown(self) -> str:
        return f"index={self.index}, score={self.score:.4f}"
