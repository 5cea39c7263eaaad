"""Tiny random models and plain sessions over their graphs."""

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
import onnxruntime as ort
import torch
from attendant.v1.architecture_pb2 import (
    ALIGNMENT_FUNCTION_SCALED_DOT,
    POSITION_KIND_SINUSOIDAL_TENSOR2TENSOR,
    AlignmentAttention,
    Architecture,
)
from attendant.v1.bundle_pb2 import (
    STATE_OWNER_ROW,
    STATE_UPDATE_REPLACED,
    DecodingDefaults,
    Graph,
    Manifest,
    PrecisionGraphs,
    SpecialTokens,
)
from attendant_export.graphs.step_interface import TYPES
from attendant_export.graphs.writer import write_translation_graphs
from attendant_export.models.convolutional_shapes import (
    BYTENET,
    SLICENET,
    add_experts,
    make_decoder_convolutional,
    make_encoder_convolutional,
)
from attendant_export.models.encoder import Encoder
from attendant_export.models.encoder_decoder import EncoderDecoder
from attendant_export.models.relative_positions import RelativePositions
from attendant_export.models.shapes import (
    ALIGNMENT_FUNCTIONS,
    CELLS,
    bert,
    make_decoder_recurrent,
    make_encoder_recurrent,
    transformer,
)
from torch import nn

Model = TypeVar("Model", bound=nn.Module)
MAX_LENGTH = 24
"""Positions in the caches, more than any test needs."""


def tiny_transformer(norm_first: bool, num_heads: int = 2, vocab_size: int = 50) -> EncoderDecoder:
    architecture = transformer(
        vocab_size=vocab_size,
        d_model=32,
        num_heads=num_heads,
        d_feed_forward=64,
        num_encoder_layers=2,
        num_decoder_layers=2,
        norm_first=norm_first,
    )
    torch.manual_seed(7)
    return unsettle(EncoderDecoder(architecture))


def tiny_ssru(num_decoder_layers: int = 2) -> EncoderDecoder:
    """A post-norm model whose decoder has no self-attention, such as Marian's students."""
    architecture = with_ssru(transformer(50, 32, 2, 64, 1, num_decoder_layers, norm_first=False))
    torch.manual_seed(7)
    return unsettle(EncoderDecoder(architecture))


def tiny_recurrent() -> EncoderDecoder:
    """A model of LSTMs with additive attention in predicted windows."""
    architecture = with_recurrences(transformer(50, 32, 2, 64, 1, 2), "lstm", "additive")
    window = architecture.decoder.groups[-1].alignment_attention.window
    window.half_width, window.is_predictive = 2, True
    torch.manual_seed(7)
    return unsettle(EncoderDecoder(architecture))


def tiny_convolutional() -> EncoderDecoder:
    """A ByteNet, whose encoder has outputs after the tokens of a source."""
    torch.manual_seed(7)
    return unsettle(EncoderDecoder(with_convolutions(transformer(50, 32, 2, 64, 2, 2), BYTENET)))


def tiny_experts() -> EncoderDecoder:
    """A SliceNet with mixtures of experts."""
    architecture = with_convolutions(transformer(50, 32, 2, 64, 2, 2), SLICENET)
    add_experts(architecture, 3, 2, 16)
    torch.manual_seed(7)
    return unsettle(EncoderDecoder(architecture))


def with_convolutions(
    architecture: Architecture, kind: str, num_encoder_layers: int = 0
) -> Architecture:
    """The same network with convolutional layers of a kind, as ``train-translation`` makes it.

    By default, the encoder has as many layers as before.
    """
    changed = Architecture()
    changed.CopyFrom(architecture)
    group = changed.encoder.groups[0]
    group.num_layers = num_encoder_layers or group.num_layers
    make_encoder_convolutional(changed, kind)
    part = AlignmentAttention(function=ALIGNMENT_FUNCTION_SCALED_DOT)
    make_decoder_convolutional(changed, kind, part)
    return changed


