"""Texts with their labels, scores or right choices, for models with a classification head.

The tasks and their inputs are those of Radford et al., Improving Language Understanding by
Generative Pre-Training, 2018, section 3.3. Depends on files only, not on tokenizers or models.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from attendant_export.data.bad_lines import EMPTY, BadLines
from attendant_export.data.text_files import numbered_lines

CLASSIFY, ENTAILMENT, SIMILARITY, MULTIPLE_CHOICE = TASKS = (
    "classify",
    "entailment",
    "similarity",
    "multiple-choice",
)
COLUMNS = {
    CLASSIFY: "text<TAB>label",
    ENTAILMENT: "premise<TAB>hypothesis<TAB>label",
    SIMILARITY: "text<TAB>text<TAB>score, a number that is higher the more similar the texts are",
    MULTIPLE_CHOICE: "context<TAB>choice<TAB>choice...<TAB>number of the right choice, from 1",
}
"""The columns of a line for each task."""
NUM_COLUMNS = {CLASSIFY: (2, 2), ENTAILMENT: (3, 3), SIMILARITY: (3, 3), MULTIPLE_CHOICE: (4, 102)}
"""The least and the largest number of columns."""
NO_NUMBER, NO_CHOICE = "no finite number as the score", "no number of a choice in the last column"


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A line of a file: what the model reads, and the answer."""

    texts: tuple[str, ...]
    """The columns before the answer."""
    answer: str
    """A label, a number, or the number of the right choice."""
    number: int
    """That of the line, from 1."""

    def inputs(self, task: str) -> list[tuple[str, ...]]:
        """The texts and pairs that the model reads.

        For similarity, both orders; for multiple choice, the context with each choice.
        """
        first, *others = self.texts
        if task == SIMILARITY:
            return [(first, others[0]), (others[0], first)]
        if task == MULTIPLE_CHOICE:
            return [(first, choice) for choice in others]
        return [self.texts]


@dataclass(frozen=True, slots=True)
class LabelledTexts:
    """The usable lines of a file."""

    path: Path
    task: str
    rows: Sequence[LabelledText]

    @property
    def name(self) -> str:
        """The name of the file and its size, for quality figures."""
        return f"{self.path.name}, {len(self.rows)} lines"


def read_labelled(path: Path, task: str, bad_lines: BadLines | None = None) -> LabelledTexts:
    """The lines of a file of a task, with `COLUMNS`.

    Adds lines that are not of the task to ``bad_lines``; without it, raises ValueError that lists
    them. Also raises ValueError for a file without others, and as `numbered_lines`.
    """
    bad, rows = BadLines() if bad_lines is None else bad_lines, []
    for number, line in numbered_lines(path, bad):
        *texts, answer = line.split("\t")
        row = LabelledText(tuple(texts), answer.strip(), number)
        problem = _problem(row, task)
        if problem:
            bad.add(path, number, problem)
        else:
            rows.append(row)
    if bad_lines is None:
        bad.refuse()
    if not rows and not bad.counts:
        raise ValueError(f"{path} has no lines")
    return LabelledTexts(path, task, rows)


def read_texts(path: Path, task: str) -> list[str]:
    """The texts of all lines of a file, without answers. Raises as `read_labelled`."""
    return [text for row in read_labelled(path, task).rows for text in row.texts]


def _problem(row: LabelledText, task: str) -> str | None:
    """What is wrong with a line, if anything."""
    least, most = NUM_COLUMNS[task]
    if not least <= len(row.texts) + 1 <= most:
        return f"not {COLUMNS[task].split(',')[0]}"
    if not (all(text.strip() for text in row.texts) and row.answer):
        return EMPTY
    if task == SIMILARITY and not _is_finite(row.answer):
        return NO_NUMBER
    if task == MULTIPLE_CHOICE and row.answer not in map(str, range(1, len(row.texts))):
        return NO_CHOICE
    return None


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def labels_of(texts: LabelledTexts) -> list[str]:
    """The labels of the head, in order.

    Those of the lines, sorted; the other tasks have one label, the score of a pair. Raises
    ValueError if all lines have the same label.
    """
    if texts.task in (SIMILARITY, MULTIPLE_CHOICE):
        return [texts.task]
    labels = sorted({row.answer for row in texts.rows})
    if len(labels) < 2:
        raise ValueError(f"{texts.path} has no other label than {', '.join(labels)}")
    return labels


def score_range(texts: LabelledTexts) -> tuple[float, float]:
    """The lowest and the highest score of lines with similarities.

    Raises ValueError if all are the same.
    """
    scores = [float(row.answer) for row in texts.rows]
    if min(scores) == max(scores):
        raise ValueError(f"{texts.path} has no other score than {scores[0]:g}")
    return min(scores), max(scores)
