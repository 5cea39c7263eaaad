"""A job of many lines over two servers, killed again and again: lines lost, twice, out of order.

    python -m bench.serving.bulk_job --data-dir DATA_DIR --num-lines 200000 --kills 5

Embeds numbered sentences of Tatoeba with tiny static embeddings by `attendant embed --json`, over
two servers. First without a disturbance, for the rate. Then the command is killed (SIGKILL) at
random moments and continued with `--resume`, while one server is killed and started again. Each
line of JSON has its number and text, which are compared with the input, and its vector, which is
compared with that of the first run. Exits with 1 if a line was lost, came twice, stands at a wrong
place or failed.
"""

import argparse
import gzip
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from attendant_export.bundle.importing import ImportOptions, import_bundle

from bench.arguments import bench_parser
from bench.reporting import report, table
from bench.servers import free_ports
from tests.support.load import serving_process
from tests.support.static_checkpoints import word_piece, write_model2vec

SENTENCES = "tatoeba/tatoeba.en-de.train.tsv.gz"
MAX_TOKENS = 256
MAX_DIFFERENCE = 1e-6
"""Between the vectors of a text: rounding depends on the texts that are embedded with it."""


class Servers:
    """Two servers on fixed ports."""

    def __init__(self, stack: ExitStack, bundles: Path) -> None:
        self._stack, self._bundles = stack, bundles
        self._ports = free_ports(2)
        self._processes = [self._start(port) for port in self._ports]
        self.target = ",".join(f"127.0.0.1:{port}" for port in self._ports)

    def _start(self, port: int) -> "subprocess.Popen[str]":
        return serving_process(self._stack, self._bundles, f"--port={port}", "--num-threads=1")

    def kill_one(self, rest_seconds: float) -> None:
        """Kill the first server, and start it again after a while."""
        self._processes[0].kill()
        self._processes[0].wait()
        time.sleep(rest_seconds)
        self._processes[0] = self._start(self._ports[0])


def sentences(path: Path, num_lines: int) -> Iterator[str]:
    """Sentences, each after the number of its line; from the beginning again if they run out."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        texts = [line.split("\t")[0] for line in file]
    for number, text in enumerate(islice(cycle(texts), num_lines), 1):
        yield f"{number} {text}"


def command(servers: Servers, source: Path, output: Path) -> list[str]:
    """The command of the job."""
    files = f"--target={servers.target}", f"--input={source}", f"--output={output}"
    return [sys.executable, "-m", "attendant_client", "embed", *files, "--json"]


def killed_run(servers: Servers, argv: Sequence[str], sizes: Sequence[float], output: Path) -> None:
    """Run the command to its end, with a kill soon after the output has each of these sizes.

    The server is killed in the middle one of the runs.
    """
    for number, size in enumerate(sizes):
        with subprocess.Popen([*argv, "--resume"]) as process:
            while not output.exists() or output.stat().st_size < size:
                if process.poll() is not None:
                    raise SystemExit(f"the command ended before kill {number + 1}")
                time.sleep(random.uniform(0.0, 0.5))
            if number == len(sizes) // 2:
                servers.kill_one(rest_seconds=1.0)
            process.send_signal(signal.SIGKILL)
    subprocess.run([*argv, "--resume"], check=True)


def judged(source: Path, undisturbed: Path, output: Path) -> dict[str, int]:
    """Numbers of lines by what has become of them."""
    found: list[int] = []
    wrong = failed = different = 0
    with source.open() as texts, undisturbed.open() as expected, output.open() as lines:
        wanted = dict(enumerate(texts, 1))
        for line, usual in zip(lines, expected, strict=False):
            values = json.loads(line)
            found.append(values["line"])
            wrong += wanted[values["line"]].rstrip("\n") != values["text"]
            failed += values["error"] is not None
            vectors = values["vector"], json.loads(usual)["vector"]
            different += not np.allclose(*vectors, rtol=0.0, atol=MAX_DIFFERENCE)
        found += [json.loads(line)["line"] for line in lines]
    return {
        "lines": len(wanted),
        "lost": len(wanted.keys() - set(found)),
        "twice": len(found) - len(set(found)),
        "out of order": sum(a >= b for a, b in zip(found, found[1:], strict=False)),
        "with another text": wrong,
        "failed": failed,
        "with another vector": different,
    }


def run(arguments: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Measure, and return a row of the table."""
    write_model2vec(folder / "tiny-static", word_piece(), max_length=MAX_TOKENS)
    bundle = import_bundle(folder / "tiny-static", folder / "bundles", ImportOptions())
    source = folder / "lines.txt"
    texts = sentences(arguments.data_dir / SENTENCES, arguments.num_lines)
    source.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    outputs = folder / "undisturbed.jsonl", folder / "killed.jsonl"
    with ExitStack() as stack:
        servers = Servers(stack, bundle.parent.parent)
        started = time.monotonic()
        subprocess.run(command(servers, source, outputs[0]), check=True)
        seconds = time.monotonic() - started
        print(f"undisturbed: {arguments.num_lines / seconds:,.0f} lines/s", flush=True)
        argv = command(servers, source, outputs[1])
        chance = random.Random(arguments.seed)
        shares = sorted(chance.uniform(0.0, 0.9) for _ in range(arguments.kills))
        size = outputs[0].stat().st_size
        started = time.monotonic()
        killed_run(servers, argv, [share * size for share in shares], outputs[1])
        killed_seconds = time.monotonic() - started
    return judged(source, *outputs) | {
        "kills": arguments.kills,
        "lines/s undisturbed": arguments.num_lines / seconds,
        "lines/s with kills": arguments.num_lines / killed_seconds,
    }


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = bench_parser(__doc__)
    parser.add_argument("--num-lines", type=int, default=200_000)
    parser.add_argument("--kills", type=int, default=5, help="of the command")
    parser.add_argument("--seed", type=int, default=1, help="of the moments")
    return parser


def main() -> None:
    """Run the measurement; exits with 1 if it found a fault."""
    arguments = build_parser().parse_args()
    with tempfile.TemporaryDirectory() as folder:
        row = run(arguments, Path(folder))
    report("bulk-job", row, table([row]))
    faults = ("lost", "twice", "out of order", "with another text", "with another vector", "failed")
    sys.exit(any(row[name] for name in faults))


if __name__ == "__main__":
    main()
