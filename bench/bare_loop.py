"""The ceiling for static batches: a bare greedy loop over a bundle's graphs.

No requests, no queue, no server: sentences sorted perfectly by the length of their output, in
batches that end with their longest sentence.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when the next line loads it
import onnxruntime
from numpy.typing import NDArray

Array = NDArray[np.generic]


class BareLoop:
    """Greedy search over the int8 or fp32 graphs of one translation bundle."""

    def __init__(self, bundle: Path, precision: str) -> None:
        manifest = json.loads((bundle / "manifest.json").read_text())
        graphs = next(p for p in manifest["precisions"] if p["name"] == precision)
        self._encoder = _session(bundle / graphs["encoder"]["path"])
        self._step = _session(bundle / graphs["decoder_step"]["path"])
        self._sizes, self._tokens = manifest["translation_sizes"], manifest["special_tokens"]
        self._max_length = manifest["limits"]["max_target_tokens"]

    def translate(self, sources: Sequence[Sequence[int]]) -> list[list[int]]:
        """Decode one static batch until every sentence has ended, or at the model's limit."""
        lengths = np.array([len(s) for s in sources], dtype=np.int64)
        padded = np.full((len(sources), lengths.max()), self._tokens.get("pad_id", 0), np.int64)
        for row, source in zip(padded, sources, strict=True):
            row[: len(source)] = source
        names = [output.name for output in self._encoder.get_outputs()]
        cross = self._encoder.run(names, {"source": padded, "source_lengths": lengths})
        feeds = {"source_lengths": lengths, **dict(zip(names, cross, strict=True))}
        return self._decode(feeds, len(sources))

    def _decode(self, feeds: dict[str, Array], num_rows: int) -> list[list[int]]:
        past = self._past(num_rows)
        tokens = np.full(num_rows, self._tokens["bos_id"], dtype=np.int64)
        outputs: list[list[int]] = [[] for _ in range(num_rows)]
        running = set(range(num_rows))
        for position in range(self._max_length):
            tokens = self._run_step(feeds, past, tokens, position)
            for row in list(running):
                outputs[row].append(int(tokens[row]))
                if tokens[row] == self._tokens["eos_id"]:
                    running.remove(row)
            if not running:
                break
        return outputs

    def _past(self, num_rows: int) -> dict[str, Array]:
        shape = (num_rows, self._sizes["num_heads"], self._max_length, self._sizes["head_dim"])
        layers = range(self._sizes["num_decoder_layers"])
        return {
            f"{kind}_{i}": np.zeros(shape, dtype=np.float32)
            for i in layers
            for kind in ("key", "value")
        }

    def _run_step(
        self,
        feeds: dict[str, Array],
        past: dict[str, Array],
        tokens: NDArray[np.int64],
        position: int,
    ) -> NDArray[np.int64]:
        binding = self._step.io_binding()
        inputs = {
            **feeds,
            "tokens": tokens,
            "lengths": np.full(len(tokens), position, dtype=np.int32),
            "total_length": np.array([position + 1], dtype=np.int32),
            "num_candidates": np.array([1], dtype=np.int64),
            "adjusted_positions": np.zeros((0, 2), dtype=np.int64),
            "adjustments": np.zeros(0, dtype=np.float32),
        }
        for name, array in inputs.items():
            binding.bind_cpu_input(name, array)
        binding.bind_output("candidate_ids")
        for name, array in past.items():
            memory = ("cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
            binding.bind_input(f"past_{name}", *memory)
            binding.bind_output(f"present_{name}", *memory)
        self._step.run_with_iobinding(binding)
        best: NDArray[np.int64] = binding.get_outputs()[0].numpy()[:, 0]
        return np.ascontiguousarray(best)


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
