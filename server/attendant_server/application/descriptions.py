"""The description of a model, independent of the format of its bundle."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import Any


class ModelKind(IntEnum):
    """The task of a model; numbered as in the contract."""

    TRANSLATION = 1
    EMBEDDING = 2
    LANGUAGE_MODEL = 3

    @property
    def label(self) -> str:
        """The kind in metrics: ``translation``, ``embedding`` or ``language_model``."""
        return self.name.lower()

    @property
    def noun(self) -> str:
        """A model of the kind in messages, such as ``translation model``."""
        return f"{self.label.removesuffix('_model')} model"

    @property
    def decodes(self) -> bool:
        """Whether models of the kind decode tokens, one after the other, with caches."""
        return self is not ModelKind.EMBEDDING


class Pooling(IntEnum):
    """Poolings of a text's token vectors into one vector; numbered as in the contract."""

    MEAN = 1
    CLS = 2
    MAX = 3
    LAST = 4
    WEIGHTED_MEAN = 5
    MEAN_SQRT_LENGTH = 6


class Splitting(IntEnum):
    """The parts of a text that are translated independently; numbered as in the contract."""

    NONE = 1
    LINES = 2
    SENTENCES = 3


class ScoreFunction(IntEnum):
    """Functions of the scores of labels; numbered as in the contract."""

    IDENTITY = 1
    SIGMOID = 2
    SOFTMAX = 3


COMMON_POOLINGS = (Pooling.MEAN, Pooling.CLS, Pooling.MAX)
"""The poolings of every embedding model."""


@dataclass(frozen=True, slots=True)
class Language:
    """A language of a translation model, with the ids of the tokens that select it."""

    tag: str
    """BCP 47 tag."""
    source_prefix_ids: Sequence[int] = ()
    """Tokens before a source: in this language, or to be translated into it."""
    source_suffix_ids: Sequence[int] = ()
    """Tokens after a source, by the same rule."""
    forced_target_ids: Sequence[int] = ()
    """Tokens that every target in this language begins with."""

    @property
    def has_tokens(self) -> bool:
        """Whether the model has to know the language."""
        return bool(self.source_prefix_ids or self.source_suffix_ids or self.forced_target_ids)

    @property
    def is_code(self) -> bool:
        """Whether one token before a source is all that selects the language."""
        return len(self.source_prefix_ids) == 1 and not (
            self.source_suffix_ids or self.forced_target_ids
        )


@dataclass(frozen=True, slots=True)
class ControlValue:
    """A value of a control, with the ids of the tokens that select it, as in `Language`."""

    name: str
    source_prefix_ids: Sequence[int] = ()
    source_suffix_ids: Sequence[int] = ()
    forced_target_ids: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Control:
    """A property of translations that requests can choose, such as their formality."""

    name: str
    description: str
    """One sentence, or ""."""
    values: Mapping[str, ControlValue]
    """The values by name."""
    default_value: str = ""
    """The value of a request that chooses none. Empty for no tokens of the control."""


@dataclass(frozen=True, slots=True)
class LateInteraction:
    """How a model of late interaction reads queries and documents."""

    max_query_tokens: int
    """Maximum number of tokens of a query, special tokens included."""
    expands_queries: bool
    """Whether mask tokens are put after queries up to that number."""
    has_unattended_tokens: bool
    """Whether these mask tokens are not attended to."""
    skipped_token_ids: Collection[int]
    """Ids of tokens whose vectors are left out of documents."""


