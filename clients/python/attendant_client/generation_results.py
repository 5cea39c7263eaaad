"""The results of language models; named as in the contract.

This module knows neither protobuf nor gRPC.
"""

import math
from dataclasses import dataclass

from attendant_client.errors import TextError
from attendant_client.results import (
    CallReport,
    OutputToken,
    TextResult,
    Token,
    TruncationReport,
    shortened,
)


@dataclass(frozen=True, slots=True)
class GeneratedText:
    """One continuation of a prompt, without the prompt.

    `score` is the sum of the tokens' log-probabilities divided by their number to the power of the
    length penalty. `finish_reason` is "stop" if the model ended the text or wrote `stop_text`, a
    stop text of the call, before which the text ends; "length" if it may be cut off; "repetition"
    if it began to repeat itself. `tokens` is empty unless the call had `return_tokens`; with a stop
    text, the last one completes it. `num_avoided_repetitions` times, the model began to repeat
    itself and was made to go on with another token.
    """

    text: str
    score: float
    tokens: tuple[OutputToken, ...]
    finish_reason: str
    stop_text: str = ""
    num_avoided_repetitions: int = 0

    def __repr__(self) -> str:
        """The essentials in one line."""
        return f"GeneratedText({shortened(self.text)}, score={self.score:.4f})"


@dataclass(frozen=True, slots=True, repr=False)
class Generation(TextResult):
    """The result for one prompt: continuations, best first, or an error and none.

    `num_prompt_tokens` is how many tokens of the prompt the model has read.
    """

    hypotheses: tuple[GeneratedText, ...]
    num_prompt_tokens: int
    truncation: TruncationReport | None
    error: TextError | None
    call: CallReport

    @property
    def text(self) -> str:
        """The best continuation. Raises the prompt's error if it has one."""
        return self.raise_for_errors().hypotheses[0].text

    def _shown(self) -> str:
        return f"{shortened(self.text)}, score={self.hypotheses[0].score:.4f}"


@dataclass(frozen=True, slots=True, repr=False)
class TextScore(TextResult):
    """The log-probability that a language model assigns to a text, NaN if the text failed.

    `num_scored_tokens` tokens count: without a start token, the first token of a text does not.
    `tokens`, and `log_probabilities` with one number for each of them, are empty unless the call
    had `return_tokens`.
    """

    log_probability: float
    num_scored_tokens: int
    log_probabilities: tuple[float, ...]
    tokens: tuple[Token, ...]
    error: TextError | None
    call: CallReport

    @property
    def perplexity(self) -> float:
        """The inverse of the geometric mean of the tokens' probabilities; NaN without any."""
        if not self.num_scored_tokens:
            return math.nan
        return math.exp(-self.log_probability / self.num_scored_tokens)

    def _shown(self) -> str:
        return f"log_probability={self.log_probability:.4f}"
