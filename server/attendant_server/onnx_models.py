"""Models over ONNX Runtime: sessions, bound buffers and the memory of the caches.

The only user of onnxruntime. It knows graphs and arrays, and nothing of requests, search or
scheduling. Graph inputs and outputs are those that ``attendant-export`` writes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from attendant_server.bundles import Bundle
from attendant_server.engine.calls import MaskCandidates, TargetScore, TokenIds
from attendant_server.engine.models import Candidates, StepInput

SMALLEST_SOURCE_BUFFER = 16
"""Source positions of the smallest cross-attention buffer; each next size is twice as long."""
MAX_BINDINGS = 256
"""Bound steps that one memory keeps, a few kilobytes each; beyond, it begins anew."""


def open_session(path: Path, num_threads: int, device: str) -> onnxruntime.InferenceSession:
    """Load a graph for ``device``, ``cpu`` or ``cuda``; raises RuntimeError without that GPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    # Idle sessions would take cores from the running one.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[device]
    if device == "cuda":
        onnxruntime.preload_dlls()
    session = onnxruntime.InferenceSession(path, options, providers=[provider])
    if session.get_providers()[0] != provider:
        # ONNX Runtime falls back to the CPU with no more than a warning.
        raise RuntimeError("ONNX Runtime cannot use a GPU here")
    return session


def pad(sequences: Sequence[TokenIds], pad_id: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Right-padded token ids (batch, longest) and their lengths (batch)."""
    lengths = np.array([len(ids) for ids in sequences], dtype=np.int64)
    padded = np.full((len(sequences), int(lengths.max())), pad_id, dtype=np.int64)
    for row, ids in zip(padded, sequences, strict=True):
        row[: len(ids)] = ids
    return padded, lengths


def bind(
    binding: onnxruntime.IOBinding, name: str, array: NDArray[np.generic], present: str = ""
) -> None:
    """Bind contiguous ``array`` as the input ``name`` and, in place, as the output ``present``."""
    assert array.flags.c_contiguous
    binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
    if present:
        bind_result(binding, present, array)


def bind_result(binding: onnxruntime.IOBinding, name: str, array: NDArray[np.generic]) -> None:
    """Let the output ``name`` be written into contiguous ``array``."""
    assert array.flags.c_contiguous
    binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


@dataclass(frozen=True, slots=True)
class EncodedSentence:
    """Cross-attention keys and values of one source, for every decoder layer in turn."""

    keys_values: list[NDArray[np.generic]]  # each (heads, source, head_dim)
    num_tokens: int


class StepArrays:
    """The small inputs of the decoder step, at addresses that stay, for all rows of a memory."""

    def __init__(self, max_rows: int, max_blocks: int) -> None:
        self.tokens = np.zeros(max_rows, dtype=np.int64)
        self.lengths = np.zeros(max_rows, dtype=np.int32)
        self.total_length = np.zeros(1, dtype=np.int32)
        self.source_lengths = np.zeros(max_blocks, dtype=np.int64)

    def write(self, step_input: StepInput) -> None:
        """Take over what one step is given, but for its adjustments."""
        num_rows = len(step_input.tokens)
        self.tokens[:num_rows] = step_input.tokens
        self.lengths[:num_rows] = step_input.lengths
        self.total_length[0] = step_input.lengths.max() + 1


class BoundStep:
    """The decoder step bound to the first rows of one memory, to be run any number of times.

    ONNX Runtime reads and writes bound memory when it runs: what changes from step to step is
    written in place, and only adjustments, which are rare, are bound again.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        inputs: StepArrays,
        num_rows: int,
        num_blocks: int,
        num_candidates: int,
    ) -> None:
        self._session, self.binding = session, session.io_binding()
        self._num_candidates = np.array([num_candidates], dtype=np.int64)
        self._token_ids = np.zeros((num_rows, num_candidates), dtype=np.int64)
        self._log_probabilities = np.zeros((num_rows, num_candidates), dtype=np.float32)
        self._num_adjusted = -1
        bind(self.binding, "tokens", inputs.tokens[:num_rows])
        bind(self.binding, "lengths", inputs.lengths[:num_rows])
        bind(self.binding, "total_length", inputs.total_length)
        bind(self.binding, "num_candidates", self._num_candidates)
        bind(self.binding, "source_lengths", inputs.source_lengths[:num_blocks])
        bind_result(self.binding, "candidate_ids", self._token_ids)
        bind_result(self.binding, "candidate_log_probabilities", self._log_probabilities)

    def run(self, step_input: StepInput) -> Candidates:
        """One step; the answer is overwritten by the next."""
        num_adjusted = len(step_input.adjustments)
        if num_adjusted or self._num_adjusted:
            bind(self.binding, "adjusted_positions", step_input.adjusted_positions)
            bind(self.binding, "adjustments", step_input.adjustments)
            self._num_adjusted = num_adjusted
        self._session.run_with_iobinding(self.binding)
        return Candidates(self._token_ids, self._log_probabilities)


