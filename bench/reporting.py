"""Comparisons, tables, result files and plots for all benches.

Files go to ``build/bench/``, which git ignores. Plots can go to ``docs/pictures/`` instead.
"""

import importlib.metadata
import json
import os
import platform
import re
import statistics
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from bench.loads import UNITS, LoadResult

OURS = "attendant"
RESULTS = Path("build/bench")
PICTURES = Path("docs/pictures")
PACKAGES = ("attendant-server", "onnxruntime", "ctranslate2", "torch", "transformers")
"""Packages whose installed versions are part of the machine's description."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Five-number summary of a sample."""

    median: float
    least: float
    lower_quartile: float
    upper_quartile: float
    most: float
    num_values: int

    def __format__(self, spec: str) -> str:
        """The median and, in brackets, quartiles and extremes, each formatted by ``spec``."""
        inner = f"{self.lower_quartile:{spec}}–{self.upper_quartile:{spec}}"
        outer = f"{self.least:{spec}}–{self.most:{spec}}"
        return f"{self.median:{spec}} ({inner}; {outer})"


def spread(values: Sequence[float]) -> Spread:
    """Median, quartiles (inclusive method) and extremes of at least one value."""
    several = list(values) * 2 if len(values) == 1 else values
    lower, median, upper = statistics.quantiles(several, n=4, method="inclusive")
    return Spread(median, min(values), lower, upper, max(values), len(values))


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure of two systems from interleaved measurements."""

    ours: Spread
    theirs: Spread
    ratio_of_medians: float
    pair_ratios: Spread
    """Spread of the ratios within pairs, in which noise of the machine largely cancels out."""


def compare(ours: Sequence[float], theirs: Sequence[float]) -> Comparison:
    """Compare the values of interleaved pairs. Raises ValueError for unequal numbers of values."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    medians = statistics.median(ours) / statistics.median(theirs)
    return Comparison(spread(ours), spread(theirs), medians, spread(ratios))


@dataclass(frozen=True, slots=True)
class Figure:
    """One unit of one load on two systems: a row of the table of ratios."""

    load: str
    system: str
    rival: str
    unit: str
    comparison: Comparison
    client_cpu_shares: dict[str, float]
    failures: dict[str, dict[str, int]]


def figures_of(
    load: str,
    measured: Mapping[str, Sequence[LoadResult]],
    units: Sequence[str],
    system: str = OURS,
) -> list[Figure]:
    """``system`` compared in the given `UNITS` with every other measured system."""
    figures = []
    for rival in (name for name in measured if name != system):
        both = {name: measured[name] for name in (system, rival)}
        shares = {n: statistics.median(r.client_cpu_share for r in rs) for n, rs in both.items()}
        failures = {name: dict(failures_of(results)) for name, results in both.items()}
        for unit in units:
            ours, theirs = ([UNITS[unit](r) for r in results] for results in both.values())
            compared = compare(ours, theirs)
            figures.append(Figure(load, system, rival, unit, compared, shares, failures))
    return figures


def failures_of(results: Sequence[LoadResult]) -> Counter[str]:
    """All failures of several measurements, counted by reason."""
    return sum((result.failures for result in results), Counter[str]())


def ratios_table(figures: Sequence[Figure]) -> str:
    """Medians, ratios of medians, and the spread of the pairs' ratios."""
    return table(
        [
            {
                "load": figure.load,
                "figure": figure.unit,
                "system": figure.system,
                "against": figure.rival,
                "median": figure.comparison.ours.median,
                "its median": figure.comparison.theirs.median,
                "ratio of medians": f"{figure.comparison.ratio_of_medians:.2f}",
                "ratios of pairs (quartiles; extremes)": f"{figure.comparison.pair_ratios:.2f}",
                "client's CPU": " / ".join(f"{s:.0%}" for s in figure.client_cpu_shares.values()),
                "failures": {name: found for name, found in figure.failures.items() if found} or 0,
            }
            for figure in figures
        ]
    )


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """A Markdown table of rows with the same keys; columns after the first are right-aligned."""
    headers = list(rows[0])
    lines = [headers, ["---"] + ["---:"] * (len(headers) - 1)]
    lines += [[_cell(value) for value in row.values()] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def report(name: str, results: Mapping[str, Any], *tables: str) -> None:
    """Print the tables, or without tables the results as JSON.

    Also saves the results with the machine's description as ``build/bench/<name>.json``.
    """
    print("\n".join(tables) or json.dumps(results, indent=1, default=asdict))
    content = {"machine": describe_machine(), **results}
    path = RESULTS / f"{name}.json"
    RESULTS.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, default=asdict) + "\n", encoding="utf-8")
    print(path, file=sys.stderr)


def describe_machine() -> dict[str, Any]:
    """The facts about a machine that a comparison needs: processor, cores, versions, date."""
    installed = importlib.metadata.distributions()
    return {
        "date": date.today().isoformat(),
        "processor": _processor(),
        "num_cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {d.name: d.version for d in installed if d.name in PACKAGES},
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    named = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    return named[1] if named else platform.processor()


def draw(
    name: str,
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    title: str,
    x_label: str,
    y_label: str,
    *,
    log_x: bool = False,
    log_y: bool = False,
    into_docs: bool = False,
) -> Path:
    """Draw curves (x, y), named by their labels, to ``<name>.svg``.

    The file goes to ``build/bench/`` or, for the documentation, to ``docs/pictures/``.
    """
    import matplotlib  # takes half a second, and most benches draw nothing

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "attendant"  # makes the file reproducible
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for label, (x, y) in curves.items():
        axes.plot(x, y, marker="o", label=label)
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    if log_x:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
    if log_y:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    folder = PICTURES if into_docs else RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.svg"
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path
