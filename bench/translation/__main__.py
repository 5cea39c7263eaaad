"""Compares attendant with rivals on the same weights, texts and processors, interleaved in time.

    python -m bench.translation --data-dir DATA_DIR --rivals ctranslate2 --pairs 20
    python -m bench.translation --data-dir DATA_DIR --rivals ctranslate2 --model base --search beam4
    python -m bench.translation --data-dir DATA_DIR --rivals ctranslate2 --loads sweep,latency

Loads: ``saturated`` (64 concurrent calls), ``batches`` (32 texts per call), ``single`` (one at a
time), ``poisson80`` (Poisson arrivals at 80 % of the rival's capacity; any percentage), ``bare`` (a
bare loop over the same graphs as the rival), ``sweep`` (1 to 256 concurrent calls) and ``latency``
(Poisson arrivals at many rates). The last two draw plots. A pair of one load takes about twice
``--seconds``, so 20 pairs take about four minutes per load. Tuning the rival takes another minute,
and measuring quality a further one.
"""

import argparse
import asyncio
from pathlib import Path

from bench.arguments import add_server_flags, bench_parser, some_of
from bench.models.build import built_bundle
from bench.reporting import ratios_table, report, table
from bench.translation.bench import Bench
from bench.translation.contest import LOADS

EN_DE = Path("bundles/en-de/3")
BEAM_SIZES = {"greedy": 1, "beam4": 4}
DEFAULT_LOADS = "saturated,batches,single,poisson50,poisson80,poisson95"


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = bench_parser(__doc__)
    rivals = some_of("ctranslate2")
    parser.add_argument("--rivals", type=rivals, default=[], help="ctranslate2; default: none")
    parser.add_argument("--model", choices=("en-de", "base", "opus"), default="en-de")
    parser.add_argument("--bundle", type=Path, help="bundle to use instead of --model")
    parser.add_argument("--search", choices=BEAM_SIZES, default="greedy")
    loads = some_of(*LOADS, "bare", "sweep", "latency")
    parser.add_argument("--loads", type=loads, default=DEFAULT_LOADS)
    parser.add_argument("--pairs", type=int, default=5, help="measurements of each system")
    parser.add_argument("--seconds", type=float, default=6, help="duration of a measurement, about")
    parser.add_argument("--docs", action="store_true", help="draw plots into docs/pictures")
    add_server_flags(parser)
    return parser


def main() -> None:
    """Run the bench, print tables and save the results."""
    arguments = build_parser().parse_args()
    arguments.beam_size = BEAM_SIZES[arguments.search]
    if arguments.bundle is None:
        is_built_in = arguments.model == "en-de"
        built = f"copy-{arguments.model}"
        arguments.bundle = EN_DE if is_built_in else built_bundle(built, arguments.data_dir)
    bench = Bench(arguments)
    asyncio.run(bench.run())
    results = {
        "arguments": {name: str(value) for name, value in vars(arguments).items()},
        "trials": bench.trials,
        "figures": bench.figures,
        "curves": bench.curves,
        "quality": bench.quality,
    }
    tables = [ratios_table(bench.figures)] if bench.figures else []
    tables.append(table([{"quality": name, **of} for name, of in bench.quality.items()]))
    report(f"translation-{arguments.model}-{arguments.search}", results, *tables)


if __name__ == "__main__":
    main()
