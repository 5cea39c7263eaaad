"""What a translation model is trained on: files of pairs, how often each occurs, and filters."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from attendant_export.data.augmentation import NO_AUGMENTATION, Augmentation
from attendant_export.data.bad_lines import SKIP, BadLines, counted
from attendant_export.data.mixtures import nums_in_epoch, spread_rows
from attendant_export.data.pair_filters import (
    NO_TEXT_FILTERS,
    RATIO,
    LengthFilters,
    TextFilters,
)
from attendant_export.data.pair_texts import PairTexts, open_texts
from attendant_export.data.pair_tokenizer import NO_MARKS, Marks, PairTokenizer
from attendant_export.data.pair_tokens import EncodedPairs, open_tokens
from attendant_export.data.text_choice import NO_CHOICE, TextChoice
from attendant_export.data.tokenizer import BPE, train_translation_tokenizer
from attendant_export.data.translation_pairs import PairDataset

logger = logging.getLogger(__name__)

TOKENIZER_PAIRS = 1_000_000
"""Limit of the pairs that a tokenizer is trained on. More hardly change its vocabulary."""
BOTH_SIDES = slice(2)


@dataclass(frozen=True, slots=True)
class PairSource:
    """A file of training pairs, or a folder of such files, and its weight in an epoch."""

    path: Path
    weight: float | None = None
    choice: TextChoice = NO_CHOICE


@dataclass(frozen=True, slots=True)
class ExtraPairs:
    """A file of further training pairs, and how often an epoch has each of them."""

    path: Path
    repeats: int = 1
    choice: TextChoice = NO_CHOICE


@dataclass(frozen=True, slots=True)
class ExtraValidation:
    """A file of further validation pairs, and its name in the history of the run."""

    name: str
    path: Path
    choice: TextChoice = NO_CHOICE


@dataclass(frozen=True, slots=True)
class TranslationData:
    """Files of training and validation pairs, and settings for tokenization and batches.

    Raises ValueError if two further validation files have the same name, if only some of several
    sources have a weight, for a weight that is not positive, for a temperature below 1, and for a
    temperature in addition to weights.
    """

    train: tuple[PairSource, ...]
    valid: Path
    """Pairs whose quality chooses the best checkpoint."""
    valid_choice: TextChoice = NO_CHOICE
    swap: bool = False
    """Translate the second column to the first."""
    extra: tuple[ExtraPairs, ...] = ()
    extra_valid: tuple[ExtraValidation, ...] = ()
    """Pairs on which the quality is measured as well."""
    temperature: float = 1.0
    """Without weights, the shares of sources are proportional to size ** (1 / temperature)."""
    text_filters: TextFilters = NO_TEXT_FILTERS
    length_filters: LengthFilters = LengthFilters()
    augmentation: Augmentation = NO_AUGMENTATION
    """Changes of the training pairs, drawn anew in each epoch."""
    vocab_size: int = 8000
    tokenizer_kind: str = BPE
    """The kind of a new tokenizer, one of `KINDS`."""
    separate_vocabularies: bool = False
    """Whether a new vocabulary is one of the sources, beside another one of the targets."""
    max_batch_tokens: int = 4096
    num_valid_sources: int = 500
    """Number of sentences of each validation file that are translated, sampled once."""
    skip_bad_lines: bool = False
    """Leave out lines that nothing can be learned from, instead of refusing to train."""
    cache_dir: Path | None = None
    """Where encoded pairs are kept; None: in the folder ``data`` of the run."""

    def __post_init__(self) -> None:
        weights = [source.weight for source in self.train]
        are_weighted = [weight is not None for weight in weights]
        if any(are_weighted) and not all(are_weighted):
            raise ValueError("--train: want a weight for every file or for none")
        if not all(weight is None or 0 < weight < float("inf") for weight in weights):
            raise ValueError("--train: want weights of more than 0")
        if not 1 <= self.temperature < float("inf"):
            raise ValueError(f"--temperature {self.temperature:g}: want a number of at least 1")
        if any(are_weighted) and self.temperature != 1:
            raise ValueError("--temperature: is for files without weights")
        if len({extra.name for extra in self.extra_valid}) < len(self.extra_valid):
            raise ValueError("--extra-valid: want a name of its own for every file")

    @property
    def parts(self) -> list[PairSource | ExtraPairs]:
        """The sources, then the extra pairs."""
        return [*self.train, *self.extra]

    @property
    def choices(self) -> list[TextChoice]:
        """The languages and controls of each part."""
        return [part.choice for part in self.parts]

    def nums_in_epoch(self, parts: Sequence[PairTexts | EncodedPairs]) -> list[int]:
        """The number of pairs of each of ``parts`` in an epoch: the sources, then the extra ones.

        Together, the sources have as many pairs as their files, in the shares of their weights.
        Each extra pair occurs ``repeats`` times.
        """
        sizes = [len(part) for part in parts]
        sources, extra = sizes[: len(self.train)], sizes[len(self.train) :]
        weights = [source.weight for source in self.train if source.weight is not None]
        repeated = [n * each.repeats for n, each in zip(extra, self.extra, strict=True)]
        return nums_in_epoch(sources, weights or None, self.temperature) + repeated


class TranslationTexts:
    """The text of all training pairs, in mapped files."""

    def __init__(self, data: TranslationData, cache_dir: Path) -> None:
        """Write the files to ``cache_dir`` unless they are there.

        Raises as `open_texts`, and ValueError that lists bad lines unless ``data`` skips them.
        """
        self._data, self._cache_dir = data, cache_dir
        self.parts = [
            open_texts(part.path, cache_dir, data.swap, data.text_filters) for part in data.parts
        ]
        self._refuse(part.bad_lines for part in self.parts)

    def sample(self, max_pairs: int = TOKENIZER_PAIRS, sides: slice = BOTH_SIDES) -> Iterator[str]:
        """The texts of at most about ``max_pairs`` pairs, evenly spread over an epoch."""
        nums = self._data.nums_in_epoch(self.parts)
        share = min(1.0, max_pairs / max(1, sum(nums)))
        for part, num in zip(self.parts, nums, strict=True):
            for row in spread_rows(len(part), round(num * share)):
                yield from part[int(row)][sides]

    def train_tokenizer(self, others: Sequence[str] = ()) -> PairTokenizer:
        """Train one tokenizer, or one for each side, on a sample of the texts.

        That of the sources has the special tokens ``others`` as well. Raises ValueError as
        `train_translation_tokenizer`, and if there is no text.
        """
        if not any(map(len, self.parts)):
            raise ValueError("there is no text to train on")
        if not self._data.separate_vocabularies:
            return PairTokenizer.of_run(self._train_tokenizer(BOTH_SIDES, others))
        source, target = slice(0, 1), slice(1, 2)
        return PairTokenizer.of_run(
            self._train_tokenizer(source, others), self._train_tokenizer(target)
        )

    def _train_tokenizer(self, sides: slice, others: Sequence[str] = ()) -> Tokenizer:
        data = self._data
        return train_translation_tokenizer(
            _Sample(self, sides), data.vocab_size, data.tokenizer_kind, others
        )

    def dataset(self, tokenizer: PairTokenizer, marks: Sequence[Marks] = ()) -> PairDataset:
        """The encoded pairs, in mapped files; logs the pairs of each file, and what is left out.

        ``marks`` are the tokens next to the texts of each part. Raises ValueError that lists
        the lines that are too long, unless the data skip bad lines.
        """
        filters = self._data.length_filters
        parts = [
            open_tokens(each, tokenizer, self._cache_dir, filters, part_marks)
            for each, part_marks in zip(
                self.parts, marks or [NO_MARKS] * len(self.parts), strict=True
            )
        ]
        self._refuse(part.too_long for part in parts)
        for part in parts:
            logger.info("%s: %s", part.texts.name, describe_pairs(part, filters))
        return PairDataset(parts, self._data.nums_in_epoch(parts), tokenizer, filters.max_tokens)

    def _refuse(self, found: Iterable[BadLines]) -> None:
        """Raise ValueError that lists all lines of ``found`` unless the data skip bad lines."""
        if not self._data.skip_bad_lines:
            bad_lines = BadLines()
            for each in found:
                bad_lines.extend(each)
            bad_lines.refuse(SKIP)


@dataclass(frozen=True, slots=True)
class _Sample:
    """The texts of some sides of a sample of pairs, which may be read several times."""

    texts: TranslationTexts
    sides: slice

    def __iter__(self) -> Iterator[str]:
        return self.texts.sample(sides=self.sides)


def describe_pairs(part: EncodedPairs, filters: LengthFilters) -> str:
    """How many pairs of a file are trained on, how many lines are left out, and why."""
    pairs = counted(len(part), "pair")
    if not part.left_out:
        return pairs
    reasons = {RATIO: f"more than {filters.max_ratio} tokens on a side for each of the other"}
    num = sum(part.left_out.values())
    listed = ", ".join(f"{n:,} {reasons.get(why, why)}" for why, n in part.left_out.items())
    return f"{pairs}; {num:,} of {num + len(part):,} lines are left out: {listed}"
