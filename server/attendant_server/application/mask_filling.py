"""Mask filling: the likeliest tokens for the masks of texts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from attendant_server import records
from attendant_server.application.answers import Answer
from attendant_server.application.catalog import Catalog, ServedModel
from attendant_server.application.descriptions import ModelKind
from attendant_server.application.jobs import JobRunner
from attendant_server.application.tokenization import (
    TokenizationOptions,
    TokenizedOrError,
    Truncation,
    TruncationReport,
    good,
    num_tokens,
    tokenize,
)
from attendant_server.application.validation import (
    TEXTS,
    TOKEN_BYTES,
    RequestLimits,
    check_range,
    known_value,
)
from attendant_server.engine.calls import FillMaskCall, MaskCandidates
from attendant_server.errors import InvalidRequest, ModelWithoutHead
from attendant_server.tokenizer import Token, TokenizedText

DEFAULT_TOP_K = 5


@dataclass(frozen=True, slots=True)
class MaskFillingRequest:
    """Texts with masks. ``truncation`` is a number of `Truncation`, 0 for the default."""

    texts: Sequence[str]
    model: str = ""
    top_k: int | None = None
    truncation: int = 0


@dataclass(frozen=True, slots=True)
class FilledMask:
    """The candidates for one mask, likeliest first."""

    start: int
    """Index of the mask's first character in its text."""
    end: int
    token_ids: Sequence[int]
    token_texts: Sequence[str]
    """The candidates as readable text."""
    probabilities: Sequence[float]


@dataclass(frozen=True, slots=True)
class FilledText:
    """The masks of one text, in text order."""

    masks: Sequence[FilledMask]
    truncation: TruncationReport | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskFillingAnswer(Answer):
    """The masks, or a fault, of each text, in the order of the request."""

    texts: Sequence[FilledText | InvalidRequest]


class MaskFiller:
    """Fills masks with all embedding models that have a masked-language-model head."""

    def __init__(self, catalog: Catalog, jobs: JobRunner, limits: RequestLimits) -> None:
        self._catalog, self._jobs, self._limits = catalog, jobs, limits

    async def fill(
        self, request: MaskFillingRequest, seconds_left: float | None
    ) -> MaskFillingAnswer:
        """The likeliest tokens for every mask.

        ``seconds_left`` is the time until the caller's deadline; None if there is no deadline.
        """
        model, top_k, mask_id, tokenization = self._prepare(request)
        deadline = self._limits.deadline(model.engine.clock(), seconds_left)

        tokenized = await tokenize(self._jobs, tokenization, TEXTS, request.texts)
        texts = [_with_mask(i, text, mask_id) for i, text in enumerate(tokenized)]
        record = records.current()
        record.num_invalid_texts = len(texts) - len(list(good(texts)))
        masks = [_mask_positions(text, mask_id) for text in good(texts)]
        num_candidates = sum(map(len, masks)) * top_k
        self._limits.check_response("texts", num_candidates * TOKEN_BYTES)
        call = FillMaskCall([text.token_ids for text in good(texts)], masks, top_k, deadline)
        results = await model.answer(call) if call.texts else []

        size = num_tokens(texts) + num_candidates
        filled = await self._jobs.run_for(
            size, lambda: _filled_texts(model, tokenization, request.texts, texts, results)
        )
        return MaskFillingAnswer(
            model=model.description.key,
            texts=filled,
            num_input_tokens=num_tokens(texts),
            phases=record.phases(),
            size=size,
        )

    def _prepare(
        self, request: MaskFillingRequest
    ) -> tuple[ServedModel, int, int, TokenizationOptions]:
        """The model, the checked ``top_k``, the mask token's id and the tokenization options."""
        self._limits.check_count("texts", len(request.texts))
        self._limits.check_characters(TEXTS, request.texts)
        model = self._catalog.serving(request.model, ModelKind.EMBEDDING)
        wanted = DEFAULT_TOP_K if request.top_k is None else request.top_k
        check_range("top_k", wanted, 1, self._limits.max_top_k)
        mask_id = _mask_id(model)
        tokenization = TokenizationOptions(
            model.mask_tokenizer,
            model.description.max_tokens,
            known_value("truncation", request.truncation, Truncation.REFUSE),
        )
        return model, min(wanted, model.description.vocab_size), mask_id, tokenization


def _mask_id(model: ServedModel) -> int:
    description = model.description
    if not description.has_mask_head or description.mask_id is None:
        raise ModelWithoutHead(f"{description.key} has no masked-language-model head")
    return description.mask_id


def _mask_positions(text: TokenizedText, mask_id: int) -> list[int]:
    return [i for i, token_id in enumerate(text.token_ids) if token_id == mask_id]


def _with_mask(index: int, text: TokenizedOrError, mask_id: int) -> TokenizedOrError:
    if isinstance(text, InvalidRequest) or mask_id in text.token_ids:
        return text
    was_cut = len(text) < text.num_original_tokens
    return InvalidRequest(TEXTS.format(index), "has no mask left" if was_cut else "has no mask")


def _filled_texts(
    model: ServedModel,
    tokenization: TokenizationOptions,
    sent: Sequence[str],
    texts: Sequence[TokenizedOrError],
    results: Sequence[MaskCandidates],
) -> list[FilledText | InvalidRequest]:
    remaining, mask_id = iter(results), model.description.mask_id
    readable_token = cache(model.source_tokenizer.readable_token)  # masks share most candidates
    filled = list[FilledText | InvalidRequest]()
    for original, text in zip(sent, texts, strict=True):
        if isinstance(text, InvalidRequest):
            filled.append(text)
            continue
        spans = [_span(original, token) for token in text if token.id == mask_id]
        masks = _filled_masks(spans, next(remaining), readable_token)
        filled.append(FilledText(masks, tokenization.report(text)))
    return filled


def _span(text: str, mask: Token) -> tuple[int, int]:
    """Start and end of a mask, without the white space that some tokenizers count as part of it."""
    found = text[mask.start : mask.end]
    return mask.end - len(found.lstrip()), mask.start + len(found.rstrip())


def _filled_masks(
    spans: Sequence[tuple[int, int]],
    candidates: MaskCandidates,
    readable_token: Callable[[int], str],
) -> list[FilledMask]:
    return [
        FilledMask(start, end, ids, [readable_token(i) for i in ids], probabilities)
        for (start, end), ids, probabilities in zip(
            spans, candidates.token_ids.tolist(), candidates.probabilities.tolist(), strict=True
        )
    ]
