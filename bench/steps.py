"""How long decoding steps take by each of the two step graphs, on one thread, without a server.

    python -m bench.steps --rounds 12

Rows of some ages and sources, in a memory of their own for each graph, take 15 steps by one graph
and then by the other, round after round. Printed are medians in microseconds a step.
"""

import argparse
import random
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from attendant_server.bundles import read_bundle
from attendant_server.engine.models import StepInput
from attendant_server.onnx_memory import HostDecoderMemory
from attendant_server.onnx_models import OnnxTranslationModel

from bench.reporting import markdown_table

AGES = range(10, 25)
"""Tokens that the rows have written at each step."""
CASES = {
    "1 of 10": [10],
    "8 of 20": [20] * 8,
    "24 of 20": [20] * 24,
    "23 of 20, one of 128": [20] * 23 + [128],
    "24 as in mixed text, 4 to 54": [4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]
    + [17, 18, 20, 22, 24, 26, 28, 31, 34, 39, 45, 54],
}
"""Source tokens of the rows."""


def memories(model: OnnxTranslationModel, lengths: Sequence[int]) -> dict[str, HostDecoderMemory]:
    """For each graph a memory that holds sources of these lengths."""
    rng = random.Random(1)
    sources = [[*rng.choices(range(10, 5000), k=n - 1), model.eos_id] for n in lengths]
    encoded = [model.encode([source])[0] for source in sources]
    graphs = {"decoder_step": model.decoder_step, "greedy_step": model.greedy_step}
    found = {}
    for name, graph in graphs.items():
        assert graph is not None, f"the bundle has no {name}"
        is_greedy = name == "greedy_step"
        memory = HostDecoderMemory(graph, model.cache_sizes, 1, len(lengths), is_greedy)
        for block, source in enumerate(encoded):
            memory.load(block, source)
        found[name] = memory
    return found


def seconds_of_steps(memory: HostDecoderMemory, num_rows: int) -> float:
    """Mean seconds of a step."""
    nothing = np.zeros((0, 2), np.int64), np.zeros(0, np.float32)
    tokens = np.full(num_rows, 50, np.int64)
    started = time.perf_counter()
    for age in AGES:
        memory.step(num_rows, StepInput(tokens, np.full(num_rows, age, np.int32), 1, *nothing))
    return (time.perf_counter() - started) / len(AGES)


def main() -> None:
    """Measure all cases in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bundle", type=Path, default=Path("bundles/en-de/1"))
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--rounds", type=int, default=12)
    arguments = parser.parse_args()
    bundle = read_bundle(arguments.bundle, arguments.precision, "cpu")
    model = OnnxTranslationModel(bundle, num_threads=1)
    rows = []
    for case, lengths in CASES.items():
        both = memories(model, lengths)
        times: dict[str, list[float]] = {name: [] for name in both}
        for _ in range(arguments.rounds):
            for name, memory in both.items():
                times[name].append(seconds_of_steps(memory, len(lengths)))
        medians = [1e6 * statistics.median(each) for each in times.values()]
        rows.append([case, *(f"{value:.0f}" for value in medians)])
    print(markdown_table(["rows and their source tokens", *both], rows))


if __name__ == "__main__":
    main()
