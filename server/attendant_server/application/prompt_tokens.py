"""How language models read texts: the start token before them, and special tokens in them."""

from attendant_server.application.catalog import ServedModel
from attendant_server.application.tokenization_options import (
    TokenizationOptions,
    Truncation,
)
from attendant_server.application.validation import RequestLimits, known_value


def prompt_tokenization(
    model: ServedModel,
    limits: RequestLimits,
    max_tokens: int,
    reads_special_tokens: bool,
    truncation: int = 0,
) -> TokenizationOptions:
    """The tokenization of prompts of at most ``max_tokens``; raises InvalidRequest.

    A prompt may be empty if the model has a start token. ``truncation`` is a number of
    `Truncation`, 0 for the default.
    """
    tokenizer = model.special_tokenizer if reads_special_tokens else model.source_tokenizer
    assert tokenizer is not None, "language models have both"
    start = model.description.start_token_id
    return TokenizationOptions(
        tokenizer,
        max_tokens,
        limits.max_text_characters,
        known_value("truncation", truncation, Truncation.REFUSE),
        before=() if start is None else tokenizer.special_tokens([start]),
        allows_empty=start is not None,
    )
