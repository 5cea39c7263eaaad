"""The options of tokenization: limits, truncation, normalization, tokens around each text."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from attendant_server.application.validation import known_value
from attendant_server.tokenized_text import Token
from attendant_server.tokenizer import TextTokenizer


class CountedTokens(Protocol):
    """The tokens of a text, in whatever form."""

    @property
    def num_original_tokens(self) -> int:
        """Number of tokens before truncation."""

    def __len__(self) -> int:
        """Number of tokens that the model reads."""


class Truncation(IntEnum):
    """The treatment of texts with too many tokens; numbered as in the contract."""

    REFUSE = 1
    RIGHT = 2
    """Tokens are dropped at the end."""
    LEFT = 3
    """Tokens are dropped at the beginning."""


@dataclass(frozen=True, slots=True)
class TruncationReport:
    """The number of tokens before and after truncation."""

    num_original_tokens: int
    num_kept_tokens: int
    truncation: Truncation


@dataclass(frozen=True, slots=True)
class TextPair:
    """Two texts that the model reads together."""

    first: str
    second: str

    def __len__(self) -> int:
        """Number of characters."""
        return len(self.first) + len(self.second)


@dataclass(frozen=True, slots=True)
class TokenizationOptions:
    """Tokenization options of a call's texts."""

    tokenizer: TextTokenizer
    max_tokens: int | None
    """Maximum tokens of one text, including special tokens. If None, there is no limit, and empty
    texts are allowed."""
    max_characters: int
    """Maximum characters of one text, or of each text of a pair, without a prompt."""
    truncation: Truncation = Truncation.REFUSE
    max_total_tokens: int | None = None
    """Maximum tokens of the whole call."""
    before: Sequence[Token] = ()
    """Tokens put before every text."""
    before_text: Sequence[Token] = ()
    """Tokens put between those and every text, and after the code that a text begins with."""
    after: Sequence[Token] = ()
    """Tokens put after every text."""
    text_codes: Collection[int] = ()
    """Tokens of languages with which a text may begin. It must, unless ``before`` ends with one."""
    filler: Token | None = None
    """Token put after every text up to ``max_tokens``."""
    prompt_length: int = 0
    """Number of first characters of every text that are a prompt. Truncation keeps the prompt, and
    a prompt alone is no text."""
    normalizes: bool = False
    """Whether texts are normalized."""
    allows_empty: bool = False
    """Whether a text may have no tokens besides those around it."""
    second_field: str = "text_pairs[{}]"
    """The name of the second text of a pair, for messages; ``{}`` stands for its number."""

    def report(self, text: CountedTokens) -> TruncationReport | None:
        """The truncation of a text; None when no tokens were dropped."""
        if len(text) == text.num_original_tokens:
            return None
        return TruncationReport(text.num_original_tokens, len(text), self.truncation)


class TextNormalization(IntEnum):
    """The normalization of texts before tokenization; numbered as in the contract."""

    NONE = 1
    STANDARD = 2


def normalizes(tokenizer: TextTokenizer, text_normalization: int) -> bool:
    """Whether a call normalizes its texts; raises InvalidRequest.

    ``text_normalization`` is a number of `TextNormalization`, 0 for the default of the model.
    """
    default = TextNormalization.STANDARD if tokenizer.normalizes else TextNormalization.NONE
    chosen = known_value("text_normalization", text_normalization, default)
    return chosen is TextNormalization.STANDARD


def tokenization_options(
    tokenizer: TextTokenizer,
    max_tokens: int,
    max_characters: int,
    truncation: int,
    text_normalization: int,
    before: Sequence[Token] = (),
    after: Sequence[Token] = (),
    prompt_length: int = 0,
    text_codes: Collection[int] = (),
    before_text: Sequence[Token] = (),
) -> TokenizationOptions:
    """The options of texts with a limit; raises InvalidRequest.

    ``truncation`` is a number of `Truncation`, 0 for the default; ``text_normalization`` one of
    `TextNormalization`.
    """
    return TokenizationOptions(
        tokenizer,
        max_tokens,
        max_characters,
        known_value("truncation", truncation, Truncation.REFUSE),
        normalizes=normalizes(tokenizer, text_normalization),
        before=before,
        before_text=before_text,
        after=after,
        prompt_length=prompt_length,
        text_codes=text_codes,
    )
