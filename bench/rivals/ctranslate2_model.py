"""Converts the weights of a translation bundle to a CTranslate2 model.

Writes the most precise weights of the bundle (fp32, else fp16) as float32. CTranslate2 quantizes
them when it loads the model.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from attendant.v1.bundle_pb2 import Manifest
from attendant.v1.model_pb2 import TranslationSizes
from attendant_manifest import parse_manifest
from attendant_manifest.sizes import translation_sizes
from ctranslate2.specs import TransformerSpec
from numpy.typing import NDArray
from onnx import numpy_helper
from tokenizers import Tokenizer

Weights = Mapping[str, NDArray[np.float32]]


def convert(bundle: Path, output: Path) -> Path:
    """Write the model to ``output``, replacing its content; returns its path."""
    manifest = parse_manifest((bundle / "manifest.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(bundle / manifest.source_tokenizer))
    sizes = translation_sizes(manifest.architecture)
    spec = transformer_spec(read_weights(bundle, manifest), sizes)
    tokens = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    spec.register_source_vocabulary(tokens)
    spec.register_target_vocabulary(tokens)
    start = tokens[manifest.decoding.start_token_id]
    spec.config.bos_token = spec.config.decoder_start_token = start
    spec.config.eos_token = tokens[manifest.special_tokens.eos_id]
    spec.config.unk_token = tokens[manifest.special_tokens.unk_id]
    spec.config.add_source_bos = spec.config.add_source_eos = False  # the tokenizer adds them
    spec.validate()
    spec.optimize()  # stores the shared embedding once
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    spec.save(str(output))
    return output


def read_weights(bundle: Path, manifest: Manifest) -> Weights:
    """The bundle's weights by their names in the graphs, which are the PyTorch names."""
    precisions = {p.name: p for p in manifest.precisions}
    graphs = precisions.get("fp32") or precisions["fp16"]
    weights = {}
    for graph in (graphs.encoder, graphs.steps[0].graph):
        model = onnx.load(bundle / graph.path, load_external_data=False)
        for tensor in model.graph.initializer:
            array = numpy_helper.to_array(tensor, base_dir=str(bundle))
            weights[tensor.name] = array.astype(np.float32)
    return weights


def transformer_spec(weights: Weights, sizes: TranslationSizes) -> TransformerSpec:
    """CTranslate2's specification of the Transformer, with its weights."""
    num_layers = sizes.num_encoder_layers, sizes.num_decoder_layers
    pre_norm = "encoder_norm.weight" in weights
    spec = TransformerSpec.from_config(num_layers, sizes.num_heads, pre_norm=pre_norm)
    spec.encoder.scale_embeddings = spec.decoder.scale_embeddings = True
    spec.encoder.embeddings[0].weight = weights["embedding.weight"]
    spec.decoder.embeddings.weight = weights["embedding.weight"]
    spec.decoder.projection.weight = weights["embedding.weight"]
    for side, name in ((spec.encoder, "encoder"), (spec.decoder, "decoder")):
        side.position_encodings.encodings = weights["positions"]
        if pre_norm:
            _set_norm(side.layer_norm, weights, f"{name}_norm")
        for i, layer in enumerate(side.layer):
            _set_layer(layer, weights, f"{name}.{i}")
    _set_cross_attentions(spec, weights)
    return spec


def _set_norm(spec: Any, weights: Weights, name: str) -> None:
    spec.gamma, spec.beta = weights[f"{name}.weight"], weights[f"{name}.bias"]


def _set_linear(spec: Any, weights: Weights, name: str) -> None:
    spec.weight, spec.bias = weights[f"{name}.weight"], weights[f"{name}.bias"]


def _set_layer(layer: Any, weights: Weights, name: str) -> None:
    _set_norm(layer.self_attention.layer_norm, weights, f"{name}.self_attention_residual.norm")
    fused, output = layer.self_attention.linear
    _set_linear(fused, weights, f"{name}.self_attention.query_key_value")
    _set_linear(output, weights, f"{name}.self_attention.output")
    _set_norm(layer.ffn.layer_norm, weights, f"{name}.feed_forward_residual.norm")
    _set_linear(layer.ffn.linear_0, weights, f"{name}.feed_forward.0")
    _set_linear(layer.ffn.linear_1, weights, f"{name}.feed_forward.2")


def _set_cross_attentions(spec: TransformerSpec, weights: Weights) -> None:
    """Set the cross-attention weights. The encoder graph projects keys and values of all layers."""
    fused = "decoder.cross_attention.keys_values"
    parts = {
        kind: np.split(weights[f"{fused}.{kind}"], len(spec.decoder.layer))
        for kind in ("weight", "bias")
    }
    for i, layer in enumerate(spec.decoder.layer):
        name = f"decoder.{i}.cross_attention"
        _set_norm(layer.attention.layer_norm, weights, f"{name}_residual.norm")
        query, keys_values, output = layer.attention.linear
        _set_linear(query, weights, f"{name}.query")
        _set_linear(output, weights, f"{name}.output")
        keys_values.weight, keys_values.bias = parts["weight"][i], parts["bias"][i]
