"""Measures attendant on a GPU, in stages with time limits.

    python -m bench.gpu --stages starts,bundles,correctness,speed --seconds 280

Each measurement is one line of JSON on standard output, printed as soon as it is known, so that a
trial that is cut short keeps its figures until then. Each stage is a process of its own, which is
ended at its time limit. If a stage fails, its error is printed, and the next stage runs. What
servers and libraries print goes to ``build/bench/gpu/<stage>.log``. docs/gpu-trial.md says how to
run it.

Stages and their time limits in seconds:
starts       versions, providers, one product, one step, one translation of a server
bundles      exports a Transformer base and a BERT base, unless an earlier call has
correctness  the tests marked ``gpu``; every graph against the CPU; one caller against 256; caches,
             exhausted memory, cancelled calls
speed        throughput, latency, share of the card's limits, use of the processors
profile      where the time of a step goes, with and without CUDA graphs and a pinned thread
rivals       transformers, sentence-transformers and CTranslate2 on the same card
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Never

from bench.arguments import bench_parser
from bench.gpu.stage import MODULES
from bench.gpu.trial import FOLDER

LIMITS = {
    "starts": 40.0,
    "bundles": 90.0,
    "correctness": 150.0,
    "speed": 100.0,
    "profile": 60.0,
    "rivals": 70.0,
}
"""Default time limit of each stage in seconds."""
END_SECONDS = 3.0
"""Time for a stage to end its servers before it is killed."""
NUM_LOG_LINES = 3
"""How many last lines of the log are shown for a stage that failed."""
Stage = tuple[str, float]


def stages_of(text: str) -> list[Stage]:
    """Parse names of stages, such as ``starts,speed:60``, with seconds that replace the limit.

    Raises ArgumentTypeError for an unknown stage and for bad seconds.
    """
    found = []
    for part in filter(None, text.split(",")):
        name, _, seconds = part.partition(":")
        if name not in MODULES:
            raise argparse.ArgumentTypeError(f"{name} is not one of {', '.join(MODULES)}")
        try:
            limit = float(seconds) if seconds else LIMITS[name]
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{part}: {seconds} is not a number") from error
        if not 0 < limit < float("inf"):
            raise argparse.ArgumentTypeError(f"{part}: want a finite number of seconds above 0")
        found.append((name, limit))
    if not found:
        raise argparse.ArgumentTypeError(f"want at least one of {', '.join(MODULES)}")
    return found


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = bench_parser(__doc__, reads_data=False)
    parser.add_argument(
        "--stages",
        type=stages_of,
        default=list(LIMITS.items()),
        metavar="NAME[:SECONDS],...",
        help="stages in the order in which they run, with other limits; default: all",
    )
    parser.add_argument(
        "--seconds", type=float, default=280.0, help="time limit of all stages together"
    )
    parser.add_argument(
        "--smoke", action="store_true", help="test the trial itself on a CPU, with tiny loads"
    )
    return parser


def run_stage(name: str, seconds: float, is_smoke: bool) -> str:
    """Run a stage in a process of its own for at most ``seconds``.

    Returns how it ended: "ok", "failed" or "time limit".
    """
    command = [sys.executable, "-m", "bench.gpu.stage", name, f"--seconds={seconds}"]
    command += ["--smoke"] if is_smoke else []
    with _log(name).open("wb") as log:
        process = subprocess.Popen(command, stderr=log, start_new_session=True)
        try:
            return "failed" if process.wait(seconds) else "ok"
        except subprocess.TimeoutExpired:
            return "time limit"
        finally:
            _end(process)


def _log(name: str) -> Path:
    FOLDER.mkdir(parents=True, exist_ok=True)
    return FOLDER / f"{name}.log"


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a stage with its servers, which are in its process group."""
    for number, patience in ((signal.SIGTERM, END_SECONDS), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def _tell(name: str, **figures: object) -> None:
    print(json.dumps({"stage": name, **figures}), flush=True)


def _stop(number: int, _: FrameType | None) -> Never:
    """End the trial by an exception, so that the stage that runs is ended too."""
    raise SystemExit(128 + number)


def main() -> None:
    """Run the stages; exit code 1 if one of them failed."""
    arguments = build_parser().parse_args()
    signal.signal(signal.SIGTERM, _stop)
    ends, all_ok = time.monotonic() + arguments.seconds, True
    for name, limit in arguments.stages:
        started = time.monotonic()
        seconds = min(limit, ends - started)
        ended = run_stage(name, seconds, arguments.smoke) if seconds > 0 else "no time is left"
        last: list[str] = []
        if ended == "failed":
            last = _log(name).read_text(errors="replace").splitlines()[-NUM_LOG_LINES:]
        _tell(
            name,
            ended=ended,
            seconds=round(time.monotonic() - started, 1),
            is_smoke_test=arguments.smoke,
            **({"log": last} if last else {}),
        )
        all_ok &= ended == "ok"
    sys.exit(0 if all_ok else 1)


if __name__ == "__main__":
    main()
