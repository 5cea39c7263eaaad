"""Models that decode over ONNX Runtime, with their caches on a device."""

from collections.abc import Mapping, Sequence
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
    DeviceEncodedSentence,
    KeyValueBuffer,
)
from attendant_server.runtime.language_model import OnnxLanguageModel
from attendant_server.runtime.model_graphs import CountedGraph, RunCounter
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
    ) -> KeyValueBuffer:
        num_texts, longest = source.shape
        batch = KeyValueBuffer(self._encoded_states, num_texts, longest, self._device)
        binding = self.encoder.shared.io_binding()
        Tensor.of(source).bind_input(binding, "source")
        Tensor.of(lengths).bind_input(binding, "source_lengths")
        for i, name in enumerate(self._state_outputs):
            batch.tensor(i, len(lengths)).bind_output(binding, name)
        self.encoder.shared.run_with_iobinding(binding)
        return batch

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
        for i, name in enumerate(self._state_outputs):
            batch.tensor(i, len(source)).bind_input(binding, name)
        found = np.empty(shape, dtype=np.float32)
        Tensor.of(found).bind_output(binding, output)
        graph.shared.run_with_iobinding(binding)
        return found
