"""Which translations become sentence pairs of a training."""

from dataclasses import dataclass

import numpy as np

from attendant_export.corpora.translator import Translated
from attendant_export.data.bad_lines import EMPTY
from attendant_export.data.pair_filters import NO_TEXT_FILTERS, RATIO, LengthFilters, TextFilters

CUT, LOW_SCORE = "cut off or repetitive", "low score"
"""Reasons for which a translation is left out, besides those of the server and of the
filters of trainings."""


@dataclass(frozen=True, slots=True)
class PairSelection:
    """The filters of translations. Those of texts and lengths are the same as in a training."""

    text_filters: TextFilters = NO_TEXT_FILTERS
    length_filters: LengthFilters = LengthFilters()
    min_score: float | None = None
    """Limit of the mean log-probability of a token."""

    def reason(self, pair: tuple[str, str], translated: Translated) -> str | None:
        """Why ``pair``, in the order in which it would be written, is left out, or None."""
        if translated.reason is not None:
            return translated.reason
        if not translated.is_complete:
            return CUT
        if not all(side.strip() for side in pair):
            return EMPTY
        if self.min_score is not None and translated.score < self.min_score:
            return LOW_SCORE
        return self._length_reason(translated) or self.text_filters.reason(*pair)

    def _length_reason(self, translated: Translated) -> str | None:
        lengths = np.array([translated.num_source_tokens]), np.array([translated.num_target_tokens])
        if self.length_filters.are_too_long(*lengths)[0]:
            return self.length_filters.too_long
        # A text that was copied as a whole has no target tokens.
        if translated.num_target_tokens and self.length_filters.exceed_ratio(*lengths)[0]:
            return RATIO
        return None
