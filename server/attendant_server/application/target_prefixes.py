"""Beginnings of translations that callers give: their tokens, and the texts that continue them."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from attendant_server import records
from attendant_server.application.jobs import JobRunner
from attendant_server.application.pieced_text import PiecedText, TargetPrefix
from attendant_server.application.tokenization import MAX_INLINE_CHARACTERS, num_tokens
from attendant_server.errors import InvalidRequest
from attendant_server.tokenizer import TextTokenizer, TokenizerError


class PrefixOptions(NamedTuple):
    """How the prefixes of a call are read."""

    tokenizer: TextTokenizer
    field: str
    """The name of a prefix for messages; ``{}`` in it stands for its number."""
    normalizes: bool
    max_characters: int
    max_output_tokens: int
    forced_token_ids: tuple[int, ...]
    """Tokens that come before the prefix."""
    are_forced: bool = True
    """Whether all hypotheses begin with the prefixes."""


async def with_prefixes(
    jobs: JobRunner,
    options: PrefixOptions,
    texts: Sequence[PiecedText | InvalidRequest],
    prefixes: Sequence[str],
) -> list[PiecedText | InvalidRequest]:
    """The texts with their prefixes, or the faults of these."""
    run = partial(_with_prefixes, options, texts, prefixes)
    is_short = sum(map(len, prefixes)) <= MAX_INLINE_CHARACTERS
    found = run() if is_short else await jobs.run(run)
    record = records.current()
    record.num_invalid_texts += sum(isinstance(each, InvalidRequest) for each in found)
    record.num_invalid_texts -= sum(isinstance(each, InvalidRequest) for each in texts)
    record.num_input_tokens = num_tokens(found)
    return found


def _with_prefixes(
    options: PrefixOptions, texts: Sequence[PiecedText | InvalidRequest], prefixes: Sequence[str]
) -> list[PiecedText | InvalidRequest]:
    return [
        text
        if isinstance(text, InvalidRequest) or not prefix.strip()
        else _with_prefix(options, text, prefix.strip(), number)
        for number, (text, prefix) in enumerate(zip(texts, prefixes, strict=True))
    ]


def _with_prefix(
    options: PrefixOptions, text: PiecedText, prefix: str, number: int
) -> PiecedText | InvalidRequest:
    try:
        return replace(text, prefix=_read(options, prefix, number))
    except InvalidRequest as fault:
        return fault


def _read(options: PrefixOptions, text: str, number: int) -> TargetPrefix:
    """The prefix; raises InvalidRequest."""
    tokenizer, field = options.tokenizer, options.field.format(number)
    if len(text) > options.max_characters:
        problem = f"at most {options.max_characters} characters, got {len(text)}"
        raise InvalidRequest(field, problem)
    try:
        token_ids = tokenizer.plain_ids(text, options.normalizes)
    except TokenizerError:
        raise InvalidRequest(field, "cannot be tokenized") from None
    if not token_ids or tokenizer.num_unknown(token_ids):
        raise InvalidRequest(field, "has text that the vocabulary of the model lacks")
    room = options.max_output_tokens - len(options.forced_token_ids) - 1
    if len(token_ids) > room:
        raise InvalidRequest(
            field, f"at most {room} tokens, one less than a translation, got {len(token_ids)}"
        )
    num_forced = len(options.forced_token_ids) + len(token_ids)
    decoded = tokenizer.decode((*options.forced_token_ids, *token_ids))
    return TargetPrefix(text, token_ids, num_forced, decoded, options.are_forced)
