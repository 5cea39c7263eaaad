"""Runs one stage of the trial in this process; `bench.gpu` starts such a process for each stage.

python -m bench.gpu.stage starts --seconds 40
"""

import argparse
import importlib
import os
import sys
from collections.abc import Mapping
from types import MappingProxyType

from bench.arguments import bench_parser
from bench.gpu.trial import Trial

MODULES: Mapping[str, str] = MappingProxyType(
    {
        "starts": "starts",
        "bundles": "models",
        "correctness": "correctness",
        "speed": "speed",
        "profile": "profiling",
        "rivals": "rivals",
    }
)
"""The module of each stage. Its function ``run`` takes the `Trial`."""


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = bench_parser(__doc__, reads_data=False)
    parser.add_argument("stage", choices=MODULES)
    parser.add_argument(
        "--seconds", type=float, required=True, help="time after which no part begins"
    )
    parser.add_argument("--smoke", action="store_true", help="as little as possible, on the CPU")
    return parser


def main() -> None:
    """Run the stage; exit code 1 if a part of it failed."""
    arguments = build_parser().parse_args()
    trial = Trial(arguments.stage, arguments.seconds, arguments.smoke)
    # Imported here, because a stage must not fail for the packages of another one.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # must be set before ONNX Runtime is loaded
    module = importlib.import_module(f"bench.gpu.{MODULES[arguments.stage]}")
    module.run(trial)
    sys.exit(1 if trial.num_failed else 0)


if __name__ == "__main__":
    main()