def with_ssru(architecture: Architecture, num_attention_layers: int = 0) -> Architecture:
    """The same network with an SSRU in place of the decoder's self-attention.

    The first ``num_attention_layers`` layers keep their self-attention.
    """
    changed = Architecture()
    changed.CopyFrom(architecture)
    if num_attention_layers:
        changed.decoder.groups.add().CopyFrom(changed.decoder.groups[0])
        changed.decoder.groups[0].num_layers = num_attention_layers
        changed.decoder.groups[1].num_layers -= num_attention_layers
    changed.decoder.groups[-1].ssru.SetInParent()
    for side in (changed.source_embeddings, changed.target_embeddings):
        side.positions.kind = POSITION_KIND_SINUSOIDAL_TENSOR2TENSOR
    return changed


def with_recurrences(
    architecture: Architecture, cell: str, alignment: str = "", num_encoder_layers: int = 0
) -> Architecture:
    """The same network with recurrent layers; without ``alignment``, the decoder has no attention.

    By default, the encoder has as many layers as before.
    """
    changed = Architecture()
    changed.CopyFrom(architecture)
    group = changed.encoder.groups[0]
    group.num_layers = num_encoder_layers or group.num_layers
    part = AlignmentAttention(function=ALIGNMENT_FUNCTIONS[alignment]) if alignment else None
    make_encoder_recurrent(changed, CELLS[cell])
    make_decoder_recurrent(changed, CELLS[cell], part)
    return changed


def manifest_of(model: EncoderDecoder | Encoder) -> Manifest:
    """The parts of a manifest that readers of the graphs of ``model`` need."""
    return Manifest(
        architecture=model.architecture,
        special_tokens=SpecialTokens(pad_id=0, eos_id=2),
        decoding=DecodingDefaults(start_token_id=1),
    )


def tiny_bert(norm_first: bool) -> Encoder:
    architecture = bert(
        vocab_size=50,
        d_model=32,
        num_heads=2,
        d_feed_forward=64,
        num_layers=2,
        max_positions=32,
        norm_first=norm_first,
    )
    torch.manual_seed(7)
    return unsettle(Encoder(architecture))


def unsettle(model: Model) -> Model:
    """Change all biases and norms from 0 and 1, so that a missing one is detected.

    The biases of relative positions get a size that matters.
    """
    for module in model.modules():
        if isinstance(module, RelativePositions):
            nn.init.normal_(module.weight)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def open_session(folder: Path, graph: Graph) -> ort.InferenceSession:
    return open_onnx(folder / graph.path)


