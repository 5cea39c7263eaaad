"""The results of the embedding service, except those of comparisons.

Fields are named as in the contract. This module knows neither protobuf nor gRPC.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attendant_client.errors import TextError
from attendant_client.results import CallReport, Results, TextResult, Token, TruncationReport

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a text, `start` to `end` (exclusive) in characters, that has its own vector."""

    start: int
    end: int
    num_tokens: int


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Embedding(TextResult):
    """The vector of one text, shape (dimension,); all NaN if the text failed.

    With `data_type`, `vector` is a float16, int8 or uint8 array, or for "binary" an uint8 array of
    packed bits, which `numpy.unpackbits` unpacks. A value is about its int8 number, or its uint8
    number minus 128, times `scale`, which is None for the other types. Arrays of integers have no
    NaN: if the text failed, all of their values are zero.

    With `chunking`, `chunks` are the parts of the text. Unless they are averaged, `vector` has a
    row for each, shape (chunks, dimension), and `scale` is an array; a text that failed has no row.

    In a bulk call, the vector of a text that failed is empty, and `id` is the id of the text.
    """

    vector: NDArray[Any]
    num_tokens: int
    truncation: TruncationReport | None
    error: TextError | None
    call: CallReport
    scale: float | FloatArray | None = None
    chunks: tuple[Chunk, ...] = ()
    id: str = ""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """The vector, for functions of NumPy."""
        return np.array(self.vector, dtype, copy=copy)

    def _shown(self) -> str:
        chunks = f"num_chunks={len(self.chunks)}, " if self.chunks else ""
        return f"{chunks}dimension={self.vector.shape[-1]}"


class Embeddings(Results[Embedding]):
    """The vectors of several texts, in the order of the texts."""

    @property
    def vectors(self) -> NDArray[Any]:
        """A copy of all vectors, shape (texts, dimension); rows of failed texts as in `Embedding`.

        With `chunking`, unless they are averaged, the shape is (chunks of all texts, dimension).

        `raise_for_errors().vectors` has no such row.
        """
        return np.vstack([each.vector for each in self]) if self else np.zeros((0, 0), np.float32)

    @property
    def scales(self) -> FloatArray:
        """The scales of all vectors, in the order of their rows; empty without scales."""
        scales = [each.scale for each in self if each.scale is not None]
        return np.hstack(scales).astype(np.float32) if scales else np.zeros(0, np.float32)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """The vectors, for functions of NumPy."""
        return np.asarray(self.vectors, dtype)


@dataclass(frozen=True, slots=True)
class EmbeddedSpan:
    """A word or a span of a text, `start` to `end` (exclusive), and its number of tokens."""

    start: int
    end: int
    num_tokens: int


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TokenEmbeddings(TextResult):
    """The tokens of one text and a vector for each.

    With the `unit` "words" or "spans", the vectors are those of `spans`, which take the place of
    tokens, and `tokens` is empty. Words of which the model read nothing are left out.

    `embeddings` has shape (tokens, dimension), or (layers, tokens, dimension) if several layers
    were requested and not combined, and (0, 0) if the text failed. With `data_type`, arrays are
    those of `Embedding`, and int8 and uint8 vectors have `scales` of shape (tokens,) or
    (layers, tokens).
    """

    tokens: tuple[Token, ...]
    embeddings: NDArray[Any]
    truncation: TruncationReport | None
    error: TextError | None
    call: CallReport
    scales: FloatArray | None = None
    spans: tuple[EmbeddedSpan, ...] = ()

    def _shown(self) -> str:
        counts = f"num_spans={len(self.spans)}" if self.spans else f"num_tokens={len(self.tokens)}"
        return f"{counts}, shape={self.embeddings.shape}"


@dataclass(frozen=True, slots=True)
class MaskCandidate:
    """A token that may stand in place of a mask, and its probability between 0 and 1."""

    id: int
    text: str
    probability: float


@dataclass(frozen=True, slots=True)
class MaskFilling:
    """A token for each mask of a text; the probability of each is that after the earlier ones."""

    tokens: tuple[MaskCandidate, ...]
    log_probability: float


@dataclass(frozen=True, slots=True)
class MaskFill:
    """One "[MASK]", at characters `start` to `end` of the text, and its candidates, best first.

    With `joint`, there are no candidates.
    """

    start: int
    end: int
    candidates: tuple[MaskCandidate, ...]


@dataclass(frozen=True, slots=True, repr=False)
class FilledText(TextResult):
    """The masks of one text, in order, or an error and no masks.

    With `joint`, `fillings` has the likeliest tokens of all masks together, best first.
    """

    masks: tuple[MaskFill, ...]
    truncation: TruncationReport | None
    error: TextError | None
    call: CallReport
    fillings: tuple[MaskFilling, ...] = ()

    def _shown(self) -> str:
        if self.fillings:
            return f"best={[token.text for token in self.fillings[0].tokens]}"
        best = (mask.candidates[0].text for mask in self.masks if mask.candidates)
        return f"best={list(best)}"


@dataclass(frozen=True, slots=True)
class LabelScore:
    """A label of a text and its score."""

    label: str
    score: float


@dataclass(frozen=True, slots=True, repr=False)
class ClassifiedText(TextResult):
    """The labels of one text or pair, highest score first, or an error and no labels."""

    labels: tuple[LabelScore, ...]
    truncation: TruncationReport | None
    error: TextError | None
    call: CallReport

    @property
    def score(self) -> float:
        """The highest score. Raises the text's error if it has one."""
        return self.raise_for_errors().labels[0].score

    def _shown(self) -> str:
        return f"label={self.labels[0].label!r}, score={self.score:.4f}"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SparseEmbedding(TextResult):
    """The tokens of the vocabulary that have a weight in one text, in ascending order of their ids.

    `token_ids` and `weights` have the same length, 0 if the text failed; so has `tokens` with
    `return_tokens`, and is empty otherwise.
    """

    token_ids: IntArray
    weights: FloatArray
    tokens: tuple[str, ...]
    num_tokens: int
    truncation: TruncationReport | None
    error: TextError | None
    call: CallReport

    def _shown(self) -> str:
        return f"num_weights={len(self.weights)}"
