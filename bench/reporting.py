"""From measured numbers to tables, files and pictures.

Files go to ``build/bench/``, which git ignores; pictures go to ``docs/pictures/`` where asked.
"""

import importlib.metadata
import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

RESULTS = Path("build/bench")
PICTURES = Path("docs/pictures")
PACKAGES = ("attendant-server", "onnxruntime", "ctranslate2", "torch", "transformers")
"""Named in the description of the machine where they are installed."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A sample in five numbers."""

    median: float
    least: float
    lower_quartile: float
    upper_quartile: float
    most: float
    num_values: int

    def __format__(self, spec: str) -> str:
        """The median and, in brackets, the quartiles and the extremes, each in ``spec``."""
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
    """One figure of two systems, measured in turn."""

    ours: Spread
    theirs: Spread
    ratio_of_medians: float
    pair_ratios: Spread
    """Of the ratios of neighbours: what both felt of the machine's noise is gone from them."""


def compare(ours: Sequence[float], theirs: Sequence[float]) -> Comparison:
    """Compare what was measured in interleaved pairs; ValueError if some have no partner."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    medians = statistics.median(ours) / statistics.median(theirs)
    return Comparison(spread(ours), spread(theirs), medians, spread(ratios))


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table whose columns after the first are aligned to the right."""
    lines = [list(headers), ["---"] + ["---:"] * (len(headers) - 1), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def describe_machine() -> dict[str, Any]:
    """What a reader must know to compare: processor, cores, versions, day."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "date": date.today().isoformat(),
        "processor": _processor(),
        "num_cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": versions,
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def save_results(name: str, results: Mapping[str, Any]) -> Path:
    """Write ``build/bench/<name>.json`` with the machine's description; its path."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    content = {"machine": describe_machine(), **results}
    path.write_text(json.dumps(content, indent=1, default=_as_json) + "\n", encoding="utf-8")
    return path


def _as_json(value: object) -> Any:
    if isinstance(value, Spread | Comparison):
        return asdict(value)
    raise TypeError(f"{value!r} cannot be written as JSON")


@dataclass(frozen=True, slots=True)
class Curve:
    """A line of a picture."""

    label: str
    x: Sequence[float]
    y: Sequence[float]


def draw(
    name: str,
    curves: Sequence[Curve],
    title: str,
    x_label: str,
    y_label: str,
    *,
    log_x: bool = False,
    log_y: bool = False,
    into_docs: bool = False,
) -> Path:
    """Draw ``<name>.svg`` in ``build/bench/`` or, for people to read, in ``docs/pictures/``."""
    import matplotlib  # takes half a second, and most benches draw nothing

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "attendant"  # the same picture gives the same file
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for curve in curves:
        axes.plot(curve.x, curve.y, marker="o", label=curve.label)
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
