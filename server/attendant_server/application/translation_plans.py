"""Plans of translation calls: the model and the checked options, which many calls share."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from attendant_server.application.alignment import check_aligner
from attendant_server.application.catalog import Catalog, ServedModel
from attendant_server.application.descriptions import Splitting
from attendant_server.application.glossaries import Glossary
from attendant_server.application.hypotheses import Joiner
from attendant_server.application.jobs import JobRunner
from attendant_server.application.languages import (
    language_tokens,
    source_tag,
    translation_model,
)
from attendant_server.application.pieced_text import PieceReader
from attendant_server.application.sampling import chosen_seed
from attendant_server.application.suppressed_tokens import suppressed_tokens
from attendant_server.application.tokenization_options import (
    TokenizationOptions,
    Truncation,
    tokenization_options,
)
from attendant_server.application.translation_options import (
    DEFAULT_OPTIONS,
    REPLACE_UNKNOWN,
    TranslationOptions,
    allows_unknown,
    checked_coverage_penalty,
    search_options,
)
from attendant_server.application.validation import RequestLimits, known_value
from attendant_server.application.written_pieces import PieceWriter
from attendant_server.engine.calls import SearchOptions
from attendant_server.errors import InvalidRequest

MAX_REMEMBERED = 256
"""Plans that are remembered for one model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRequest:
    """The fields of a request on which its plan depends.

    Languages are BCP 47 tags, or "" for the only language of the model. ``truncation``,
    ``splitting`` and ``text_normalization`` are numbers of `Truncation`, `Splitting` and
    `TextNormalization`, 0 for the defaults.
    """

    model: str = ""
    served: ServedModel | None = None
    """The model, if it has been found already; ``model`` and the languages then choose none."""
    options: TranslationOptions = DEFAULT_OPTIONS
    truncation: int = 0
    source_language: str = ""
    target_language: str = ""
    splitting: int = 0
    text_normalization: int = 0
    return_sentences: bool = False
    """Whether hypotheses have the places of their sentences."""
    return_alignments: bool = False
    """Whether hypotheses have the links of their words to words of the text."""
    controls: Mapping[str, str] = field(default_factory=dict)
    """Values of controls of the model by name."""


class Coverage(NamedTuple):
    """How hypotheses are ranked after a search with a coverage penalty."""

    penalty: float
    num_hypotheses: int
    """Hypotheses of the answer; the search gives all that it has."""


class TranslationPlan(NamedTuple):
    """The checked options of a call."""

    model: ServedModel
    options: SearchOptions
    tokenization: TokenizationOptions
    read_pieces: PieceReader
    joiner: Joiner
    seed: int | None
    """The seed of the samples; None without sampling."""
    coverage: Coverage | None = None

    @property
    def needs_finishing(self) -> bool:
        """Whether hypotheses may change after their searches."""
        return self.coverage is not None or self.joiner.glossary is not None

    def with_coverage(self, penalty: float) -> "TranslationPlan":
        """The plan with a coverage penalty, if it is not 0; raises ModelWithoutHead."""
        if not penalty:
            return self
        check_aligner(self.model.description, "options.coverage_penalty")
        return self._replace(
            options=self.options._replace(num_hypotheses=self.options.beam_size),
            read_pieces=replace(self.read_pieces, keeps_tokens=True),
            coverage=Coverage(penalty, self.options.num_hypotheses),
        )

    def with_glossary(self, glossary: Glossary | None, field: str) -> "TranslationPlan":
        """The plan of a call with a glossary, from this field; raises ModelWithoutHead."""
        if glossary is None:
            return self
        check_aligner(self.model.description, field)
        return self._replace(
            read_pieces=replace(self.read_pieces, keeps_tokens=True),
            joiner=replace(self.joiner, glossary=glossary),
        )

    @property
    def num_samples(self) -> int:
        """Searches for each piece."""
        return 1 if self.seed is None else self.options.num_hypotheses


class Planner:
    """Makes the plans of calls. Plans of the usual options are made once for each model."""

    def __init__(self, catalog: Catalog, jobs: JobRunner, limits: RequestLimits) -> None:
        self._catalog, self._jobs, self._limits = catalog, jobs, limits

    async def plan(self, request: PlannedRequest, whole: Collection[int] = ()) -> TranslationPlan:
        """Find the model and check the options.

        ``whole`` has the numbers of the texts that must not be split.
        """
        languages = request.source_language, request.target_language
        model = request.served or translation_model(self._catalog, request.model, *languages)
        if whole or not request.options.are_usual:
            return await self._new_plan(model, request, whole)
        key = (
            request.options,
            languages,
            frozenset(request.controls.items()),
            request.truncation,
            request.splitting,
            request.text_normalization,
            request.return_sentences,
            request.return_alignments,
        )
        plan = model.plans.get(key)
        if plan is None:
            plan = await self._new_plan(model, request)
            if len(model.plans) >= MAX_REMEMBERED:
                model.plans.clear()
            model.plans[key] = plan
        return plan

    async def _new_plan(
        self, model: ServedModel, request: PlannedRequest, whole: Collection[int] = ()
    ) -> TranslationPlan:
        description = model.description
        tokens = language_tokens(
            model, request.source_language, request.target_language, request.controls
        )
        options = search_options(
            request.options,
            self._limits,
            description,
            tokens.forced_target_ids,
            await suppressed_tokens(
                self._jobs, model, request.options, allows_unknown(request.options)
            ),
        )
        tokenization = tokenization_options(
            model.source_tokenizer,
            description.max_source_tokens,
            self._limits.max_text_characters,
            request.truncation,
            request.text_normalization,
            tokens.before_source,
            tokens.after_source,
            text_codes=tokens.text_codes,
            before_text=tokens.before_text,
        )
        truncates = tokenization.truncation is not Truncation.REFUSE
        default_splitting = Splitting.NONE if truncates else description.default_splitting
        splitting = known_value("splitting", request.splitting, default_splitting)
        if truncates and splitting is not Splitting.NONE:
            raise InvalidRequest("truncation", "is for texts that are not split only")
        if whole and request.splitting and splitting is not Splitting.NONE:
            raise InvalidRequest(
                "splitting", "is for texts without target prefixes or alternatives only"
            )
        if request.return_alignments:
            check_aligner(description)
        if request.options.replace_unknown:
            check_aligner(description, REPLACE_UNKNOWN)
        plan = TranslationPlan(
            model,
            options,
            tokenization,
            PieceReader(
                splitting,
                source_tag(description, request.source_language),
                whole,
                keeps_tokens=request.return_alignments or request.options.replace_unknown,
                aligns_copies=description.can_align,
            ),
            Joiner(
                PieceWriter(
                    model.target_tokenizer,
                    model.source_tokenizer.unk_id,
                    request.options.replace_unknown,
                    description.can_align,
                ),
                tokenization,
                options.length_penalty,
                request.options.return_tokens,
                request.return_sentences,
                request.return_alignments,
            ),
            chosen_seed(request.options.sampling),
        )
        return plan.with_coverage(checked_coverage_penalty(request.options, options))
