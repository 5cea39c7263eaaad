"""How full decoding steps are under load, and what that gains over static batches.

    python -m bench.step_fill --data-dir DATA_DIR

200 requests of mixed length come at once to a server with 16 rows, 8 for each of two workers. Fill
is the share of rows that were running, over all steps that began while texts were waiting; what
greedy search decodes behind an end is not left out. The same sentences then run through a bare loop
over the same graphs, sorted perfectly by output length in static batches of 16. Both are repeated
in turn; tokens are those of the outputs.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from attendant_client import AsyncClient, Client

from bench.bare_loop import BareLoop
from bench.serving import RunningServer, running_server
from bench.texts import read_references

MAX_ROWS = 16
NUM_WORKERS = 2
NUM_REQUESTS = 200


def mixed_texts(data_dir: Path, seed: int = 1) -> list[str]:
    """Test sentences, of which every other is several in a row: from 3 to some 60 words."""
    rng = random.Random(seed)
    sentences = list(read_references(data_dir / "tatoeba/tatoeba.en-de.test.tsv.gz"))
    return [
        " ".join(rng.sample(sentences, rng.choice([1, 1, 1, 2, 3, 5]))) for _ in range(NUM_REQUESTS)
    ]


async def translate_at_once(target: str, texts: Sequence[str]) -> list[list[int]]:
    """One request a text, all in flight together; the output token ids."""
    async with AsyncClient(target, timeout_seconds=300) as client:
        results = await asyncio.gather(*(client.translate(text) for text in texts))
    return [[token.id for token in result.hypotheses[0].tokens] for result in results]


def fill_between(before: dict[str, float], after: dict[str, float], model: str) -> float:
    """Rows decoded over rows available, in the saturated steps between two readings."""

    def grown(name: str) -> float:
        bundle, version = model.split("/")
        series = f'{name}{{model="{bundle}",version="{version}"}}'
        return after[series] - before[series]

    rows = grown("attendant_saturated_step_rows_total")
    return rows / grown("attendant_saturated_step_max_rows_total")


def measure_server(
    server: RunningServer, texts: Sequence[str], model: str
) -> tuple[float, float, list[list[int]]]:
    """(tokens/s, fill, outputs) of one burst of requests."""
    before = server.counters()
    started = time.perf_counter()
    outputs = asyncio.run(translate_at_once(server.target, texts))
    seconds = time.perf_counter() - started
    fill = fill_between(before, server.counters(), model)
    return sum(map(len, outputs)) / seconds, fill, outputs


def measure_bare_loop(loop: BareLoop, sources: list[list[int]], lengths: list[int]) -> float:
    """Tokens/s of static batches sorted by output length."""
    order = sorted(range(len(sources)), key=lambda i: lengths[i])
    started = time.perf_counter()
    num_tokens = 0
    for start in range(0, len(order), MAX_ROWS):
        batch = [sources[i] for i in order[start : start + MAX_ROWS]]
        num_tokens += sum(map(len, loop.translate(batch)))
    return num_tokens / (time.perf_counter() - started)


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("DATA_DIR"))
    parser.add_argument("--bundles", type=Path, default=Path("bundles"))
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.data_dir is None:
        parser.error("give --data-dir or set DATA_DIR")
    texts = mixed_texts(Path(arguments.data_dir))
    flags = [f"--max-rows={MAX_ROWS}", f"--num-workers={NUM_WORKERS}"]
    flags += ["--models=en-de", f"--bundles={arguments.bundles}"]
    with running_server(*flags) as server:
        with Client(server.target) as client:
            (info,) = client.models()
            sources = [[token.id for token in t.tokens] for t in client.tokenize(texts)]
        model = f"{info.name}/{info.version}"
        loop = BareLoop(arguments.bundles / model, info.precision)
        rounds = [_round(server, loop, texts, sources, model) for _ in range(arguments.rounds + 1)][
            1:
        ]  # the first one warms up
    print(json.dumps(_summary(rounds) | {"model": f"{model}:{info.precision}"}, indent=1))


def _round(
    server: RunningServer, loop: BareLoop, texts: list[str], sources: list[list[int]], model: str
) -> dict[str, float]:
    served, fill, outputs = measure_server(server, texts, model)
    bare = measure_bare_loop(loop, sources, [len(output) for output in outputs])
    return {"served": served, "bare": bare, "ratio": served / bare, "fill": fill}


def _summary(rounds: list[dict[str, float]]) -> dict[str, object]:
    return {
        name: {
            "median": round(statistics.median(r[name] for r in rounds), 3),
            "min": round(min(r[name] for r in rounds), 3),
            "max": round(max(r[name] for r in rounds), 3),
        }
        for name in ("served", "bare", "ratio", "fill")
    }


if __name__ == "__main__":
    main()
