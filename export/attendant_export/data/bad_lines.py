"""Counts the lines of text files that cannot be trained on, and lists the first ones.

Does not read files.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

NOT_UTF8, NO_PAIR, EMPTY = "not UTF-8", "not two tab-separated texts", "empty side"
"""The kinds of bad lines that are found without a tokenizer."""
MAX_SHOWN = 20
"""Limit of the lines that a message lists."""
SKIP = "--skip-bad-lines leaves them out and goes on"


class BadLine(NamedTuple):
    """One line, and what is wrong with it."""

    file: Path
    number: int
    """From 1."""
    kind: str


@dataclass(slots=True)
class BadLines:
    """Bad lines: the number of each kind, and the first `MAX_SHOWN` of them."""

    counts: Counter[str] = field(default_factory=Counter)
    """How many lines of each kind."""
    first: list[BadLine] = field(default_factory=list)

    def add(self, file: Path, number: int, kind: str) -> None:
        """Count line ``number`` of ``file``."""
        self.counts[kind] += 1
        if len(self.first) < MAX_SHOWN:
            self.first.append(BadLine(file, number, kind))

    def extend(self, others: "BadLines") -> None:
        """Count those of other files as well."""
        self.counts += others.counts
        self.first = [*self.first, *others.first][:MAX_SHOWN]

    def summary(self) -> str:
        """How many lines there are, in all and of each kind."""
        listed = ", ".join(f"{number:,} {kind}" for kind, number in self.counts.items())
        return f"{counted(self.counts.total(), 'line')} ({listed})"

    def refuse(self, remedy: str = "") -> None:
        """Raise ValueError that lists the first lines and counts the others, if there are any.

        ``remedy`` says what can be done about them.
        """
        if not self.counts:
            return
        rows = [f"{self.summary()} cannot be used{remedy and '; ' + remedy}:"]
        rows += [f"{line.file}:{line.number}: {line.kind}" for line in self.first]
        if more := self.counts.total() - len(self.first):
            rows.append(f"and {counted(more, 'line')} more")
        raise ValueError("\n".join(rows))


def counted(number: int, noun: str) -> str:
    """Such as "1 line" or "2,000 lines", for a ``noun`` whose plural ends in -s."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
