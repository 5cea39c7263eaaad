"""Translation against rivals: same weights, same texts, same processors, in turn in one run.

    python -m bench.translation --data-dir DATA_DIR --rivals ctranslate2 --pairs 20
    python -m bench.translation --data-dir DATA_DIR --rivals ctranslate2 --model base --search beam4
    python -m bench.translation --data-dir DATA_DIR --rivals ctranslate2 --loads sweep,latency

Loads: ``saturated`` (64 concurrent calls), ``batches`` (32 texts per call), ``single`` (one at a
time), ``poisson80`` (arrivals at 80 % of the rival's capacity; any percentage), ``bare`` (against a
bare loop over the same graphs), ``sweep`` (1 to 256 concurrent calls) and ``latency`` (Poisson
arrivals at many rates); the last two draw pictures. ``hugging-face`` takes part in ``saturated``
and ``single``. A pair of one load takes about twice ``--seconds``, so the four minutes of 20 pairs
are also the time of each load; finding the rival's best setting takes one minute and the quality
another. Writes ``build/bench/translation-<model>-<search>.json``.
"""

import argparse
import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from bench import translation_report as report
from bench.models.copying_transformer import copying_bundle
from bench.reporting import save_results
from bench.serving import RunningServer, running_server
from bench.texts import KINDS, add_data_dir, sample_texts
from bench.translation_ceilings import against_bare_loop, against_hugging_face
from bench.translation_curves import draw_latency, draw_sweep
from bench.translation_engines import Caller, connected, running_ctranslate2
from bench.translation_loads import OURS, Contest, Figure
from bench.translation_quality import quality_sample, translate_all
from bench.translation_tuning import COMPUTE_TYPES, Start, Trial, fastest, quickest, tune

EN_DE = Path("bundles/en-de/1")
RIVALS = ("ctranslate2", "hugging-face")
BEAM_SIZES = {"greedy": 1, "beam4": 4}
DEFAULT_LOADS = "saturated,batches,single,poisson50,poisson80,poisson95"
NUM_TEXTS = 2048
CTRANSLATE2 = "CTranslate2"