class OnnxDecoderMemory:
    """The caches of sentences searched with one width, and the steps over them.

    Self-attention caches are (rows, heads, max_target_tokens, head_dim); a step is bound to the
    first rows and writes the new key and value in place. Cross-attention buffers are
    (blocks, heads, source, head_dim), where ``source`` is the smallest size that fits the longest
    running source: the sizes are views of the same memory.
    """

    def __init__(self, model: "OnnxTranslationModel", width: int, max_blocks: int) -> None:
        sizes, limits = model.sizes, model.limits
        heads, head_dim = sizes.num_heads, sizes.head_dim
        self._session, self._width, self._max_blocks = model.decoder_step, width, max_blocks
        self._max_source_tokens, self._heads, self._head_dim = (
            limits.max_source_tokens,
            heads,
            head_dim,
        )
        shape = (max_blocks * width, heads, limits.max_target_tokens, head_dim)
        num_tensors = 2 * sizes.num_decoder_layers
        # One array for all layers, so that a row moves with one copy. Cross-attention is zero
        # behind the end of every source: masked positions still enter products, with a weight of
        # zero, and zero times what a broken source left there would be NaN for its successor.
        self._past = np.zeros((num_tensors, *shape), dtype=model.dtype)
        size = max_blocks * heads * limits.max_source_tokens * head_dim
        self._cross_memory = np.zeros((num_tensors, size), dtype=model.dtype)
        self._inputs = StepArrays(max_blocks * width, max_blocks)
        self._source_lengths = self._inputs.source_lengths
        self._bindings: dict[tuple[int, ...], BoundStep] = {}
        self._cross = self._cross_view(min(SMALLEST_SOURCE_BUFFER, limits.max_source_tokens))

    @property
    def num_bytes(self) -> int:
        """Memory of all caches."""
        return self._past.nbytes + self._cross_memory.nbytes

    def load(self, block: int, source: EncodedSentence) -> None:
        """Put an encoded source into a block."""
        self._source_lengths[block] = source.num_tokens
        self._fit(block + 1)
        for cross, keys_values in zip(self._cross, source.keys_values, strict=True):
            cross[block, :, : source.num_tokens] = keys_values
            cross[block, :, source.num_tokens :] = 0

    def move(self, origin: int, block: int, num_positions: int) -> None:
        """Move a block whose rows hold ``num_positions`` tokens."""
        target, source = self._rows(block), self._rows(origin)
        self._past[:, target, :, :num_positions] = self._past[:, source, :, :num_positions]
        self._source_lengths[block] = self._source_lengths[origin]
        for cross in self._cross:
            cross[block] = cross[origin]

    def reorder(self, rows: Sequence[int], parents: Sequence[int], num_positions: int) -> None:
        """Copy the first ``num_positions`` positions of each parent row into its row."""
        self._past[:, rows, :, :num_positions] = self._past[:, parents, :, :num_positions]

    def step(self, num_blocks: int, step_input: StepInput) -> Candidates:
        """Run the decoder over the first ``num_blocks`` blocks; the answer lives until the next."""
        self._fit(num_blocks)
        key = (num_blocks, self._cross[0].shape[2], step_input.num_candidates)
        bound = self._bindings.get(key)
        if bound is None:
            if len(self._bindings) == MAX_BINDINGS:
                self._bindings.clear()
            bound = self._bindings[key] = self._bind(num_blocks, step_input.num_candidates)
        self._inputs.write(step_input)
        return bound.run(step_input)

    def _bind(self, num_blocks: int, num_candidates: int) -> "BoundStep":
        num_rows = num_blocks * self._width
        bound = BoundStep(self._session, self._inputs, num_rows, num_blocks, num_candidates)
        for i, (past, cross) in enumerate(zip(self._past, self._cross, strict=True)):
            name = f"{'key' if i % 2 == 0 else 'value'}_{i // 2}"
            bind(bound.binding, f"past_{name}", past[:num_rows], present=f"present_{name}")
            bind(bound.binding, f"cross_{name}", cross[:num_blocks])
        return bound

    def _rows(self, block: int) -> slice:
        return slice(block * self._width, (block + 1) * self._width)

    def _cross_view(self, num_positions: int) -> list[NDArray[np.generic]]:
        shape = (self._max_blocks, self._heads, num_positions, self._head_dim)
        size = int(np.prod(shape))
        return [memory[:size].reshape(shape) for memory in self._cross_memory]

    def _fit(self, num_blocks: int) -> None:
        """Lay the cross-attention buffers out for the longest source of the first blocks."""
        longest = int(self._source_lengths[:num_blocks].max())
        size = SMALLEST_SOURCE_BUFFER
        while size < longest:
            size *= 2
        size = min(size, self._max_source_tokens)
        old = self._cross[0].shape[2]
        if size == old:
            return
        resized = self._cross_view(size)
        kept = min(old, size)
        # Both layouts share memory: a growing one is written from its end, a shrinking one from
        # its beginning, so that no block is overwritten before it has moved.
        order = range(num_blocks) if size < old else range(num_blocks - 1, -1, -1)
        for before, after in zip(self._cross, resized, strict=True):
            for block in order:
                after[block, :, :kept] = before[block, :, :kept].copy()
                after[block, :, kept:] = 0
        self._cross = resized


