"""Mask filling: the likeliest tokens for the masks of texts, or given candidates in their order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from attendant_server import records
from attendant_server.application.answers import Answer
from attendant_server.application.catalog import Catalog, ServedModel
from attendant_server.application.descriptions import ModelKind
from attendant_server.application.jobs import JobRunner
from attendant_server.application.joint_mask_filling import (
    MAX_JOINT_MASKS,
    Filling,
    TextToFill,
    fill_jointly,
)
from attendant_server.application.mask_candidates import (
    CandidateReader,
    GivenCandidates,
    best_first,
)
from attendant_server.application.mask_queries import MaskQuery, predict
from attendant_server.application.splitting import Span, trimmed
from attendant_server.application.tokenization import (
    TokenizedOrError,
    good,
    merged,
    num_tokens,
    tokenize,
)
from attendant_server.application.tokenization_options import (
    TokenizationOptions,
    TruncationReport,
    tokenization_options,
)
from attendant_server.application.validation import TEXTS, TOKEN_BYTES, RequestLimits, check_range
from attendant_server.engine.encoder_calls import MaskCandidates
from attendant_server.errors import InvalidRequest, ModelWithoutHead
from attendant_server.tokenized_text import TokenizedText
from attendant_server.tokenizer import TextTokenizer

DEFAULT_TOP_K = 5
TOKENS_FOR_CANDIDATE = 8
"""The work of finding the token of a given candidate, as a number of tokens in an answer."""


@dataclass(frozen=True, slots=True)
class MaskFillingRequest:
    """Texts with masks. ``truncation`` and ``text_normalization`` are numbers of their
    enums, 0 for the default."""

    texts: Sequence[str]
    model: str = ""
    top_k: int | None = None
    truncation: int = 0
    text_normalization: int = 0
    candidates: Sequence[Sequence[Sequence[str]]] = ()
    """The candidates for each mask of each text, or one entry for all masks of a text; empty for
    the whole vocabulary."""
    joint: bool = False
    """Whether the masks of a text are filled together."""


@dataclass(frozen=True, slots=True)
class FilledMask:
    """The candidates for one mask, likeliest first; none if masks are filled together."""

    start: int
    """Index of the mask's first character in its text."""
    end: int
    token_ids: Sequence[int] = ()
    token_texts: Sequence[str] = ()
    """The candidates as readable text, or as the caller gave them."""
    probabilities: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class FilledText:
    """The masks of one text, in text order."""

    masks: Sequence[FilledMask]
    truncation: TruncationReport | None
    fillings: Sequence[Filling] = ()
    """The likeliest fillings of all masks, best first, if they are filled together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskFillingAnswer(Answer):
    """The masks, or a fault, of each text, in the order of the request."""

    texts: Sequence[FilledText | InvalidRequest]


class _MaskedText(NamedTuple):
    """A text with its masks."""

    tokens: TokenizedText
    token_ids: list[int]
    """The ids of ``tokens``, which copies them at each access."""
    masks: list[int]
    """Indices of the masks in ``token_ids``."""
    places: list[Span]
    """The places of the masks in the text as sent."""
    given: Sequence[GivenCandidates] | None

    def num_candidates(self, top_k: int) -> int:
        """Number of candidates in the answer, at most."""
        if self.given is None:
            return top_k * len(self.masks)
        return sum(min(top_k, len(each.texts)) for each in self.given)


class _Plan(NamedTuple):
    """The checked options of a call."""

    model: ServedModel
    top_k: int
    tokenization: TokenizationOptions
    candidates: CandidateReader
    readable_token: Callable[[int], str]


class MaskFiller:
    """Fills masks with all embedding models that have a masked-language-model head."""

    def __init__(self, catalog: Catalog, jobs: JobRunner, limits: RequestLimits) -> None:
        self._catalog, self._jobs, self._limits = catalog, jobs, limits

    async def fill(
        self, request: MaskFillingRequest, seconds_left: float | None
    ) -> MaskFillingAnswer:
        """The likeliest tokens for every mask, or the given candidates in their order.

        ``seconds_left`` is the time until the caller's deadline; None if there is no deadline.
        """
        plan = self._plan(request)
        deadline = self._limits.deadline(plan.model.engine.clock(), seconds_left)
        texts = await self._read(plan, request)
        masked = list(good(texts))
        num_candidates = sum(text.num_candidates(plan.top_k) for text in masked)
        num_fillings = plan.top_k * sum(len(text.masks) for text in masked)
        num_answered = num_fillings if request.joint else num_candidates
        self._limits.check_response("texts", num_answered * TOKEN_BYTES)
        num_input_tokens = sum(len(text.token_ids) for text in masked)
        size = num_input_tokens + num_answered
        fill = self._fill_jointly if request.joint else self._fill_each
        filled = iter(await fill(plan, masked, size, deadline))
        return MaskFillingAnswer(
            model=plan.model.description.key,
            texts=merged(texts, filled, lambda _, found: found),
            num_input_tokens=num_input_tokens,
            phases=records.current().phases(),
            size=size,
        )

    def _plan(self, request: MaskFillingRequest) -> _Plan:
        """Find the model and check the options; raises InvalidRequest."""
        self._limits.check_count("texts", len(request.texts))
        model = self._catalog.serving(request.model, ModelKind.EMBEDDING)
        top_k = self._top_k(request)
        if len(request.candidates) not in (0, len(request.texts)):
            problem = f"as many as texts, which are {len(request.texts)}, or none, got"
            raise InvalidRequest("candidates", f"{problem} {len(request.candidates)}")
        mask_id, mask_tokenizer = _mask(model)
        tokenization = tokenization_options(
            mask_tokenizer,
            model.description.max_tokens,
            self._limits.max_text_characters,
            request.truncation,
            request.text_normalization,
        )
        candidates = CandidateReader(
            mask_tokenizer, tokenization.normalizes, mask_id, self._limits.max_top_k
        )
        return _Plan(
            model,
            min(top_k, model.description.vocab_size),
            tokenization,
            candidates,
            cache(model.source_tokenizer.readable_token),  # masks share most candidates
        )

    def _top_k(self, request: MaskFillingRequest) -> int:
        limits = self._limits
        most = limits.max_beam_size if request.joint else limits.max_top_k
        if request.top_k is None:
            is_all = request.candidates and not request.joint
            return most if is_all else min(DEFAULT_TOP_K, most)
        check_range("top_k", request.top_k, 1, most)
        return request.top_k

    async def _read(
        self, plan: _Plan, request: MaskFillingRequest
    ) -> list[_MaskedText | InvalidRequest]:
        """Each text with its masks and their candidates, or its fault."""
        tokenized = await tokenize(self._jobs, plan.tokenization, TEXTS, request.texts)
        num_candidates = sum(len(texts) for masks in request.candidates for texts in masks)
        texts = await self._jobs.run_for(
            num_tokens(tokenized) + num_candidates * TOKENS_FOR_CANDIDATE,
            lambda: [_masked(plan, request, i, text) for i, text in enumerate(tokenized)],
        )
        num_faults = len(list(good(tokenized))) - len(list(good(texts)))
        records.current().num_invalid_texts += num_faults
        return texts

    async def _fill_each(
        self, plan: _Plan, texts: Sequence[_MaskedText], size: int, deadline: float
    ) -> list[FilledText]:
        """The texts with the candidates of each mask."""
        queries = [
            MaskQuery(
                text.token_ids,
                text.masks,
                None if text.given is None else [each.token_ids for each in text.given],
            )
            for text in texts
        ]
        results = await predict(plan.model, queries, plan.top_k, len(texts), deadline)
        return await self._jobs.run_for(
            size,
            lambda: [_filled(plan, *each) for each in zip(texts, results, strict=True)],
        )

    async def _fill_jointly(
        self, plan: _Plan, texts: Sequence[_MaskedText], size: int, deadline: float
    ) -> list[FilledText]:
        """The texts with fillings of all masks."""
        to_fill = [TextToFill(text.token_ids, text.masks, text.given) for text in texts]
        found = await fill_jointly(plan.model, to_fill, plan.top_k, plan.readable_token, deadline)
        return [
            FilledText(
                [FilledMask(*place) for place in text.places],
                plan.tokenization.report(text.tokens),
                fillings,
            )
            for text, fillings in zip(texts, found, strict=True)
        ]


def _mask(model: ServedModel) -> tuple[int, TextTokenizer]:
    """The mask token's id and the tokenizer that recognizes it; raises ModelWithoutHead."""
    description, tokenizer = model.description, model.mask_tokenizer
    if not description.has_mask_head or description.mask_id is None or tokenizer is None:
        raise ModelWithoutHead(f"{description.key} has no masked-language-model head")
    return description.mask_id, tokenizer


