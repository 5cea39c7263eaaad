"""Plots for translation servers: throughput by concurrency, and latency by load."""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from bench.loads import closed_loop, in_turn, poisson
from bench.reporting import draw, failures_of, table
from bench.translation.caller import Caller

LEVELS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
LOAD_SHARES = (0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 1.05)


async def draw_sweep(
    name: str, callers: Mapping[str, Caller], texts: Sequence[str], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Plot closed loops of 1 to 256 callers.

    The result holds median throughputs per system, and the ratio of 256 callers to the peak.
    """
    measures = {
        (system, level): partial(closed_loop, caller.send, texts, level, arguments.seconds)
        for level in LEVELS
        for system, caller in callers.items()
    }
    measured = await in_turn(measures, arguments.pairs, warm_ups=0)
    speeds = {
        key: statistics.median(r.texts_per_second for r in of) for key, of in measured.items()
    }
    found, rows = {}, []
    for system in callers:
        curve = [speeds[system, level] for level in LEVELS]
        columns = {str(level): speeds[system, level] for level in LEVELS}
        columns["last over peak"] = curve[-1] / max(curve)
        rows.append({"texts/s by concurrent callers": system, **columns})
        found[system] = (LEVELS, curve)
    print(table(rows))
    title, labels = "Throughput against concurrency", ("concurrent calls", "texts per second")
    print(draw(f"{name}-throughput", found, title, *labels, log_x=True, into_docs=arguments.docs))
    failures = failures_of([result for results in measured.values() for result in results])
    return {"texts_per_second": rows, "failures": failures}


async def draw_latency(
    name: str,
    callers: Mapping[str, Caller],
    texts: Sequence[str],
    capacity: float,
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """Plot Poisson arrivals at shares of ``capacity``: p50 and p99 in milliseconds per system."""
    rates = [share * capacity for share in LOAD_SHARES]
    found: dict[str, list[float]] = {f"{s}, p{p}": [] for s in callers for p in (50, 99)}
    for rate in rates:
        calls = texts[: max(100, round(rate * arguments.seconds))]
        for system, caller in callers.items():
            result = await poisson(caller.send, calls, rate)
            for percent in (50, 99):
                found[f"{system}, p{percent}"].append(1e3 * result.latency(percent))
    curves = {label: (rates, milliseconds) for label, milliseconds in found.items()}
    title, labels = "Latency against load", ("texts per second that arrive", "milliseconds")
    print(draw(f"{name}-latency", curves, title, *labels, log_y=True, into_docs=arguments.docs))
    return {"texts_per_second": rates, **found}
