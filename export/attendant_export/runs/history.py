"""The training curve of a run, as a CSV file and as a picture."""

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

from attendant_export.runs.checkpoint import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = {
    "minutes": "Minutes of training",
    "bleu": "BLEU",
    "chrf": "chrF",
    "casual_bleu": "BLEU without capitals and final punctuation",
    "mean_bleu": "Mean of both BLEU figures",
}
"""Columns whose titles are not their names."""


class History:
    """Rows of measured values in ``history.csv``, drawn to ``history.png``."""

    def __init__(self, run_dir: Path) -> None:
        """Continue ``history.csv`` of the run if it exists."""
        self._csv = run_dir / "history.csv"
        self._picture = run_dir / "history.png"
        self.rows: list[dict[str, float]] = []
        if self._csv.exists():
            with self._csv.open(encoding="utf-8") as file:
                self.rows = [
                    {k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)
                ]

    def append(self, row: dict[str, float]) -> None:
        """Append a row, which must have ``step``. Later rows may add columns."""
        self.rows.append(row)
        columns = list(dict.fromkeys(name for r in self.rows for name in r))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self._csv, text.getvalue())

    def draw(self) -> None:
        """Write `figure` to ``history.png``."""
        self.figure().savefig(self._picture)

    def figure(self) -> "Figure":
        """The run's name, and one panel with a title for each column except the step."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        names = [n for n in dict.fromkeys(n for r in self.rows for n in r) if n != "step"]
        figure = Figure(figsize=(6, 2 * len(names)), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(self._csv.resolve().parent.name, parse_math=False)
        panels = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
        for panel, name in zip(panels, names, strict=True):
            points = [(r["step"], r[name]) for r in self.rows if name in r]
            panel.plot(*zip(*points, strict=True))
            panel.set_title(title_of(name), fontsize="medium")
        panels[-1].set_xlabel("Step")
        return figure


def title_of(column: str) -> str:
    """The title of a column such as ``bleu``, or ``news.bleu`` of the validation set ``news``."""
    of_set, _, metric = column.rpartition(".")
    title = TITLES.get(metric, metric.replace("_", " ").capitalize())
    return f"{title} ({of_set})" if of_set else title
