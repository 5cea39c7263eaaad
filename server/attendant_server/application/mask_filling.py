"""Mask filling: the likeliest tokens for the masks of texts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple

from attendant_server import records
from attendant_server.application.answers import Answer
from attendant_server.application.catalog import Catalog, ServedModel
from attendant_server.application.descriptions import ModelKind
from attendant_server.application.jobs import JobRunner
from attendant_server.application.tokenization import (
    TokenizedOrError,
    good,
    merged,
    tokenize,
)
from attendant_server.application.tokenization_options import (
    TokenizationOptions,
    TruncationReport,
    tokenization_options,
)
from attendant_server.application.validation import TEXTS, TOKEN_BYTES, RequestLimits, check_range
from attendant_server.engine.calls import FillMaskCall, MaskCandidates
from attendant_server.errors import InvalidRequest, ModelWithoutHead
from attendant_server.tokenized_text import TokenizedText
from attendant_server.tokenizer import TextTokenizer

DEFAULT_TOP_K = 5


@dataclass(frozen=True, slots=True)
class MaskFillingRequest:
    """Texts with masks. ``truncation`` and ``text_normalization`` are numbers of their
    enums, 0 for the default."""

    texts: Sequence[str]
    model: str = ""
    top_k: int | None = None
    truncation: int = 0
    text_normalization: int = 0


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


class _MaskedText(NamedTuple):
    """A text with its masks."""

    sent: str
    tokens: TokenizedText
    token_ids: list[int]
    """The ids of ``tokens``, which copies them at each access."""
    masks: list[int]
    """Indices of the masks in ``token_ids``."""


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
        texts = [
            _with_masks(i, sent, text, mask_id)
            for i, (sent, text) in enumerate(zip(request.texts, tokenized, strict=True))
        ]
        masked, record = list(good(texts)), records.current()
        record.num_invalid_texts += len(list(good(tokenized))) - len(masked)
        num_candidates = top_k * sum(len(text.masks) for text in masked)
        self._limits.check_response("texts", num_candidates * TOKEN_BYTES)
        call = FillMaskCall(
            [text.token_ids for text in masked], [text.masks for text in masked], top_k, deadline
        )
        results = await model.answer(call)

        num_input_tokens = sum(len(text.token_ids) for text in masked)
        size = num_input_tokens + num_candidates
        readable_token = cache(model.source_tokenizer.readable_token)  # masks share most candidates
        build = partial(_filled_text, tokenization, readable_token)
        filled = await self._jobs.run_for(size, lambda: merged(texts, results, build))
        return MaskFillingAnswer(
            model=model.description.key,
            texts=filled,
            num_input_tokens=num_input_tokens,
            phases=record.phases(),
            size=size,
        )

    def _prepare(
        self, request: MaskFillingRequest
    ) -> tuple[ServedModel, int, int, TokenizationOptions]:
        """The model, the checked ``top_k``, the mask token's id and the tokenization options."""
        self._limits.check_count("texts", len(request.texts))
        model = self._catalog.serving(request.model, ModelKind.EMBEDDING)
        wanted = DEFAULT_TOP_K if request.top_k is None else request.top_k
        check_range("top_k", wanted, 1, self._limits.max_top_k)
        mask_id, mask_tokenizer = _mask(model)
        tokenization = tokenization_options(
            mask_tokenizer,
            model.description.max_tokens,
            self._limits.max_text_characters,
            request.truncation,
            request.text_normalization,
        )
        return model, min(wanted, model.description.vocab_size), mask_id, tokenization


def _mask(model: ServedModel) -> tuple[int, TextTokenizer]:
    """The mask token's id and the tokenizer that recognizes it; raises ModelWithoutHead."""
    description, tokenizer = model.description, model.mask_tokenizer
    if not description.has_mask_head or description.mask_id is None or tokenizer is None:
        raise ModelWithoutHead(f"{description.key} has no masked-language-model head")
    return description.mask_id, tokenizer


def _with_masks(
    index: int, sent: str, text: TokenizedOrError, mask_id: int
) -> _MaskedText | InvalidRequest:
    if isinstance(text, InvalidRequest):
        return text
    token_ids = text.token_ids
    masks = [i for i, token_id in enumerate(token_ids) if token_id == mask_id]
    if masks:
        return _MaskedText(sent, text, token_ids, masks)
    was_cut = len(text) < text.num_original_tokens
    return InvalidRequest(TEXTS.format(index), "has no mask left" if was_cut else "has no mask")


def _filled_text(
    tokenization: TokenizationOptions,
    readable_token: Callable[[int], str],
    text: _MaskedText,
    candidates: MaskCandidates,
) -> FilledText:
    offsets, positions = text.tokens.encoding.offsets, text.tokens.positions
    masks = [
        FilledMask(
            *_span(text.sent, *offsets[positions[i]]),
            ids,
            list(map(readable_token, ids)),
            probabilities,
        )
        for i, ids, probabilities in zip(
            text.masks,
            candidates.token_ids.tolist(),
            candidates.probabilities.tolist(),
            strict=True,
        )
    ]
    return FilledText(masks, tokenization.report(text.tokens))


def _span(text: str, start: int, end: int) -> tuple[int, int]:
    """Start and end of a mask, without the white space that some tokenizers count as part of it."""
    found = text[start:end]
    return end - len(found.lstrip()), start + len(found.rstrip())
