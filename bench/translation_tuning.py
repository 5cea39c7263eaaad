"""Finding the settings in which CTranslate2's server does best, before anything is compared."""

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from bench.loads import closed_loop
from bench.serving import RunningServer
from bench.translation_engines import CTranslate2Setting, connected

CONCURRENCY = 64
TRIAL_SECONDS = 4.0
HOPELESS_SECONDS = 1.0
"""A setting that takes so long for one text is not tried any further."""
COMPUTE_TYPES = ("int8", "float32")
MAX_TEXTS = (16, 128)
"""Batch sizes that are tried beside the default."""

Start = Callable[[CTranslate2Setting], AbstractContextManager[RunningServer]]


@dataclass(frozen=True, slots=True)
class Trial:
    """What one setting did."""

    setting: CTranslate2Setting
    texts_per_second: float
    """Saturated."""
    single_seconds: float
    """Median latency of one text at a time."""


async def try_setting(
    start: Start, setting: CTranslate2Setting, texts: Sequence[str], beam_size: int
) -> Trial:
    """Both loads for a few seconds each, on a server of its own."""
    with start(setting) as server:
        async with connected(server, beam_size) as caller:
            warm_up = await closed_loop(caller.send, texts, 1, seconds=TRIAL_SECONDS / 4)
            if warm_up.latency(50) > HOPELESS_SECONDS:
                return Trial(setting, 0.0, warm_up.latency(50))
            single = await closed_loop(caller.send, texts, 1, seconds=TRIAL_SECONDS / 2)
            many = await closed_loop(caller.send, texts, CONCURRENCY, seconds=TRIAL_SECONDS)
    return Trial(setting, many.texts_per_second, single.latency(50))


async def tune(start: Start, texts: Sequence[str], beam_size: int, num_threads: int) -> list[Trial]:
    """Precisions and threads first; then, for the fastest, what is in a batch."""
    settings = [
        CTranslate2Setting(compute_type, inter, num_threads // inter)
        for compute_type in COMPUTE_TYPES
        for inter in (1, num_threads)
    ]
    trials = [await try_setting(start, setting, texts, beam_size) for setting in settings]
    best = fastest(trials).setting
    more = [dataclasses.replace(best, max_texts=n) for n in MAX_TEXTS]
    more.append(dataclasses.replace(best, in_flight=best.inter_threads + 1))
    return trials + [await try_setting(start, setting, texts, beam_size) for setting in more]


def fastest(trials: Sequence[Trial]) -> Trial:
    """The one with the highest saturated throughput."""
    return max(trials, key=lambda trial: trial.texts_per_second)


def quickest(trials: Sequence[Trial]) -> Trial:
    """The one with the lowest latency of one text."""
    return min(trials, key=lambda trial: trial.single_seconds)