class OnnxTranslationModel:
    """An encoder-decoder bundle: the engine's `TranslationModel`."""

    def __init__(self, bundle: Bundle, num_threads: int, device: str = "cpu") -> None:
        """Load the graphs of ``bundle`` in its chosen precision."""
        manifest = bundle.manifest
        self.sizes, self.limits = manifest.translation_sizes, manifest.limits
        self.pad_id = manifest.special_tokens.pad_id
        self.bos_id = manifest.special_tokens.bos_id
        self.eos_id = manifest.special_tokens.eos_id
        self.cache_bytes = 0
        """Memory of all caches allocated so far."""
        self.encoder, self.decoder_step, self._scorer = (
            open_session(bundle.graph_path(name), num_threads, device)
            for name in ("encoder", "decoder_step", "scorer")
        )
        self._check_sizes()
        is_half = self.encoder.get_outputs()[0].type == "tensor(float16)"
        self.dtype = np.dtype(np.float16 if is_half else np.float32)
        self._cross_names = [
            f"cross_{kind}_{layer}"
            for layer in range(self.sizes.num_decoder_layers)
            for kind in ("key", "value")
        ]

    def _check_sizes(self) -> None:
        """Raise ValueError if the graphs are not of the sizes that the manifest states."""
        shapes = {i.name: i.shape for i in self.decoder_step.get_inputs()}
        past = [name for name in shapes if name.startswith("past_")]
        stated = [self.sizes.num_heads, self.sizes.head_dim]
        if len(past) != 2 * self.sizes.num_decoder_layers or any(
            [shapes[name][1], shapes[name][3]] != stated for name in past
        ):
            raise ValueError("translation_sizes in the manifest are not those of the graphs")

    def encode(self, sources: Sequence[TokenIds]) -> list[EncodedSentence]:
        """Encode the sources as one padded batch."""
        cross, lengths = self._encode_batch(sources)
        return [
            EncodedSentence([kv[i, :, :n] for kv in cross], n)
            for i, n in enumerate(lengths.tolist())
        ]

    def _encode_batch(
        self, sources: Sequence[TokenIds]
    ) -> tuple[list[NDArray[np.generic]], NDArray[np.int64]]:
        source, lengths = pad(sources, self.pad_id)
        feeds = {"source": source, "source_lengths": lengths}
        return self.encoder.run(self._cross_names, feeds), lengths

    def new_memory(self, width: int, max_blocks: int) -> OnnxDecoderMemory:
        """Allocate the caches for ``max_blocks`` sentences of ``width`` rows."""
        memory = OnnxDecoderMemory(self, width, max_blocks)
        self.cache_bytes += memory.num_bytes
        return memory

    def score(self, pairs: Sequence[tuple[TokenIds, TokenIds]]) -> list[TargetScore]:
        """Score (source, target) pairs as one padded batch."""
        cross, source_lengths = self._encode_batch([source for source, _ in pairs])
        target_out, target_lengths = pad([target for _, target in pairs], self.pad_id)
        target_in = np.roll(target_out, 1, axis=1)
        target_in[:, 0] = self.bos_id
        feeds = {
            "target_in": target_in,
            "target_out": target_out,
            "source_lengths": source_lengths,
            **dict(zip(self._cross_names, cross, strict=True)),
        }
        (log_p,) = self._scorer.run(["log_probabilities"], feeds)  # (batch, target)
        return [
            TargetScore(row[:n].copy())
            for row, n in zip(log_p, target_lengths.tolist(), strict=True)
        ]