def parse_arguments() -> argparse.Namespace:
    """The command line, with what follows from it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_data_dir(parser)
    parser.add_argument("--rivals", default="", help=f"some of {', '.join(RIVALS)}")
    parser.add_argument("--model", choices=("en-de", "base"), default="en-de")
    parser.add_argument("--bundle", type=Path, help="another bundle than that of --model")
    parser.add_argument("--search", choices=BEAM_SIZES, default="greedy")
    parser.add_argument("--loads", default=DEFAULT_LOADS)
    parser.add_argument("--texts", choices=KINDS, default="mixed")
    parser.add_argument("--pairs", type=int, default=5, help="measurements of each, in turn")
    parser.add_argument("--seconds", type=float, default=6, help="about, of each measurement")
    parser.add_argument("--quality-texts", type=int, default=300)
    parser.add_argument("--server-flags", default="", help="for our server, blanks between them")
    parser.add_argument("--docs", action="store_true", help="draw pictures into docs/pictures")
    arguments = parser.parse_args()
    arguments.rivals = [name for name in arguments.rivals.split(",") if name]
    if unknown := set(arguments.rivals) - set(RIVALS):
        parser.error(f"no rivals of translation: {', '.join(unknown)}")
    arguments.loads = arguments.loads.split(",")
    arguments.beam_size = BEAM_SIZES[arguments.search]
    if arguments.bundle is None:
        is_base = arguments.model == "base"
        arguments.bundle = copying_bundle(arguments.data_dir) if is_base else EN_DE
    return arguments


class Bench:
    """One run: servers, loads, quality."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._texts = sample_texts(arguments.data_dir, arguments.texts, NUM_TEXTS)
        self.figures: list[Figure] = []
        self.curves: dict[str, Any] = {}
        self.translations: dict[str, list[str]] = {}
        self.trials: list[Trial] = []
        self.sample = quality_sample(
            arguments.data_dir,
            arguments.bundle / "tokenizer.json",
            arguments.quality_texts,
            copies=arguments.model == "base",
        )

    async def run(self) -> None:
        """Measure all that was asked for."""
        async with self._our_caller() as ours:
            if "ctranslate2" in self._arguments.rivals:
                await self._against_ctranslate2(ours)
            else:
                await self._draw({OURS: ours}, capacity=0.0)
            if "bare" in self._arguments.loads:
                self.figures += await against_bare_loop(ours, self._arguments, self._texts)
            if "hugging-face" in self._arguments.rivals:
                self.figures += await against_hugging_face(ours, self._arguments, self._texts)
            self.translations[OURS] = await translate_all(ours, self.sample.sources)
        await self._translate_in_fp32()

    @asynccontextmanager
    async def _our_caller(self, precision: str = "auto") -> AsyncIterator[Caller]:
        bundle: Path = self._arguments.bundle
        flags = [f"--bundles={bundle.parent.parent}", f"--models={bundle.parent.name}"]
        flags += [f"--precision={precision}", *self._arguments.server_flags.split()]
        with running_server(*flags) as server:
            async with connected(server, self._arguments.beam_size) as caller:
                yield caller

    async def _against_ctranslate2(self, ours: Caller) -> None:
        from bench.rivals.ctranslate2_model import convert  # installed only beside rivals

        bundle: Path = self._arguments.bundle
        model = convert(bundle, Path("build/bench/ctranslate2") / bundle.parent.name)
        start = partial(running_ctranslate2, model, bundle / "tokenizer.json")
        num_threads = len(os.sched_getaffinity(0))
        beam_size = self._arguments.beam_size
        self.trials = await tune(start, self._texts, beam_size, num_threads)
        print(report.trials_table(self.trials), flush=True)
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

    def _connected(self, server: RunningServer) -> Any:
        return connected(server, self._arguments.beam_size)

    async def _measure(self, contest: Contest) -> None:
        for load in self._arguments.loads:
            if load not in ("bare", "sweep", "latency"):
                figures = await contest.measure(load)
                print(report.ratios_table(figures), flush=True)
                self.figures += figures

    async def _draw(self, callers: dict[str, Caller], capacity: float) -> None:
        name = f"translation-{self._arguments.model}-{self._arguments.search}"
        arguments = self._arguments
        if "sweep" in arguments.loads:
            self.curves["sweep"] = await draw_sweep(
                name, callers, self._texts, arguments.pairs, arguments.seconds, arguments.docs
            )
        if "latency" in arguments.loads and capacity:
            self.curves["latency"] = await draw_latency(
                name, callers, self._texts, capacity, arguments.seconds, arguments.docs
            )

    async def _translate_with_ctranslate2(self, start: Start) -> None:
        for compute_type in COMPUTE_TYPES:
            trials = [t for t in self.trials if t.setting.compute_type == compute_type]
            with start(fastest(trials).setting) as server:
                async with self._connected(server) as caller:
                    translations = await translate_all(caller, self.sample.sources)
            self.translations[f"{CTRANSLATE2} {compute_type}"] = translations

    async def _translate_in_fp32(self) -> None:
        """What the most exact precision of the bundle answers, to compare all others with."""
        names = {path.name for path in self._arguments.bundle.iterdir()}
        precision = next(p for p in ("fp32", "fp16", "int8") if f"weights.{p}.bin" in names)
        async with self._our_caller(precision) as caller:
            exact = await translate_all(caller, self.sample.sources)
        self.translations[f"{OURS} {precision}"] = exact
        self.exact = exact


def main() -> None:
    """Measure, print tables, and keep all of it as JSON."""
    arguments = parse_arguments()
    bench = Bench(arguments)
    asyncio.run(bench.run())
    qualities = report.qualities(bench.sample, bench.translations, bench.exact)
    print(report.ratios_table(bench.figures))
    print(report.quality_table(qualities))
    results = {
        "arguments": {name: str(value) for name, value in vars(arguments).items()},
        "trials": report.trials_as_json(bench.trials),
        "figures": report.figures_as_json(bench.figures),
        "curves": bench.curves,
        "quality": qualities,
    }
    print(save_results(f"translation-{arguments.model}-{arguments.search}", results))


if __name__ == "__main__":
    main()
