"""Models that decode over ONNX Runtime, with their caches on a device."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from attendant_server.bundles import Bundle
from attendant_server.engine.calls import TokenIds
from attendant_server.engine.models import EncodedSource
from attendant_server.runtime.cache_pool import CachePool
from attendant_server.runtime.decoder_model import OnnxDecoderModel
from attendant_server.runtime.device_cache import (
    WORD_BYTES,
    DeviceDecoderCache,
    DeviceEncodedBatch,
    DeviceEncodedSentence,
    KeyValueBuffer,
)
from attendant_server.runtime.language_model import OnnxLanguageModel
from attendant_server.runtime.model_graphs import CountedGraph, RunCounter
from attendant_server.runtime.replaced_states import as_vectors
from attendant_server.runtime.sessions import Tensor
from attendant_server.runtime.step import check_input_devices
from attendant_server.runtime.translation_model import OnnxTranslationModel


class DeviceDecoderModel(OnnxDecoderModel):
    """An `OnnxDecoderModel` that keeps its data on a device.

    Only tokens, lengths and candidates are copied between host and device.
    """

    # On a GPU this graph would run another kernel, which was never measured.
    _takes_greedy_graphs: ClassVar[bool] = False

    def __init__(
        self, bundle: Bundle, num_threads: int, device: str, run_counter: RunCounter
    ) -> None:
        """Load the graphs; raises ValueError if the device cannot run them with its caches."""
        super().__init__(bundle, num_threads, device, run_counter)
        sizes = self.cache_sizes
        for name, layout in (
            ("head_dim", sizes.growing),
            ("head_dim", sizes.sources),
            ("width of replaced states", sizes.replaced),
        ):
            if layout.num_tensors and layout.head_dim * layout.dtype.itemsize % WORD_BYTES:
                raise ValueError(f"{name} {layout.head_dim} does not fill words of 64 bits")
        check_input_devices(self.decoder_step.signature.step, self.decoder_step.shared, device)

    def encode(self, sources: Sequence[TokenIds]) -> list[EncodedSource]:
        """Encode the sources as one padded batch."""
        source, lengths = self._padded_sources(sources)
        batch = self._encode_to_device(source, lengths)
        return [DeviceEncodedSentence(batch, i, n) for i, n in enumerate(lengths.tolist())]

    def _encode_to_device(
        self, source: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> DeviceEncodedBatch:
        num_texts, longest = source.shape
        keys_values = vectors = None
        if self._position_outputs:
            keys_values = KeyValueBuffer(self._encoded_states, num_texts, longest, self._device)
        if self._vector_outputs:
            layout = replace(self.cache_sizes.replaced, num_tensors=len(self._vector_outputs))
            vectors = KeyValueBuffer(layout, num_texts, 1, self._device)
        batch = DeviceEncodedBatch(keys_values, vectors)
        binding = self.encoder.shared.io_binding()
        Tensor.of(source).bind_input(binding, "source")
        Tensor.of(lengths).bind_input(binding, "source_lengths")
        for name, tensor in self._named(batch, num_texts):
            tensor.bind_output(binding, name)
        self.encoder.shared.run_with_iobinding(binding)
        return batch

    def _named(self, batch: DeviceEncodedBatch, num_texts: int) -> Iterator[tuple[str, Tensor]]:
        """The encoder's outputs that are states, by name."""
        if batch.keys_values is not None:
            for i, name in enumerate(self._position_outputs):
                yield name, batch.keys_values.tensor(i, num_texts)
        if batch.vectors is not None:
            tensors = [batch.vectors.tensor(i, num_texts) for i in range(len(self._vector_outputs))]
            yield from zip(self._vector_outputs, as_vectors(tensors), strict=True)

    def new_cache(
        self, step: str, width: int, max_slots: int, pool: CachePool
    ) -> DeviceDecoderCache:
        """New empty caches for at most ``max_slots`` sentences of ``width`` rows.

        On a device, one graph runs all steps.
        """
        return DeviceDecoderCache(self.decoder_step, width, max_slots, self._device, pool)


class DeviceLanguageModel(DeviceDecoderModel, OnnxLanguageModel):
    """An `OnnxLanguageModel` that keeps its data on a device."""

    def _padded_sources(
        self, sources: Sequence[TokenIds]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        source, lengths = super()._padded_sources(sources)
        if source.shape[1]:
            return source, lengths
        # A device has no memory without bytes. Nothing is read after the end of a prompt.
        return np.full((len(source), 1), self._source_pad_id, np.int64), lengths


class DeviceTranslationModel(DeviceDecoderModel, OnnxTranslationModel):
    """An `OnnxTranslationModel` that keeps its data on a device."""

    def _run_targets(
        self,
        graph: CountedGraph,
        output: str,
        shape: tuple[int, ...],
        source: NDArray[np.int64],
        feeds: Mapping[str, NDArray[Any]],
    ) -> NDArray[np.float32]:
        batch = self._encode_to_device(source, feeds["source_lengths"])
        binding = graph.shared.io_binding()
        for name, array in feeds.items():
            Tensor.of(array).bind_input(binding, name)
        for name, tensor in self._named(batch, len(source)):
            tensor.bind_input(binding, name)
        found = np.empty(shape, dtype=np.float32)
        Tensor.of(found).bind_output(binding, output)
        graph.shared.run_with_iobinding(binding)
        return found