def _masked(
    plan: _Plan, request: MaskFillingRequest, number: int, text: TokenizedOrError
) -> _MaskedText | InvalidRequest:
    """Text ``number`` with its masks and their candidates, or its fault."""
    if isinstance(text, InvalidRequest):
        return text
    sent, token_ids = request.texts[number], text.token_ids
    masks = [i for i, token_id in enumerate(token_ids) if token_id == plan.candidates.mask_id]
    field = TEXTS.format(number)
    if not masks:
        was_cut = len(text) < text.num_original_tokens
        return InvalidRequest(field, "has no mask left" if was_cut else "has no mask")
    if request.joint and len(masks) > MAX_JOINT_MASKS:
        return InvalidRequest(field, f"at most {MAX_JOINT_MASKS} masks, got {len(masks)}")
    tokens = list(text)
    # Some tokenizers count the white space before a mask as a part of it.
    places = [trimmed(sent, (tokens[i].start, tokens[i].end)) for i in masks]
    given = None
    try:
        if request.candidates:
            given = plan.candidates.read(number, sent, places, request.candidates[number])
    except InvalidRequest as fault:
        return fault
    return _MaskedText(text, token_ids, masks, places, given)


def _filled(plan: _Plan, text: _MaskedText, candidates: MaskCandidates) -> FilledText:
    token_ids, probabilities = candidates.token_ids.tolist(), candidates.probabilities.tolist()
    masks = []
    for i, place in enumerate(text.places):
        if text.given is None:
            texts = list(map(plan.readable_token, token_ids[i]))
            masks.append(FilledMask(*place, token_ids[i], texts, probabilities[i]))
        else:
            ranked = best_first(text.given[i], probabilities[i], plan.top_k)
            masks.append(FilledMask(*place, *zip(*ranked, strict=True)))
    return FilledText(masks, plan.tokenization.report(text.tokens))
