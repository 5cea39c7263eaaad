"""Work on the hypotheses of pieces after their searches: coverage penalties and glossaries."""

from collections.abc import Sequence

from attendant_server.application.coverage import ranked_by_coverage
from attendant_server.application.glossary_search import GlossarySearch
from attendant_server.application.jobs import JobRunner
from attendant_server.application.piece_searches import numbered_pieces
from attendant_server.application.pieced_text import PiecedText
from attendant_server.application.translation_plans import TranslationPlan
from attendant_server.engine.calls import Hypothesis
from attendant_server.errors import InvalidRequest


class PieceFinisher:
    """Finishes the hypotheses of one call."""

    def __init__(
        self, plan: TranslationPlan, deadline: float, max_width: int, jobs: JobRunner
    ) -> None:
        """``deadline`` is on the engine's clock. ``max_width`` limits the rows of a search."""
        self._plan, self._deadline, glossary = plan, deadline, plan.joiner.glossary
        self._search = None
        if glossary is not None:
            self._search = GlossarySearch(plan, glossary, deadline, max_width, jobs)

    async def may_change(self, text: PiecedText, number: int) -> bool:
        """Whether another hypothesis of a piece than the best one of its search may be the best."""
        if self._plan.coverage is not None:
            return True
        return self._search is not None and await self._search.has_terms(text, number)

    async def of_texts(
        self,
        texts: list[PiecedText | InvalidRequest],
        results: list[list[Hypothesis]],
        places: Sequence[str],
    ) -> tuple[list[PiecedText | InvalidRequest], list[list[Hypothesis]]]:
        """The texts and the hypotheses of all their pieces.

        ``places`` are those of the texts, for seeds. A text may become a fault.
        """
        if self._plan.coverage is not None:
            results = await ranked_by_coverage(
                self._plan, numbered_pieces(texts), results, self._deadline
            )
        if self._search is not None:
            texts, results = await self._search.of_texts(texts, results, places)
        return texts, results

    async def of_piece(
        self,
        text: PiecedText,
        number: int,
        hypotheses: list[Hypothesis],
        seeds: Sequence[str],
    ) -> list[Hypothesis]:
        """The hypotheses of one piece, whose searches had ``seeds``; raises InvalidRequest."""
        if self._plan.coverage is not None:
            piece = [(text, number)]
            [hypotheses] = await ranked_by_coverage(self._plan, piece, [hypotheses], self._deadline)
        if self._search is not None:
            hypotheses = await self._search.of_piece(text, number, hypotheses, seeds)
        return hypotheses