class OnnxEmbeddingModel:
    """A BERT bundle: the engine's `EmbeddingModel`."""

    def __init__(self, bundle: Bundle, num_threads: int, device: str = "cpu") -> None:
        """Load the graphs of ``bundle`` in its chosen precision."""
        manifest = bundle.manifest
        self.num_layers = manifest.embedding_sizes.num_layers
        self._pad_id = manifest.special_tokens.pad_id
        self._embedder = open_session(bundle.graph_path("embedder"), num_threads, device)
        self._mlm_head = (
            open_session(bundle.graph_path("mlm_head"), num_threads, device)
            if bundle.has_graph("mlm_head")
            else None
        )
        # Hidden layers that nobody asked for must not be computed.
        self._run_options = onnxruntime.RunOptions()
        self._run_options.only_execute_path_to_fetches = True

    def embed(
        self, texts: Sequence[TokenIds], outputs: Sequence[str]
    ) -> dict[str, NDArray[np.float32]]:
        """Run texts as one padded batch; pooled outputs (batch, d), hidden (batch, length, d)."""
        token_ids, lengths = pad(texts, self._pad_id)
        feeds = {"token_ids": token_ids, "lengths": lengths}
        arrays = self._embedder.run(list(outputs), feeds, self._run_options)
        return dict(zip(outputs, arrays, strict=True))

    def fill(self, hidden: NDArray[np.float32], top_k: int) -> MaskCandidates:
        """The ``top_k`` likeliest tokens for hidden states (masks, d) of the last layer."""
        assert self._mlm_head is not None
        feeds = {"hidden": hidden, "top_k": np.array([top_k], dtype=np.int64)}
        names = ["candidate_ids", "candidate_probabilities"]
        token_ids, probabilities = self._mlm_head.run(names, feeds)
        return MaskCandidates(token_ids, probabilities)
