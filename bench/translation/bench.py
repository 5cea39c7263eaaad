"""One run of the translation bench: servers, loads, curves, quality."""

import argparse
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from bench.graphs import most_precise, read_manifest
from bench.reporting import OURS, Figure, ratios_table
from bench.servers import RunningServer, flags_for, running_server
from bench.texts import sample_texts
from bench.translation.caller import Caller, translation_caller
from bench.translation.ceiling import against_bare_loop
from bench.translation.contest import Contest
from bench.translation.curves import draw_latency, draw_sweep
from bench.translation.quality import describe_quality, wanted_translations
from bench.translation.tuning import (
    COMPUTE_TYPES,
    Start,
    Trial,
    fastest,
    quickest,
    running_ctranslate2,
    trials_table,
    tune,
)

NUM_TEXTS = 2048
CTRANSLATE2 = "CTranslate2"


class Bench:
    """Runs the selected measurements and collects their results."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._bundle: Path = arguments.bundle
        self._tokenizer = self._bundle / "tokenizer.json"
        self._texts = sample_texts(arguments.data_dir, "mixed", NUM_TEXTS)
        self._references = wanted_translations(
            arguments.data_dir, self._tokenizer, copies=arguments.model == "base"
        )
        self._translations: dict[str, list[str]] = {}
        self.figures: list[Figure] = []
        self.curves: dict[str, Any] = {}
        self.trials: list[Trial] = []
        self.quality: dict[str, dict[str, float]] = {}

    async def run(self) -> None:
        """Run all measurements that the arguments select."""
        async with self._our_caller() as ours:
            if "ctranslate2" in self._arguments.rivals:
                await self._against_ctranslate2(ours)
            else:
                await self._draw({OURS: ours}, capacity=0.0)
            if "bare" in self._arguments.loads:
                self.figures += await against_bare_loop(ours, self._arguments, self._texts)
            await self._translate(OURS, ours)
        precision = most_precise(read_manifest(self._bundle))
        async with self._our_caller(precision) as caller:
            exact = await self._translate(f"{OURS} {precision}", caller)
        for system, texts in self._translations.items():
            self.quality[system] = describe_quality(self._references, texts, exact)

    @asynccontextmanager
    async def _our_caller(self, precision: str = "auto") -> AsyncIterator[Caller]:
        flags = [f"--precision={precision}", *self._arguments.server_flags]
        with running_server(*flags_for(self._bundle), *flags) as server:
            async with self._connected(server) as caller:
                yield caller

    def _connected(self, server: RunningServer) -> AbstractAsyncContextManager[Caller]:
        return translation_caller(server, self._arguments.beam_size)

    async def _translate(self, system: str, caller: Caller) -> list[str]:
        self._translations[system] = await caller.translate(list(self._references))
        return self._translations[system]

    async def _against_ctranslate2(self, ours: Caller) -> None:
        from bench.rivals.ctranslate2_model import convert  # installed only with the rivals

        model = convert(self._bundle, Path("build/bench/ctranslate2") / self._bundle.parent.name)
        start = partial(running_ctranslate2, model, self._tokenizer)
        self.trials = await tune(start, self._texts, self._arguments.beam_size)
        print(trials_table(self.trials), flush=True)
        best, single = fastest(self.trials), quickest(self.trials)
        with start(best.setting) as for_throughput, start(single.setting) as for_single:
            async with self._connected(for_throughput) as a, self._connected(for_single) as b:
                contest = Contest(
                    ours=ours,
                    rival=CTRANSLATE2,
                    saturated_rival=a,
                    single_rival=b,
                    texts=self._texts,
                    rounds=self._arguments.pairs,
                    seconds=self._arguments.seconds,
                    capacity=best.texts_per_second,
                    single_seconds=single.single_seconds,
                )
                await self._measure(contest)
                await self._draw({OURS: ours, CTRANSLATE2: a}, best.texts_per_second)
        await self._translate_with_ctranslate2(start)

    async def _measure(self, contest: Contest) -> None:
        for load in self._arguments.loads:
            if load not in ("bare", "sweep", "latency"):
                figures = await contest.measure(load)
                print(ratios_table(figures), flush=True)
                self.figures += figures

    async def _draw(self, callers: dict[str, Caller], capacity: float) -> None:
        arguments = self._arguments
        name = f"translation-{arguments.model}-{arguments.search}"
        if "sweep" in arguments.loads:
            self.curves["sweep"] = await draw_sweep(name, callers, self._texts, arguments)
        if "latency" in arguments.loads and capacity:
            self.curves["latency"] = await draw_latency(
                name, callers, self._texts, capacity, arguments
            )

    async def _translate_with_ctranslate2(self, start: Start) -> None:
        for compute_type in COMPUTE_TYPES:
            trials = [t for t in self.trials if t.setting.compute_type == compute_type]
            with start(fastest(trials).setting) as server:
                async with self._connected(server) as caller:
                    await self._translate(f"{CTRANSLATE2} {compute_type}", caller)
