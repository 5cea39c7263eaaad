"""The attention graph of a bundle, which is opened when its first call comes."""

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from attendant_manifest.attention import CROSS, DECODER, ENCODER, attention_outputs
from numpy.typing import NDArray

from attendant_server.bundles import Bundle, BundleError
from attendant_server.engine.attention_calls import Attention, LayerWeights
from attendant_server.reasons import reason_of
from attendant_server.runtime.model_graphs import CountedGraph, RunCounter, trial_run
from attendant_server.runtime.signatures import check_interface

logger = logging.getLogger(__name__)

TOLERANCE = 0.02
"""Allowed difference of the sum of the weights of a query from 1."""


class AttentionGraph:
    """The attention graph of a bundle. It takes no memory until it is opened. Any thread."""

    def __init__(
        self, bundle: Bundle, num_threads: int, device: str, run_counter: RunCounter
    ) -> None:
        """The parameters are those of the model that the graph belongs to."""
        self.bundle = replace(bundle, copies=None)
        """The bundle on disk."""
        self._how = (num_threads, device, run_counter)
        self._kinds = attention_outputs(bundle.manifest.architecture)
        self._outputs = [name for names in self._kinds.values() for name in names if name]
        self._opened: CountedGraph | None = None
        self._lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether the graph can run at once."""
        return self._opened is not None

    def open(self, copy: Bundle | None = None) -> CountedGraph:
        """Open the graph, unless it is open: that of the checked ``copy``, or of a new one.

        Raises BundleError, also for files that have changed since the model was loaded.
        """
        with self._lock:
            if self._opened is None:
                logger.info("event=attention_opening model=%s", self.bundle.key)
                self._opened = self._new_graph(copy)
            return self._opened

    def _new_graph(self, copy: Bundle | None) -> CountedGraph:
        if copy is None:
            with self.bundle.checked_copy() as copy:
                return self._new_graph(copy)
        try:
            graph = CountedGraph(copy.graph_path("attention"), *self._how)
            check_interface(graph.shared, copy.graphs.attention)
        except Exception as error:  # ONNX Runtime has its own exception classes
            reason = reason_of(error).replace(f"{copy.copies}/", "")
            raise BundleError(f"{self.bundle.directory}: attention: {reason}") from error
        return graph

    def try_out(self, copy: Bundle) -> None:
        """Open the graph of the checked ``copy`` and run it; raises BundleError or ValueError."""
        self.open(copy)
        inputs = set(copy.graphs.attention.inputs)
        lengths = {"first_lengths"} & inputs
        with trial_run("attention"):
            self.run(dict.fromkeys(inputs - lengths, [0]), dict.fromkeys(lengths, 1))

    def run(
        self, texts: Mapping[str, Sequence[int]], lengths: Mapping[str, int] | None = None
    ) -> Attention:
        """The weights for one text or one pair, by inputs with token ids and with lengths.

        Raises BundleError like `open`, an error of ONNX Runtime, or ValueError for weights that do
        not add up to 1.
        """
        values: dict[str, Sequence[int] | int] = {**texts, **(lengths or {})}
        feeds = {name: np.array([value], np.int64) for name, value in values.items()}
        with self.open().session() as session:
            arrays = session.run(self._outputs, feeds)
        found = dict(zip(self._outputs, (array[0] for array in arrays), strict=True))
        kinds = {kind: _stacked(names, found) for kind, names in self._kinds.items()}
        return Attention(kinds[ENCODER], kinds.get(DECODER), kinds.get(CROSS))

    def close(self) -> None:
        """Free the memory. The next run opens the graph again."""
        with self._lock:
            self._opened = None

    def stop_runs(self) -> None:
        """Let the present runs raise soon."""
        opened = self._opened
        if opened is not None:
            opened.stop_runs()


def _stacked(names: Sequence[str], found: Mapping[str, NDArray[np.float32]]) -> LayerWeights | None:
    """The weights of all layers together, or None if no layer has the attention.

    Raises ValueError for weights that do not add up to 1.
    """
    if not any(names):
        return None
    num_heads = tuple(len(found[name]) if name else 0 for name in names)
    _, queries, keys = next(found[name].shape for name in names if name)
    weights = np.zeros((len(names), max(num_heads), queries, keys), np.float32)
    for layer, name in enumerate(names):
        if name:
            if not np.abs(found[name].sum(axis=-1) - 1).max() <= TOLERANCE:  # also for NaN
                raise ValueError(f"{name}: the weights of a query do not add up to 1")
            weights[layer, : num_heads[layer]] = found[name]
    return LayerWeights(weights, num_heads)
