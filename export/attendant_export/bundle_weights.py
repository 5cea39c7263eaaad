"""Weights out of a bundle, so that training can start from it.

Turns what the graphs store back into the parameters of the models. Only place that reads ONNX.
"""

from collections.abc import Mapping
from pathlib import Path

import onnx
import torch
from attendant.v1.bundle_pb2 import Graph, PrecisionGraphs
from onnx import numpy_helper
from tokenizers import Tokenizer
from torch import Tensor, nn

from attendant_export import checkpoint
from attendant_export.bert import Bert
from attendant_export.manifest import MANIFEST, BundleError, check_files, read_manifest
from attendant_export.tokenizer import TOKENIZER, load_tokenizer
from attendant_export.translation_graphs import KEYS_VALUES, POSITIONS, SHORTLIST_TABLES

EMBEDDING = "embedding.weight"
SEGMENTS = "segment_embedding.weight"
"""Embedding graphs hold segment 0 inside the positions."""


def load_start(folder: Path, model: nn.Module, tokenizer: Tokenizer | None = None) -> None:
    """Load the weights of a run folder (its best) or of a bundle into ``model``.

    With a ``tokenizer``, another than that of ``folder``, tokens that both have, by their text,
    bring their embeddings along; the others keep those of ``model``. Raises BundleError for a
    damaged bundle and ValueError that lists all tensors that do not fit.
    """
    parameters = _start_parameters(folder, model)
    if tokenizer is not None:
        own = model.state_dict()[EMBEDDING].cpu()
        old_ids = load_tokenizer(folder / TOKENIZER).get_vocab()
        parameters[EMBEDDING] = _carry_over(
            parameters[EMBEDDING], old_ids, own, tokenizer.get_vocab()
        )
    checkpoint.set_weights(folder, parameters, model)


def _start_parameters(folder: Path, model: nn.Module) -> dict[str, Tensor]:
    if not (folder / MANIFEST).exists():
        return checkpoint.read_weights(checkpoint.find_weights(folder))
    parameters = read_parameters(folder)
    if isinstance(model, Bert):
        segments = model.segment_embedding.weight
        parameters[SEGMENTS] = torch.zeros_like(segments, device="cpu")
    return parameters


def _carry_over(
    old: Tensor, old_ids: Mapping[str, int], new: Tensor, new_ids: Mapping[str, int]
) -> Tensor:
    common = [token for token in new_ids if token in old_ids]
    merged = new.clone()  # (new vocab, d_model)
    merged[[new_ids[token] for token in common]] = old[[old_ids[token] for token in common]].float()
    return merged


def read_parameters(folder: Path) -> dict[str, Tensor]:
    """Parameters by their state-dict names, from the most exact float precision of a bundle.

    Those of an embedding bundle lack ``segment_embedding.weight``.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    by_name = {graphs.name: graphs for graphs in manifest.precisions}
    graphs = by_name.get("fp32", by_name.get("fp16"))
    if graphs is None:
        raise BundleError(f"{folder} has neither fp32 nor fp16 weights to start from")
    parameters = _read_initializers(folder, graphs)
    if manifest.HasField("translation_sizes"):
        for name in (POSITIONS, *SHORTLIST_TABLES):  # computed, not trained
            parameters.pop(name, None)
        _undo_fusions(parameters, manifest.translation_sizes.num_decoder_layers)
    return parameters


def _read_initializers(folder: Path, graphs: PrecisionGraphs) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for _, graph in graphs.ListFields():
        if isinstance(graph, Graph):
            model = onnx.load(folder / graph.path, load_external_data=False)
            for tensor in model.graph.initializer:
                if tensor.data_location == onnx.TensorProto.EXTERNAL:
                    array = numpy_helper.to_array(tensor, base_dir=str(folder))
                    tensors[tensor.name] = torch.from_numpy(array.copy())
    return tensors


def _undo_fusions(parameters: dict[str, Tensor], num_decoder_layers: int) -> None:
    """Put queries, keys and values of each cross-attention together, as the model has them."""
    for kind in ("weight", "bias"):
        layers = parameters.pop(f"{KEYS_VALUES}.{kind}").chunk(num_decoder_layers)
        for i, keys_values in enumerate(layers):
            name = f"decoder.{i}.cross_attention"
            query = parameters.pop(f"{name}.query.{kind}")
            parameters[f"{name}.query_key_value.{kind}"] = torch.cat([query, keys_values])
