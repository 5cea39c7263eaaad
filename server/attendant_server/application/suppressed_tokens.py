"""The tokens that no hypothesis of a call may contain, by ids and by texts."""

from collections.abc import Iterator

from attendant_server.application.catalog import ServedModel
from attendant_server.application.decoding_options import DecodingOptions
from attendant_server.application.jobs import JobRunner
from attendant_server.errors import InvalidRequest

IDS, TEXTS, MAX_SUPPRESSED = "options.suppressed_token_ids", "options.suppressed_texts", 256


async def suppressed_tokens(
    jobs: JobRunner,
    model: ServedModel,
    options: DecodingOptions,
    allows_unknown: bool | None = None,
) -> tuple[int, ...]:
    """The ids of the tokens that the model or a call suppresses; raises InvalidRequest.

    ``allows_unknown``: whether the unknown token may come; None for the default of the model. The
    first text of a call makes the model's list of the texts of tokens, on a thread.
    """
    found = dict.fromkeys(model.description.suppressed_token_ids)
    for field, values in ((IDS, options.suppressed_token_ids), (TEXTS, options.suppressed_texts)):
        if len(values) > MAX_SUPPRESSED:
            raise InvalidRequest(field, f"at most {MAX_SUPPRESSED}, got {len(values)}")
    for number, token_id in enumerate(options.suppressed_token_ids):
        if token_id >= model.target_tokenizer.vocab_size:
            raise InvalidRequest(f"{IDS}[{number}]", f"{model.description.key} has no such token")
        found[token_id] = None
    if options.suppressed_texts:
        found |= dict.fromkeys(await jobs.run(lambda: list(_of_texts(model, options))))
    unknown = model.target_tokenizer.unk_id
    if allows_unknown is not None and unknown is not None:
        found.pop(unknown, None)
        if not allows_unknown:
            found[unknown] = None
    return tuple(found)


def _of_texts(model: ServedModel, options: DecodingOptions) -> Iterator[int]:
    for number, text in enumerate(options.suppressed_texts):
        token_ids = model.target_tokenizer.tokens_of(text)
        if not token_ids:
            raise InvalidRequest(
                f"{TEXTS}[{number}]", f"{model.description.key} has no token with this text"
            )
        yield from token_ids
