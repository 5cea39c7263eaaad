"""Translates a corpus into a file of sentence pairs, from the text at which it was interrupted."""

import logging
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

from tqdm import tqdm

from attendant_export.corpora.output import OpenOutput, OutputRecord
from attendant_export.corpora.selection import PairSelection
from attendant_export.corpora.texts import CorpusCheck, CorpusFiles, CorpusText
from attendant_export.corpora.translator import Translated, TranslationFailed, Translator
from attendant_export.data.bad_lines import MAX_SHOWN, SKIP, counted

logger = logging.getLogger(__name__)

SAVE_SECONDS = 5.0
"""Time between two writes of the output. A kill loses the translations since the last one, and the
texts that are on their way."""
MAX_PENDING_PAIRS = 4_000
"""Limit of the pairs in memory."""
SHOWN_SHARES = (0.05, 0.25, 0.5)
"""Shares of the translations, those with the lowest scores, whose limits are reported."""


@dataclass(frozen=True, slots=True)
class CorpusTranslation:
    """A corpus, and which pairs it becomes."""

    corpus: CorpusFiles
    selection: PairSelection
    is_backward: bool = False
    """Write translation and text, for back-translation, instead of text and translation."""
    skips_bad_lines: bool = False

    def check(self) -> CorpusCheck:
        """Read all texts.

        Raises ValueError that lists bad lines unless they are skipped, and for a corpus without
        texts.
        """
        check = self.corpus.check(self.selection.text_filters.duplicates)
        if not self.skips_bad_lines:
            check.bad_lines.refuse(SKIP)
        if not check.num_texts:
            names = ", ".join(str(source) for source in self.corpus.sources)
            raise ValueError(f"{names}: no text to translate")
        return check

    def write(self, translator: Translator, check: CorpusCheck, output: OpenOutput) -> None:
        """Write the pairs of all texts that are not done yet.

        What was written before an error or an interruption stays. Raises as `Translator.translate`,
        and TranslationFailed if no text at all was translated.
        """
        record, pending = output.record, list[tuple[str, str]]()
        if record.num_texts:
            logger.info("continues after %s", counted(record.num_texts, "text"))
        saved = time.monotonic()
        with tqdm(
            total=check.num_texts, initial=record.num_texts, unit="text", disable=None
        ) as bar:
            texts = self._translated_texts(check, record.num_texts)
            first_index = check.num_translated_before(record.num_texts)
            for text, translated in translator.translate(texts, first_index):
                pending += self._kept(record, text, translated)
                record.num_texts = text.index + 1
                bar.update(record.num_texts - bar.n)
                is_due = time.monotonic() - saved >= SAVE_SECONDS
                # Texts before the first translation are not done: the server may be at fault.
                if record.scores and (is_due or len(pending) == MAX_PENDING_PAIRS):
                    output.append(pending)
                    pending, saved = [], time.monotonic()
        if not record.scores:
            raise TranslationFailed(f"no text was translated: {_listed(record.left_out)}")
        record.num_texts = check.num_texts  # Repeated texts may be the last ones.
        for reason, number in check.left_out.items():
            record.left_out[reason] = number
        output.append(pending)
        output.finish()

    def _translated_texts(self, check: CorpusCheck, start: int) -> Iterator[CorpusText]:
        """The texts from the index ``start`` on that are translated."""
        return (text for text in self.corpus.texts(start) if check.is_translated(text.index))

    def _kept(
        self, record: OutputRecord, text: CorpusText, translated: Translated
    ) -> list[tuple[str, str]]:
        """The pair of a text, or none; counts its score, and why it is left out."""
        pair = text.text, translated.text
        if self.is_backward:
            pair = pair[::-1]
        if translated.reason is None:
            record.scores[f"{math.floor(translated.score * 10) / 10:.1f}"] += 1
        elif record.left_out[translated.reason] < MAX_SHOWN:
            logger.warning("%s:%d: %s", text.file, text.line, translated.fault)
        reason = self.selection.reason(pair, translated)
        if reason is None:
            return [pair]
        record.left_out[reason] += 1
        return []


def describe(record: OutputRecord) -> str:
    """How many pairs there are, how many lines are left out and why, and the lowest scores."""
    text = counted(record.num_pairs, "pair")
    if record.left_out:
        text += f"; left out: {_listed(record.left_out)}"
    if record.scores:
        listed = ", ".join(f"{s:.0%} below {_limit(record, s):.1f}" for s in SHOWN_SHARES)
        text += f"\nmean log-probability of a token: {listed}"
    return text


def _listed(left_out: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {reason}" for reason, number in left_out.items())


def _limit(record: OutputRecord, share: float) -> float:
    """The tenth below which at least ``share`` of all scores are."""
    tenths = sorted(record.scores, key=float)
    sums = accumulate(record.scores[tenth] for tenth in tenths)
    total = record.scores.total()
    last = next(t for t, below in zip(tenths, sums, strict=True) if below >= share * total)
    return float(last) + 0.1
