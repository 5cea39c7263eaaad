"""Starts CTranslate2's server and finds its best settings before the comparison."""

import dataclasses
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.loads import closed_loop
from bench.reporting import table
from bench.servers import RunningServer, free_port, running_program
from bench.translation.caller import translation_caller

CONCURRENCY = 64
TRIAL_SECONDS = 4.0
HOPELESS_SECONDS = 1.0
"""A setting that is slower for one text is not tuned further."""
COMPUTE_TYPES = ("int8", "float32")
MAX_TEXTS = (16, 128)
"""Batch sizes to try in addition to the default."""


@dataclass(frozen=True, slots=True)
class CTranslate2Setting:
    """Settings of CTranslate2's server."""

    compute_type: str
    inter_threads: int
    intra_threads: int
    max_texts: int = 64
    max_batch_tokens: int = 2048
    in_flight: int = 0

    def flags(self) -> list[str]:
        """The settings as flags of `bench.rivals.ctranslate2_server`."""
        values = dataclasses.asdict(self).items()
        return [f"--{name.replace('_', '-')}={value}" for name, value in values]


@contextmanager
def running_ctranslate2(
    model: Path, tokenizer: Path, setting: CTranslate2Setting
) -> Iterator[RunningServer]:
    """CTranslate2's server in its own process, ready when the block begins."""
    port = free_port()
    command = [sys.executable, "-m", "bench.rivals.ctranslate2_server", *setting.flags()]
    command += [f"--model={model}", f"--tokenizer={tokenizer}", f"--port={port}"]
    with running_program(command) as pid:
        yield RunningServer(f"127.0.0.1:{port}", pid=pid)


Start = Callable[[CTranslate2Setting], AbstractContextManager[RunningServer]]


@dataclass(frozen=True, slots=True)
class Trial:
    """The speed of one setting."""

    setting: CTranslate2Setting
    texts_per_second: float
    """Saturated."""
    single_seconds: float
    """Median latency of one text at a time."""


async def try_setting(
    start: Start, setting: CTranslate2Setting, texts: Sequence[str], beam_size: int
) -> Trial:
    """Run both loads for a few seconds each on a new server."""
    with start(setting) as server:
        async with translation_caller(server, beam_size) as caller:
            warm_up = await closed_loop(caller.send, texts, 1, seconds=TRIAL_SECONDS / 4)
            if warm_up.latency(50) > HOPELESS_SECONDS:
                return Trial(setting, 0.0, warm_up.latency(50))
            single = await closed_loop(caller.send, texts, 1, seconds=TRIAL_SECONDS / 2)
            many = await closed_loop(caller.send, texts, CONCURRENCY, seconds=TRIAL_SECONDS)
    return Trial(setting, many.texts_per_second, single.latency(50))


async def tune(start: Start, texts: Sequence[str], beam_size: int) -> list[Trial]:
    """Try precisions and threads first, then batch sizes and batches in flight for the fastest."""
    num_threads = len(os.sched_getaffinity(0))
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
    """The trial with the highest saturated throughput."""
    return max(trials, key=lambda trial: trial.texts_per_second)


def quickest(trials: Sequence[Trial]) -> Trial:
    """The trial with the lowest latency of one text."""
    return min(trials, key=lambda trial: trial.single_seconds)


def trials_table(trials: Sequence[Trial]) -> str:
    """The speed of the rival in every setting."""
    return table(
        [
            {
                "setting of CTranslate2": " ".join(trial.setting.flags()),
                "saturated texts/s": trial.texts_per_second,
                "one text, p50 ms": 1e3 * trial.single_seconds,
            }
            for trial in trials
        ]
    )
