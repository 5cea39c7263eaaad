"""The values that describe models and their limits; named as in the contract."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The short description of a model.

    `kind` is "translation", "embedding" or "language_model", `state` "loading" or "ready".
    Languages are BCP 47 tags: `source_languages` and `target_languages` of a translation model,
    `languages` of an embedding one. `source_language` and `target_language` are empty if there are
    several. `is_default` says whether calls get this version by the name of the model alone,
    `is_default_of_kind` whether calls get it that name neither a model nor languages.
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
    is_default_of_kind: bool = False


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
class Control:
    """A property of translations that `translate` can choose, such as their formality.

    `description` may be empty. `default_value` is empty if a call that does not set the control
    leaves the choice to the model.
    """

    name: str
    description: str
    values: tuple[str, ...]
    default_value: str


@dataclass(frozen=True, slots=True)
class Model:
    """Everything that the server knows about a model.

    `default_pooling` is empty for a translation model. `additional_poolings` are poolings besides
    mean, cls and max. `trained_dimensions` are dimensions for which the model was trained, besides
    that of its vectors, and `default_dimensions` is that of calls that choose none, None for all of
    them. `default_prompt` is the name of the prompt that `embed` applies. `labels`
    are those of `classify`, and `score_function` is "identity", "sigmoid" or "softmax"; both are
    empty for a model without a classification head. `default_max_active_dims` is that of
    `embed_sparse`, None for no limit. `max_query_tokens` is the limit of `embed_tokens` for
    queries, None for a model without roles of texts; `expands_queries` says whether queries are
    filled up to it. `aligns_words` says whether `translate` can return alignments and read markup,
    `has_attention` whether `attention` works. `glossaries` are names for the `glossary` of
    `translate`, those of the model's own glossaries.
    `sizes`, `provenance` and `parity` have the fields of the messages of the same
    names in the contract.
    """

    info: ModelInfo
    available_precisions: tuple[str, ...]
    limits: Limits
    request_limits: RequestLimits
    sizes: Mapping[str, int]
    default_pooling: str
    default_normalize: bool
    additional_poolings: tuple[str, ...]
    trained_dimensions: tuple[int, ...]
    default_dimensions: int | None
    prompts: Mapping[str, str]
    default_prompt: str
    labels: tuple[str, ...]
    score_function: str
    default_max_active_dims: int | None
    max_query_tokens: int | None
    expands_queries: bool
    aligns_words: bool
    has_attention: bool
    license: str
    credits: tuple[str, ...]
    provenance: Mapping[str, object]
    quality: tuple[QualityFigure, ...]
    parity: Mapping[str, object]
    controls: tuple[Control, ...] = ()
    glossaries: tuple[str, ...] = ()
