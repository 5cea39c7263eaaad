"""Tables and JSON of what was measured on translations."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bench.reporting import markdown_table
from bench.translation_loads import Figure
from bench.translation_quality import Sample, describe_quality
from bench.translation_tuning import Trial


def ratios_table(figures: Sequence[Figure]) -> str:
    """Ours over theirs: medians, ratio of medians, and the spread of the pairs' ratios."""
    headers = ["load", "figure", "ours", "theirs", "ratio of medians"]
    headers += ["ratios of pairs (quartiles; extremes)", "client's CPU", "failures"]
    rows = []
    for figure in figures:
        both = figure.comparison
        shares = " / ".join(f"{share:.0%}" for share in figure.client_cpu_shares.values())
        failures = sum(sum(reasons.values()) for reasons in figure.failures.values())
        rows.append(
            [
                f"{figure.load}, against {figure.rival}",
                figure.unit,
                f"{both.ours.median:.4g}",
                f"{both.theirs.median:.4g}",
                f"{both.ratio_of_medians:.2f}",
                f"{both.pair_ratios:.2f}",
                shares,
                failures and figure.failures,
            ]
        )
    return markdown_table(headers, rows) + "\n"


def trials_table(trials: Sequence[Trial]) -> str:
    """What the rival did in every setting that was tried."""
    rows = [
        [trial.setting, f"{trial.texts_per_second:.1f}", f"{1e3 * trial.single_seconds:.1f}"]
        for trial in trials
    ]
    headers = ["setting of CTranslate2", "saturated texts/s", "one text, p50 ms"]
    return markdown_table(headers, rows) + "\n"


def qualities(
    sample: Sample, translations: Mapping[str, Sequence[str]], exact: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Of every system and precision."""
    return {
        system: describe_quality(sample, texts, exact) for system, texts in translations.items()
    }


def quality_table(found: Mapping[str, Mapping[str, float]]) -> str:
    """A line for each system and precision."""
    measures = list(next(iter(found.values())))
    rows = [
        [system, *(f"{value:.1f}" if value > 1 else f"{value:.1%}" for value in values.values())]
        for system, values in found.items()
    ]
    return markdown_table(["quality", *measures], rows) + "\n"


def figures_as_json(figures: Sequence[Figure]) -> list[dict[str, Any]]:
    """Everything that was measured of each figure."""
    return [asdict(figure) for figure in figures]


def trials_as_json(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Settings and what they did."""
    return [asdict(trial) for trial in trials]