def open_onnx(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(session: ort.InferenceSession, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def load_graphs(folder: Path, graphs: PrecisionGraphs) -> Iterator[onnx.GraphProto]:
    """The graphs in the files, without weights."""
    fields = [value for _, value in graphs.ListFields() if isinstance(value, Graph)]
    for graph in [*fields, *(step.graph for step in graphs.steps)]:
        yield onnx.load(folder / graph.path, load_external_data=False).graph


class TranslationGraphs:
    """The graphs of one tiny Transformer in one precision, with caches for ``max_rows`` rows."""

    def __init__(
        self,
        model: EncoderDecoder,
        precision: str,
        folder: Path,
        max_rows: int = 8,
        step: str = "decoder_step",
    ) -> None:
        """``step`` is the name of the step graph."""
        self.model, self.folder = model, folder
        self.graphs = write_translation_graphs(model, precision, folder, max_positions=MAX_LENGTH)
        self.encoder = open_session(folder, self.graphs.encoder)
        self.steps = {each.name: each for each in self.graphs.steps}
        self.signature = self.steps[step]
        self.sessions = {each.name: open_session(folder, each.graph) for each in self.graphs.steps}
        self.scorer = open_session(folder, self.graphs.scorer)
        self.caches = {
            state.input: np.zeros(
                (max_rows, *(size or MAX_LENGTH for size in state.shape)), TYPES[state.data_type]
            )
            for state in self.signature.states
            if state.owner == STATE_OWNER_ROW
        }
        self.replaced = {
            state.input: np.zeros_like(self.caches[state.input])
            for state in self.signature.states
            if state.update == STATE_UPDATE_REPLACED
        }

    def encode(self, source: np.ndarray, lengths: np.ndarray) -> dict[str, np.ndarray]:
        return run(self.encoder, source=source, source_lengths=lengths)

    def step(
        self,
        tokens: list[int],
        lengths: list[int],
        memory: dict[str, np.ndarray],
        source_lengths: np.ndarray,
        biases: dict[tuple[int, int], float] | None = None,
    ) -> np.ndarray:
        """Log-probabilities (rows, vocab). The caches of the first rows are bound by pointer.

        Replaced states of rows that begin, whose length is 0, become zero.
        """
        for name in self.replaced:
            self.caches[name][: len(lengths)][np.array(lengths) == 0] = 0
        biased, names = biases or {}, self.signature.inputs
        [bias] = names.token_biases
        inputs = {
            names.tokens: np.array(tokens, np.int64),
            names.past_lengths: np.array(lengths, np.int32),
            names.total_length: np.array([max(lengths) + 1], np.int32),
            names.num_candidates: np.array(
                [self.model.architecture.target_embeddings.vocab_size], np.int64
            ),
            bias.indices: np.array(list(biased), np.int64).reshape(-1, 2),
            bias.values: np.array(list(biased.values()), np.float32),
            names.source_lengths: source_lengths,
            **memory,
        }
        if names.total_source_length:
            longest = source_lengths.max(keepdims=True).astype(np.int32)
            inputs[names.total_source_length] = longest
        session = self.sessions[self.signature.name]
        binding = session.io_binding()
        written = {state.input: state.outputs for state in self.signature.states}
        for name, value in inputs.items():
            value = np.ascontiguousarray(value)
            for output in written.get(name, ()):
                where = ("cpu", 0, value.dtype.type, value.shape, value.ctypes.data)
                binding.bind_output(output, *where)
            binding.bind_cpu_input(name, value)
        for name, cache in self.caches.items():
            what = ("cpu", 0, cache.dtype.type, (len(tokens), *cache.shape[1:]))
            binding.bind_input(name, *what, cache.ctypes.data)
            for output in written[name]:
                binding.bind_output(output, *what, self.replaced.get(name, cache).ctypes.data)
        binding.bind_output(self.signature.outputs.candidate_ids)
        binding.bind_output(self.signature.outputs.candidate_log_probabilities)
        session.run_with_iobinding(binding)
        for name, after in self.replaced.items():
            self.caches[name][:] = after
        ids, log_probabilities = (value.numpy() for value in binding.get_outputs()[-2:])
        return by_id(ids, log_probabilities)

    def decode(
        self, sources: list[list[int]], targets: list[list[int]], starts: list[int]
    ) -> list[np.ndarray]:
        """Log-probabilities (target, vocab) of each row, which joins at its step in ``starts``.

        ``targets`` begin with the first input token. Rows join in order and never leave.
        """
        source, source_lengths = padded(sources)
        memory = self.encode(source, source_lengths)
        found: list[list[np.ndarray]] = [[] for _ in sources]
        for step in range(max(map(len, targets)) + max(starts)):
            rows = sum(start <= step for start in starts)
            lengths = [step - start for start in starts[:rows]]
            # A row beyond its end gets any token; its results are dropped below.
            tokens = [
                target[min(length, len(target) - 1)]
                for target, length in zip(targets, lengths, strict=False)
            ]
            shared = {name: value[:rows] for name, value in memory.items()}
            scores = self.step(tokens, lengths, shared, source_lengths[:rows])
            for row in range(rows):
                found[row].append(scores[row])
        return [np.stack(row[: len(target)]) for row, target in zip(found, targets, strict=True)]


def padded(sequences: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Token ids (batch, longest), right-padded with 0, and their lengths (batch)."""
    lengths = np.array([len(ids) for ids in sequences], np.int64)
    filled = np.zeros((len(sequences), lengths.max()), np.int64)
    for row, ids in zip(filled, sequences, strict=True):
        row[: len(ids)] = ids
    return filled, lengths


@torch.inference_mode()
def model_log_probabilities(
    model: EncoderDecoder, source: list[int], target: list[int]
) -> np.ndarray:
    """Log-probabilities (target, vocab) of the PyTorch model for one sentence, without cache."""
    hidden = model(torch.tensor([source]), torch.tensor([target]))
    return model.logits(hidden)[0].log_softmax(-1).numpy()


def by_id(candidate_ids: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values of candidates in the order of their token ids."""
    assert (np.diff(values, axis=1) <= 0).all(), "candidates are not best first"
    ordered = np.empty_like(values)
    np.put_along_axis(ordered, candidate_ids, values, axis=1)
    return ordered