@dataclass(frozen=True, kw_only=True)
class ModelDescription:
    """The description of one model. Fields that do not apply to its kind have their defaults."""

    name: str
    version: str
    kind: ModelKind
    precision: str
    """The precision that the server runs."""
    available_precisions: Sequence[str] = ()
    description: str = ""
    """One sentence that describes the model."""
    source_languages: Sequence[Language] = ()
    """The languages that a translation model reads."""
    target_languages: Sequence[Language] = ()
    """The languages that a translation model writes."""
    controls: Sequence[Control] = ()
    """The controls of a translation model, in the order of their tokens."""
    languages: Sequence[str] = ()
    """The languages of an embedding model."""
    max_source_tokens: int = 0
    max_target_tokens: int = 0
    default_beam_size: int = 1
    default_length_penalty: float = 1.0
    early_stopping: bool = False
    """Whether a beam search ends as soon as as many hypotheses as its beam size have finished."""
    no_repeat_ngram_size: int = 0
    """Size of the n-grams that must not repeat within a translation. 0 for no such rule."""
    repetition_penalty: float = 1.0
    """Penalty of the tokens that a translation has already. 1 for none."""
    takes_repetition_penalties: bool = False
    """Whether the graphs of the model can apply penalties."""
    default_min_output_tokens: int = 0
    """The least number of tokens before the end token. It may exceed the limit of a request."""
    suppressed_token_ids: Sequence[int] = ()
    """Ids of tokens that the model never generates."""
    forced_token_ids: Sequence[int] = ()
    """Ids of tokens that every target begins with, in all languages."""
    max_tokens: int = 0
    """Maximum number of tokens of a text to embed, or of a prompt and its continuation."""
    d_model: int = 0
    """Width of the hidden states."""
    text_dimension: int = 0
    """Dimension of the vector of a text."""
    token_dimension: int = 0
    """Dimension of the vector of a token for late interaction. 0 without such vectors."""
    sparse_dimension: int = 0
    """Dimension of the sparse vector of a text. 0 without such vectors."""
    default_max_active_dims: int = 0
    """Tokens with a weight that a sparse vector keeps by default. 0 for all."""
    late_interaction: LateInteraction | None = None
    """The roles of texts of a model of late interaction."""
    num_layers: int = 0
    """Number of layers of an embedding model."""
    vocab_size: int = 0
    """Size of the vocabulary of an embedding model."""
    mask_id: int | None = None
    has_mask_head: bool = False
    """Whether the model can fill masks."""
    labels: Sequence[str] = ()
    """The labels of a model with a classification head."""
    score_function: ScoreFunction = ScoreFunction.IDENTITY
    """The function of the scores of labels."""
    default_pooling: Pooling = Pooling.MEAN
    default_normalize: bool = False
    additional_poolings: Sequence[Pooling] = ()
    """Poolings in addition to `COMMON_POOLINGS`."""
    trained_dimensions: Sequence[int] = ()
    """Numbers of first values of a vector for which the model was trained, ascending."""
    default_dimensions: int = 0
    """Number of first values of a vector of a request that states none. 0 for all."""
    prompts: Mapping[str, str] = field(default_factory=dict)
    """Texts to put before a text to embed, by name."""
    default_prompt: str = ""
    """Name of the prompt of a request that chooses none. Empty for no prompt."""
    excludes_prompt: bool = False
    """Whether poolings leave out the tokens of the prompt."""
    can_align: bool = False
    """Whether the bundle can align words."""
    has_attention: bool = False
    """Whether the bundle has a graph of attention weights."""
    glossaries: Sequence[str] = ()
    """Names of the glossaries of the bundle."""
    start_token_id: int | None = None
    """The token that the decoder reads before a target, or that begins every text of a language
    model; None for one that reads texts without such a token."""
    eos_id: int = 0
    """The end token of what the model decodes."""
    repetition_guard: bool = False
    """Whether translations that repeat themselves are ended unless a request says otherwise."""
    normalizes_texts: bool = False
    """Whether texts are normalized unless a request says otherwise."""
    published: dict[str, Any] = field(default_factory=dict)
    """Facts that the server passes on to callers, as JSON values by their names in the manifest:
    limits, sizes, licence, credits, provenance, quality, parity."""

    @cached_property
    def key(self) -> str:
        """The full name of the model: ``name/version``."""
        return f"{self.name}/{self.version}"

    @property
    def max_output_tokens(self) -> int:
        """The most tokens that the model decodes for any text; a prompt has at least one."""
        return self.max_target_tokens or self.max_tokens - 1

    @property
    def default_splitting(self) -> Splitting:
        """Sentences for a model that translates, none for one that rewrites texts of a language."""
        tags = {each.tag for each in (*self.source_languages, *self.target_languages)}
        return Splitting.NONE if len(tags) == 1 else Splitting.SENTENCES

    @cached_property
    def label_bytes(self) -> list[int]:
        """The sizes of the labels in UTF-8, largest first."""
        return sorted((len(label.encode()) for label in self.labels), reverse=True)
