"""Curves of translation servers: throughput against concurrency, latency against load."""

import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from bench.loads import closed_loop, in_turn, poisson
from bench.reporting import Curve, draw, markdown_table
from bench.translation_engines import Caller
from bench.translation_loads import failures_of

LEVELS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
LOAD_SHARES = (0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 1.05)


async def draw_sweep(
    name: str,
    callers: Mapping[str, Caller],
    texts: Sequence[str],
    rounds: int,
    seconds: float,
    into_docs: bool,
) -> dict[str, Any]:
    """Closed loops of 1 to 256 callers; per system the medians, and 256 callers over the peak."""
    measures = {
        (system, level): partial(closed_loop, caller.send, texts, level, seconds)
        for level in LEVELS
        for system, caller in callers.items()
    }
    results = await in_turn(measures, rounds, warm_ups=0)
    found: dict[str, Any] = {}
    for system in callers:
        speeds = [
            statistics.median(r.texts_per_second for r in results[system, level])
            for level in LEVELS
        ]
        found[system] = {
            "concurrency": LEVELS,
            "texts_per_second": speeds,
            "p50_seconds": [
                statistics.median(r.latency(50) for r in results[system, level]) for level in LEVELS
            ],
            "failures": [dict(failures_of(results[system, level])) for level in LEVELS],
            "last_over_peak": speeds[-1] / max(speeds),
        }
    rows = [
        [system, *(f"{speed:.0f}" for speed in curve["texts_per_second"]), curve["last_over_peak"]]
        for system, curve in found.items()
    ]
    headers = ["texts/s with so many callers", *map(str, LEVELS), "last over peak"]
    print(markdown_table(headers, rows))
    lines = [Curve(system, LEVELS, curve["texts_per_second"]) for system, curve in found.items()]
    title, labels = "Throughput against concurrency", ("concurrent calls", "texts per second")
    print(draw(f"{name}-throughput", lines, title, *labels, log_x=True, into_docs=into_docs))
    return found


async def draw_latency(
    name: str,
    callers: Mapping[str, Caller],
    texts: Sequence[str],
    capacity: float,
    seconds: float,
    into_docs: bool,
) -> dict[str, Any]:
    """Poisson arrivals at shares of ``capacity``: p50 and p99 of every system."""
    rates = [share * capacity for share in LOAD_SHARES]
    found: dict[str, Any] = {
        system: {"texts_per_second": rates, "p50_seconds": [], "p99_seconds": []}
        for system in callers
    }
    for rate in rates:
        calls = texts[: max(100, round(rate * seconds))]
        for system, caller in callers.items():
            result = await poisson(caller.send, calls, rate)
            found[system]["p50_seconds"].append(result.latency(50))
            found[system]["p99_seconds"].append(result.latency(99))
    lines = [
        Curve(f"{system}, {percentile}", rates, [1e3 * s for s in curve[f"{percentile}_seconds"]])
        for system, curve in found.items()
        for percentile in ("p50", "p99")
    ]
    title, labels = "Latency against load", ("texts per second that arrive", "milliseconds")
    print(draw(f"{name}-latency", lines, title, *labels, log_y=True, into_docs=into_docs))
    return found
