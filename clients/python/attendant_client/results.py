"""The results of translation and tokenization, and the parts of all results.

Fields are named as in the contract. This module knows neither protobuf nor gRPC.
"""

from dataclasses import dataclass
from typing import Self, TypeVar

from attendant_client.errors import TextError

MAX_SHOWN_CHARACTERS = 60
"""Characters of a text that the representation of a result shows."""


@dataclass(frozen=True, slots=True)
class CallReport:
    """The server's report on a whole call; all results of the call share it.

    Times are in seconds, measured by the server; None for a phase that the call does not have.
    `request_id` is the id of the call in the server's log, `seed` that of samples.
    """

    model: str
    num_input_tokens: int
    num_output_tokens: int
    queue_seconds: float | None
    tokenize_seconds: float | None
    encode_seconds: float | None
    decode_seconds: float | None
    request_id: str = ""
    seed: int | None = None


class TextResult:
    """What the results of all methods that take texts have: an `error`, None for success."""

    __slots__ = ()
    error: TextError | None

    def raise_for_errors(self) -> Self:
        """Return this result; raise the text's TextError if it has one."""
        if self.error is not None:
            raise self.error
        return self

    def __repr__(self) -> str:
        """The essentials in one line; `dataclasses.asdict` gives everything."""
        shown = self._shown() if self.error is None else f"error={shortened(self.error.message)}"
        return f"{type(self).__name__}({shown})"

    def _shown(self) -> str:
        raise NotImplementedError


Result = TypeVar("Result", bound=TextResult)


class Results(list[Result]):
    """The results of several texts, in the order of the texts; a failed text has an `error`."""

    @property
    def errors(self) -> list[TextError]:
        """The errors of the texts that failed."""
        return [result.error for result in self if result.error is not None]

    def raise_for_errors(self) -> Self:
        """Return these results; raise the first text's TextError if a text failed."""
        for error in self.errors:
            raise error
        return self


def shortened(text: str) -> str:
    """The representation of a text, cut after some characters."""
    is_short = len(text) <= MAX_SHOWN_CHARACTERS
    return repr(text if is_short else f"{text[: MAX_SHOWN_CHARACTERS - 1]}…")


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
class SentencePair:
    """A part of a text that was translated alone, and the place of its translation.

    `source_start` and `source_end` (exclusive) count the characters of the text, `target_start` and
    `target_end` those of the hypothesis.
    """

    source_start: int
    source_end: int
    target_start: int
    target_end: int


@dataclass(frozen=True, slots=True)
class WordAlignment:
    """A word of a translation and the word of the text that it comes from.

    `source_start` and `source_end` (exclusive) count the characters of the text, `target_start` and
    `target_end` those of the translation. `weight` is the part of the model's attention, 0 to 1.
    """

    source_start: int
    source_end: int
    target_start: int
    target_end: int
    weight: float


@dataclass(frozen=True, slots=True)
class GlossaryTerm:
    """A term of the glossary in the text, and its translation.

    Places are offsets in the text and in the translation. `source` and `target` are the terms as
    the glossary has them; `target` is empty if the translation had no room for the term.
    """

    source_start: int
    source_end: int
    target_start: int
    target_end: int
    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One translation that the search found.

    `score` is the sum of the tokens' log-probabilities divided by their number to the power of the
    length penalty. `finish_reason` is "stop", "length" when the translation may be cut off, or
    "repetition" when it began to repeat itself.
    `tokens` is empty unless the call had `return_tokens`, `sentences` unless it had
    `return_sentences`, `alignments` unless it had `return_alignments`, `glossary_terms` unless it
    had a glossary. `num_replaced_tokens` unknown tokens were replaced by text of the source, with
    `replace_unknown`. `num_avoided_repetitions` times, the model began to repeat itself and was
    made to go on with another token.
    """

    text: str
    score: float
    tokens: tuple[OutputToken, ...]
    finish_reason: str
    sentences: tuple[SentencePair, ...] = ()
    alignments: tuple[WordAlignment, ...] = ()
    glossary_terms: tuple[GlossaryTerm, ...] = ()
    num_replaced_tokens: int = 0
    num_avoided_repetitions: int = 0

    def __repr__(self) -> str:
        """The essentials in one line."""
        return f"Hypothesis({shortened(self.text)}, score={self.score:.4f})"


@dataclass(frozen=True, slots=True, repr=False)
class Translation(TextResult):
    """The result for one text: hypotheses, best first, or an error and no hypotheses.

    `num_unknown_tokens` is how many source tokens stand for text that the vocabulary lacks. `id` is
    the id of the text in a bulk call.
    """

    hypotheses: tuple[Hypothesis, ...]
    num_source_tokens: int
    num_unknown_tokens: int
    truncation: TruncationReport | None
    error: TextError | None
    call: CallReport
    id: str = ""

    @property
    def text(self) -> str:
        """The best translation. Raises the text's error if it has one."""
        return self.raise_for_errors().hypotheses[0].text

    def _shown(self) -> str:
        return f"{shortened(self.text)}, score={self.hypotheses[0].score:.4f}"


@dataclass(frozen=True, slots=True, repr=False)
class TranslationScore(TextResult):
    """The log-probability that the model assigns to a given translation.

    `log_probability` is the natural logarithm of the target's probability; `score` is it divided
    by the number of the target's tokens to the power of the length penalty. Both are NaN if the
    pair failed. `tokens`, and `log_probabilities` with one number for each of them, are empty
    unless the call had `return_tokens`, and `alignments` unless it had `return_alignments`.
    """

    score: float
    log_probability: float
    log_probabilities: tuple[float, ...]
    tokens: tuple[Token, ...]
    num_source_tokens: int
    truncation: TruncationReport | None
    error: TextError | None
    call: CallReport
    alignments: tuple[WordAlignment, ...] = ()

    def _shown(self) -> str:
        return f"score={self.score:.4f}"


@dataclass(frozen=True, slots=True, repr=False)
class Tokenization(TextResult):
    """The tokens that `model` would read for one text, special tokens included."""

    tokens: tuple[Token, ...]
    error: TextError | None
    model: str

    def _shown(self) -> str:
        return shortened(" ".join(token.text for token in self.tokens))
