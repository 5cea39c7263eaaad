"""How long decoding steps take by each graph of steps, on one thread, without a server.

    python -m bench.steps --rounds 20

Rows of some ages and sources take 15 runs of one graph and then of the next, round after round,
over the same random caches. Printed are medians in microseconds until every row has one more token,
and of the last graph for each row as well.
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.graphs import memory_of, no_adjustments, num_step_tokens, open_graph, presents
from bench.reporting import markdown_table

AGES = range(10, 25)
"""Tokens that the rows have written at each step."""
MAX_LENGTH = 256
# fmt: off
MIXED = (10, 18, 5, 26, 12, 54, 8, 15, 22, 4, 34, 13, 17, 7, 28, 11, 20, 9, 39, 14, 24, 16, 45, 31)
# fmt: on
"""Source tokens of sentences in mixed text."""
CASES = {
    "1 of 10": [10],
    "8 of 20": [20] * 8,
    "24 of 20": [20] * 24,
    "23 of 20, one of 128": [20] * 23 + [128],
    "24 as in mixed text, 4 to 54": list(MIXED),
    **{f"{n} of the same kind": (MIXED * 3)[:n] for n in (4, 8, 12, 16, 32, 64)},
}
"""Source tokens of the rows."""
GRAPHS = ("decoder_step", "greedy_step", "greedy_steps")
"""Older bundles have the first alone, or the first two."""


class Steps:
    """One graph bound to rows whose sources have these lengths."""

    def __init__(self, path: Path, sizes: dict[str, int], lengths: Sequence[int]) -> None:
        self._session = open_graph(path, num_threads=1)
        self._binding = self._session.io_binding()
        self._outputs = {output.name for output in self._session.get_outputs()}
        self._num_tokens = num_step_tokens(self._session)
        self._ages = np.zeros(len(lengths), np.int32)
        self._total = np.zeros(1, np.int32)
        longest = max(lengths)
        inputs: dict[str, Any] = {
            "tokens": np.full(len(lengths), 50, np.int64),
            "lengths": self._ages,
            "total_length": self._total,
            "num_candidates": np.ones(1, np.int64),
            **no_adjustments(self._num_tokens),
            "source_lengths": np.array(lengths, np.int64),
            "total_source_length": np.array([longest], np.int32),
        }
        rng = np.random.default_rng(1)
        for layer in range(sizes["num_decoder_layers"]):
            for kind in ("key", "value"):
                for name, length in (("past", MAX_LENGTH), ("cross", longest)):
                    shape = (len(lengths), sizes["num_heads"], length, sizes["head_dim"])
                    memory = rng.standard_normal(shape).astype(np.float32)
                    inputs[f"{name}_{kind}_{layer}"] = memory
        self._inputs = inputs  # the binding holds no memory
        for value in self._session.get_inputs():
            self._bind(value.name, inputs[value.name])
        self._binding.bind_output("candidate_ids")

    def _bind(self, name: str, array: Any) -> None:
        self._binding.bind_input(name, *memory_of(array))
        present = name.replace("past_", "present_").replace("cross_", "present_cross_")
        for each in presents(present, self._num_tokens):
            if each in self._outputs:
                self._binding.bind_output(each, *memory_of(array))

    def seconds(self) -> float:
        """Mean seconds for a token of all rows."""
        started = time.perf_counter()
        for age in AGES:
            self._ages[:] = age
            self._total[:] = age + 1
            self._session.run_with_iobinding(self._binding)
        return (time.perf_counter() - started) / len(AGES) / self._num_tokens


def main() -> None:
    """Measure all cases in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bundle", type=Path, default=Path("bundles/en-de/1"))
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    manifest = json.loads((arguments.bundle / "manifest.json").read_text())
    graphs = next(p for p in manifest["precisions"] if p["name"] == "int8")
    names = [name for name in GRAPHS if name in graphs]
    rows = []
    for case, lengths in CASES.items():
        steps = {
            name: Steps(
                arguments.bundle / graphs[name]["path"], manifest["translation_sizes"], lengths
            )
            for name in names
        }
        times: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(arguments.rounds):
            for name in names:
                times[name].append(steps[name].seconds())
        medians = [1e6 * statistics.median(times[name]) for name in names]
        of_a_row = f"{medians[-1] / len(lengths):,.0f}"
        rows.append([case, *(f"{median:,.0f}" for median in medians), of_a_row])
    print(markdown_table(["rows and their source tokens", *names, "a row"], rows))


if __name__ == "__main__":
    main()
