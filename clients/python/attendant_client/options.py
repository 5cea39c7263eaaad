"""The options of the clients' methods, as keyword arguments with types.

What an option does is said once, here; what is sent for it is the business of `messages`.
"""

from typing import Literal, TypedDict

Truncation = Literal["refuse", "right", "left"]
Pooling = Literal["mean", "cls", "max"]
Side = Literal["source", "target"]
Errors = Literal["raise", "return"]


class SearchOptions(TypedDict, total=False):
    """How translations are searched for; an absent option takes the server's default.

    `beam_size`: hypotheses kept at every step, 1 (greedy) if absent.
    `num_hypotheses`: hypotheses returned, at most `beam_size`; 1 if absent.
    `length_penalty`: exponent of the length that divides the score, 0 to 10; 1.0 if absent.
    `max_output_tokens`: the most tokens of a translation; if absent, three times those of the text
    and 16 more, or the model's limit if that is less.
    `min_output_tokens`: tokens before a translation may end; 0 if absent.
    """

    beam_size: int | None
    num_hypotheses: int | None
    length_penalty: float | None
    max_output_tokens: int | None
    min_output_tokens: int | None


class StreamOptions(SearchOptions, total=False):
    """Options of `stream_translate`: those of the search, the model, and truncation.

    `model`: "name" or "name/version"; empty for the default one.
    `truncation`: what happens to a text that is too long: "refuse" (default), or cut tokens at its
    end ("right") or its beginning ("left").
    """

    model: str
    truncation: Truncation


class TranslateOptions(StreamOptions, total=False):
    """Options of `translate`: those of `stream_translate`, and what happens to errors of texts.

    `errors`: "raise" (default) raises the first text's TextError; "return" puts every error into
    the result of its text.
    """

    errors: Errors


class TextOptions(TypedDict, total=False):
    """Options of the calls that take texts: `model`, `truncation`, `errors` as for `translate`."""

    model: str
    truncation: Truncation
    errors: Errors


class TokenizeOptions(TypedDict, total=False):
    """Options of `tokenize`.

    `side`: whether texts are read as a "source" (default) or as a "target" of a translation model.
    `model` and `errors`: as for `translate`.
    """

    model: str
    side: Side
    errors: Errors


class EmbedOptions(TypedDict, total=False):
    """Options of `embed`.

    `pooling`: "mean", "cls" or "max"; the bundle's choice if absent.
    `normalize`: whether vectors get length 1; the bundle's choice if absent.
    `model` and `truncation`: as for `translate`.
    """

    model: str
    pooling: Pooling | None
    normalize: bool | None
    truncation: Truncation
