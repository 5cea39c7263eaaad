"""The values that the clients return.

Fields are named as in the contract. This module knows neither protobuf nor gRPC.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attendant_client.errors import TextError

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class CallReport:
    """The server's report on a whole call; all results of the call share it.

    Times are in seconds, measured by the server; None for a phase that the call does not have.
    """

    model: str
    num_input_tokens: int
    num_output_tokens: int
    queue_seconds: float | None
    tokenize_seconds: float | None
    encode_seconds: float | None
    decode_seconds: float | None


@dataclass(frozen=True, slots=True)
class TruncationReport:
    """Tokens of a text before and after truncation, and the truncated side ("right" or "left")."""

    num_original_tokens: int
    num_kept_tokens: int
    truncation: str


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a text that was sent.

    `start` and `end` count characters of the text, `end` exclusive. A `special` token was added by
    the model and stands for no part of the text.
    """

    id: int
    text: str
    start: int
    end: int
    special: bool


@dataclass(frozen=True, slots=True)
class OutputToken:
    """One generated token and the natural logarithm of its probability."""

    id: int
    text: str
    log_probability: float


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One translation that the search found.

    `score` is the sum of the tokens' log-probabilities divided by their number to the power of the
    length penalty. `finish_reason` is "stop", or "length" when the translation may be cut off.
    `tokens` is empty unless the call had `return_tokens`; a hypothesis has at least one token.
    """

    text: str
    score: float
    tokens: tuple[OutputToken, ...]
    finish_reason: str


@dataclass(frozen=True, slots=True)
class Translation:
    """The result for one text: hypotheses, best first, or an error and no hypotheses."""

    hypotheses: tuple[Hypothesis, ...]
    num_source_tokens: int
    truncation: TruncationReport | None
    error: TextError | None
    call: CallReport

    @property
    def text(self) -> str:
        """The best translation. Raises the text's error if it has one."""
        if self.error is not None:
            raise self.error
        return self.hypotheses[0].text


@dataclass(frozen=True, slots=True)
class TranslationScore:
    """The log-probability that the model assigns to a given translation.

    `log_probability` is the natural logarithm of the target's probability, and `score` is it
    divided by the number of the target's tokens to the power of the length penalty. `tokens`, and
    `log_probabilities` with one number for each of them, are empty unless the call had
    `return_tokens`.
    """

    score: float
    log_probability: float
    log_probabilities: tuple[float, ...]
    tokens: tuple[Token, ...]
    num_source_tokens: int
    truncation: TruncationReport | None
    error: TextError | None
    call: CallReport


@dataclass(frozen=True, slots=True)
class EmbedResult:
    """The result for one text of an `embed` call, except its vector."""

    num_tokens: int
    truncation: TruncationReport | None
    error: TextError | None


@dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """The vectors of an `embed` call with `errors="return"`.

    `vectors` has shape (texts, dimension); the row of a text that failed is all zero.
    """

    vectors: FloatArray
    results: tuple[EmbedResult, ...]
    call: CallReport


@dataclass(frozen=True, slots=True, eq=False)
class TokenEmbeddings:
    """The tokens of one text and a vector for each.

    `embeddings` has shape (tokens, dimension), or (layers, tokens, dimension) if several layers
    were requested, and (0, 0) if the text failed.
    """

    tokens: tuple[Token, ...]
    embeddings: FloatArray
    truncation: TruncationReport | None
    error: TextError | None
    call: CallReport


@dataclass(frozen=True, slots=True)
class MaskCandidate:
    """A token that may stand in place of a mask, and its probability between 0 and 1."""

    id: int
    text: str
    probability: float


@dataclass(frozen=True, slots=True)
class MaskFill:
    """One "[MASK]", at characters `start` to `end` of the text, and its candidates, best first."""

    start: int
    end: int
    candidates: tuple[MaskCandidate, ...]


@dataclass(frozen=True, slots=True)
class FilledText:
    """The masks of one text, in order, or an error and no masks."""

    masks: tuple[MaskFill, ...]
    truncation: TruncationReport | None
    error: TextError | None
    call: CallReport


@dataclass(frozen=True, slots=True)
class LabelScore:
    """A label of a text and its score."""

    label: str
    score: float


@dataclass(frozen=True, slots=True)
class ClassifiedText:
    """The labels of one text or pair, highest score first, or an error and no labels."""

    labels: tuple[LabelScore, ...]
    truncation: TruncationReport | None
    error: TextError | None
    call: CallReport

    @property
    def score(self) -> float:
        """The highest score. Raises the text's error if it has one."""
        if self.error is not None:
            raise self.error
        return self.labels[0].score


@dataclass(frozen=True, slots=True, eq=False)
class SparseEmbedding:
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


@dataclass(frozen=True, slots=True)
class Tokenization:
    """The tokens that `model` would read for one text, special tokens included."""

    tokens: tuple[Token, ...]
    error: TextError | None
    model: str


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The short description of a model.

    `kind` is "translation" or "embedding", `state` "loading" or "ready". Languages are BCP 47 tags:
    `source_languages` and `target_languages` of a translation model, `languages` of an embedding
    one. `source_language` and `target_language` are empty if there are several.
    """

    name: str
    version: str
    kind: str
    state: str
    is_default: bool
    source_language: str
    target_language: str
    languages: tuple[str, ...]
    precision: str
    description: str
    source_languages: tuple[str, ...] = ()
    target_languages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """The token limits of a model, special tokens included; 0 if a limit does not apply."""

    max_source_tokens: int
    max_target_tokens: int
    max_tokens: int


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """The server's limits of a call to the model; 0 if a limit does not apply."""

    max_texts: int
    max_text_characters: int
    max_beam_size: int
    max_top_k: int


@dataclass(frozen=True, slots=True)
class QualityFigure:
    """One measured figure of a bundle."""

    metric: str
    dataset: str
    precision: str
    search: str
    value: float


@dataclass(frozen=True, slots=True)
class Model:
    """Everything that the server knows about a model.

    `default_pooling` is empty for a translation model. `additional_poolings` are poolings besides
    mean, cls and max. `default_prompt` is the name of the prompt that `embed` applies. `labels` are
    those of `classify`, and `score_function` is "identity", "sigmoid" or "softmax"; both are empty
    for a model without a classification head. `default_max_active_dims` is that of `embed_sparse`,
    None for no limit. `max_query_tokens` is the limit of `embed_tokens` for queries, None for a
    model without roles of texts; `expands_queries` says whether queries are filled up to it.
    `sizes`, `provenance` and `parity` have the fields of the messages of the same names in the
    contract.
    """

    info: ModelInfo
    available_precisions: tuple[str, ...]
    limits: Limits
    request_limits: RequestLimits
    sizes: Mapping[str, int]
    default_pooling: str
    default_normalize: bool
    additional_poolings: tuple[str, ...]
    prompts: Mapping[str, str]
    default_prompt: str
    labels: tuple[str, ...]
    score_function: str
    default_max_active_dims: int | None
    max_query_tokens: int | None
    expands_queries: bool
    license: str
    credits: tuple[str, ...]
    provenance: Mapping[str, object]
    quality: tuple[QualityFigure, ...]
    parity: Mapping[str, object]
