"""Trains the built-in translation models on a GPU within a given time, and packs their runs.

    python -m bench.gpu.training --data-dir DATA_DIR --out OUT --seconds 280 --models en-de,de-en

The models share the time equally and are trained one after the other, from scratch, with
``attendant-export train-translation``. After each one, the pieces of all models so far are written
to OUT (`bench.gpu.pieces`), so that a training that is cut short loses one model at most. Prints a
line of JSON for each model. ``--options`` adds options to each training or replaces them.
"""

import argparse
import csv
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bench.arguments import bench_parser, some_of
from bench.gpu.pieces import WEIGHTS, split
from bench.gpu.trial import FOLDER, described

FRENCH = "tatoeba/tatoeba.en-fr"
MODELS: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "en-de": (),
        "de-en": ("--swap",),
        "en-fr": (f"--train={FRENCH}.train.tsv.gz", f"--valid={FRENCH}.valid.tsv.gz"),
    }
)
"""The options of each model, in addition to `OPTIONS`."""
OPTIONS = (
    # A GPU waits for the host between small kernels, so larger batches cost hardly more time.
    "--max-batch-tokens=16384",
    "--learning-rate=2e-3",
    "--warmup-steps=400",
    # The text is read dozens of times in a few minutes.
    "--dropout=0.2",
    "--average-decay=0.999",
    "--validate-every-steps=400",
    "--patience=1000",
)
START_SECONDS = 40.0
"""Time of a training outside its own limit: imports, tokenizer, encoding, the last validation. If
these take longer, the training is told to stop before its learning rate has fallen."""
END_SECONDS = 10.0
"""Time for a training to save a checkpoint once it is told to stop."""


def command_of(
    model: str, data_dir: Path, device: str, minutes: float, options: Sequence[str]
) -> list[str]:
    """The command that trains a model."""
    command = [sys.executable, "-m", "attendant_export", "train-translation"]
    command += [f"--data-dir={data_dir}", f"--run-dir={run_dir(model)}", f"--device={device}"]
    command += ["--precision=auto", f"--max-minutes={minutes:.3f}"]
    return [*command, *OPTIONS, *MODELS[model], *options]


def run_dir(model: str) -> Path:
    """The run folder of a model."""
    return FOLDER / "runs" / model


def train(command: Sequence[str], model: str, seconds: float) -> dict[str, Any]:
    """Run the training, at most for ``seconds``; returns how it ended and what it reached."""
    started = time.monotonic()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (
        (FOLDER / f"train-{model}.log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
    ):
        try:
            ended = f"exit code {process.wait(seconds)}"
        except subprocess.TimeoutExpired:
            ended = "time limit"
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
        except BaseException:
            process.terminate()
            raise
    took = round(time.monotonic() - started, 1)
    return {"model": model, "ended": ended, "seconds": took, **_reached(run_dir(model))}


def _reached(run: Path) -> dict[str, Any]:
    """The best BLEU, the number of validations and the last one of a run; empty without any."""
    if not (run / "history.csv").exists():
        return {}
    with (run / "history.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    best = max((float(row["bleu"]) for row in rows), default=None)
    return {"best_bleu": best, "validations": len(rows), "last": rows[-1] if rows else None}


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = bench_parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the pieces")
    parser.add_argument(
        "--models", type=some_of(*MODELS), default=list(MODELS), help="in this order; default: all"
    )
    parser.add_argument("--seconds", type=float, default=280.0, help="time for all of them")
    parser.add_argument(
        "--start-seconds",
        type=float,
        default=START_SECONDS,
        help="part of the time of each model that is left for its start and its end",
    )
    parser.add_argument("--device", default="cuda", help="device to train on: auto, cpu or cuda")
    parser.add_argument(
        "--options", type=shlex.split, default=[], help="further options of train-translation"
    )
    return parser


def main() -> None:
    """Train the models; exit code 1 if one of them has no weights in the end."""
    arguments = build_parser().parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    ends, missing = time.monotonic() + arguments.seconds, list(arguments.models)
    for i, model in enumerate(arguments.models):
        share = (ends - time.monotonic()) / (len(arguments.models) - i)
        minutes = max(share - arguments.start_seconds, share / 4) / 60
        command = command_of(
            model, arguments.data_dir, arguments.device, minutes, arguments.options
        )
        figures = train(command, model, share - END_SECONDS)
        finished = [m for m in arguments.models if (run_dir(m) / WEIGHTS).exists()]
        missing = [m for m in arguments.models if m not in finished]
        try:
            figures["pieces"] = len(split(list(map(run_dir, finished)), arguments.out))
        except (OSError, ValueError) as error:
            figures["error"] = described(error)
        print(json.dumps(figures), flush=True)
    sys.exit(1 if missing else 0)


if __name__ == "__main__":
    main()
