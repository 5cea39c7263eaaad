"""What Triton's Python backend runs: texts to vectors with our graph in onnxruntime.

Triton batches requests dynamically and gives ``execute`` all that are in a batch; their texts are
sorted by length and run within a budget of padded tokens, as in `bench.embedding_bare_loop`.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as triton

from bench.embedding_bare_loop import BareLoop


class TritonPythonModel:
    """The class that the backend looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the graph that the model's parameters name."""
        given = json.loads(args["model_config"])["parameters"]
        value = {name: parameter["string_value"] for name, parameter in given.items()}
        self._loop = BareLoop(
            Path(value["bundle"]),
            value["precision"],
            int(value["num_threads"]),
            int(value["max_batch_tokens"]),
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response (texts, d) for each request."""
        texts = [
            [text.decode() for text in triton.get_input_tensor_by_name(r, "text").as_numpy()[:, 0]]
            for r in requests
        ]
        vectors = asyncio.run(self._loop.embed([text for several in texts for text in several]))
        ends = np.cumsum([len(several) for several in texts])
        return [
            triton.InferenceResponse([triton.Tensor("vector", np.ascontiguousarray(part))])
            for part in np.split(vectors, ends[:-1])
        ]
