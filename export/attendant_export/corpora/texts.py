"""The texts of a corpus that is translated: the lines of files, or a column of their lines."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attendant_export.data.bad_lines import BadLines
from attendant_export.data.duplicates import are_first
from attendant_export.data.pair_filters import DUPLICATES
from attendant_export.data.text_files import files_of, numbered_lines

BLANK = "blank"
TAB = "tab in a text; --column N reads one column"


@dataclass(frozen=True, slots=True)
class CorpusText:
    """A text of a corpus and its place."""

    index: int
    """From 0, among the texts that are neither blank nor bad lines."""
    file: Path
    line: int
    """From 1."""
    text: str


@dataclass(slots=True)
class CorpusCheck:
    """What the texts of a corpus are, before any is translated."""

    is_first: NDArray[np.bool_] | None
    """Whether each text occurs for the first time; None if repeated ones are translated as well."""
    num_texts: int = 0
    num_blank: int = 0
    bad_lines: BadLines = field(default_factory=BadLines)

    def is_translated(self, index: int) -> bool:
        """Whether a text is translated: the first of its kind, or each one."""
        return self.is_first is None or bool(self.is_first[index])

    def num_translated_before(self, index: int) -> int:
        """How many of the first ``index`` texts are translated."""
        return index if self.is_first is None else int(np.count_nonzero(self.is_first[:index]))

    @property
    def left_out(self) -> dict[str, int]:
        """How many lines are not translated, by reason."""
        num_repeated = self.num_texts - self.num_translated_before(self.num_texts)
        found = {BLANK: self.num_blank, DUPLICATES: num_repeated, **self.bad_lines.counts}
        return {reason: number for reason, number in found.items() if number}


@dataclass(frozen=True, slots=True)
class CorpusFiles:
    """Files and folders of texts, in order."""

    sources: tuple[Path, ...]
    column: int | None = None
    """The column with the text, from 1, of lines with tabs between columns; None: whole lines."""

    @property
    def files(self) -> list[Path]:
        """All files. Raises ValueError for a folder without files."""
        return [file for source in self.sources for file in files_of(source)]

    def check(self, finds_repeated: bool) -> CorpusCheck:
        """Read all files. Raises as `numbered_lines`."""
        check = CorpusCheck(None)
        if finds_repeated:
            check.is_first = are_first(self._counted(check))
        else:
            for _ in self._counted(check):
                pass
        return check

    def texts(self, start: int = 0) -> Iterator[CorpusText]:
        """The texts from the index ``start`` on. Raises as `numbered_lines`."""
        index = 0
        for file, line, text in self._lines(BadLines()):
            if text.strip():
                if index >= start:
                    yield CorpusText(index, file, line, text)
                index += 1

    def _counted(self, check: CorpusCheck) -> Iterator[str]:
        for _, _, text in self._lines(check.bad_lines):
            if text.strip():
                check.num_texts += 1
                yield text
            else:
                check.num_blank += 1

    def _lines(self, bad_lines: BadLines) -> Iterator[tuple[Path, int, str]]:
        """All lines that are not bad, with blank ones."""
        for file in self.files:
            for number, line in numbered_lines(file, bad_lines):
                columns = line.split("\t")
                if not line.strip():
                    yield file, number, line
                elif self.column is None and len(columns) > 1:
                    bad_lines.add(file, number, TAB)
                elif self.column is None:
                    yield file, number, line
                elif len(columns) < self.column:
                    bad_lines.add(file, number, f"no column {self.column}")
                else:
                    yield file, number, columns[self.column - 1]
