"""Upgrades manifests of version 1. No other module knows the names of version 1.

Version 1 named the inputs and outputs of graphs by convention; version 2 states them. For facts
that version 1 did not state, the upgrade uses the constants of the exporter of that time. Three
facts differed between models and stay unspecified: the position of norms, the number of learned
positions and the number of token types.
"""

from collections.abc import Iterable, Iterator
from math import sqrt
from typing import Any

Json = dict[str, Any]

_STEPS = (
    "greedy_steps",
    "greedy_step",
    "decoder_step",
    "shortlist_greedy_steps",
    "shortlist_decoder_step",
)
_MOVED = (
    "source_language",
    "target_language",
    "translation_sizes",
    "embedding_sizes",
    "default_pooling",
    "default_normalize",
)
_KEPT = (
    "manifest_version",
    "name",
    "version",
    "kind",
    "description",
    "license",
    "credits",
    "languages",
    "files",
    "precisions",
    "source_tokenizer",
    "target_tokenizer",
    "special_tokens",
    "limits",
    "provenance",
    "quality",
    "parity",
    "reference_outputs",
)
_INPUTS = {
    "tokens": "tokens",
    "past_lengths": "lengths",
    "total_length": "total_length",
    "source_lengths": "source_lengths",
    "total_source_length": "total_source_length",
    "num_candidates": "num_candidates",
    "shortlist": "shortlist",
    "shortlist_mask": "may_use",
}
"""Roles of inputs, with their names in version 1."""
_EPSILON = 1e-5
_MAX_SIZE = 2**24


def upgrade(manifest: Json) -> Json:
    """The content of a manifest of version 1, as parsed from JSON, in version 2.

    Raises ValueError for an unknown field or a bad size, KeyError for a missing required field, and
    TypeError or AttributeError for a field of a wrong type.
    """
    if unknown := sorted(manifest.keys() - set(_KEPT) - set(_MOVED)):
        raise ValueError(f"version 1 has no field {unknown[0]}")
    upgraded = {name: manifest[name] for name in _KEPT if name in manifest}
    upgraded["manifest_version"] = 2
    is_translation = "translation_sizes" in manifest
    if is_translation and "embedding_sizes" in manifest:
        raise ValueError("has the sizes of two kinds of models")
    stated = manifest["translation_sizes" if is_translation else "embedding_sizes"]
    sizes = {name: _size(name, size) for name, size in stated.items()}
    if is_translation:
        tokens = dict(manifest["special_tokens"])
        upgraded |= {
            "source_languages": [{"tag": manifest["source_language"]}],
            "target_languages": [{"tag": manifest["target_language"]}],
            "decoding": {"start_token_id": tokens.pop("bos_id")},
            "special_tokens": tokens,
            "architecture": _transformer(sizes),
        }
    else:
        upgraded |= {
            "embedding": _embedding_defaults(manifest),
            "architecture": _bert(sizes, manifest),
        }
    upgraded["precisions"] = [_precision(p, sizes) for p in manifest["precisions"]]
    return upgraded


def _size(name: str, value: Any) -> int:
    if type(value) is not int or not 1 <= value <= _MAX_SIZE:
        raise ValueError(f"{name} must be a number from 1 to {_MAX_SIZE}")
    return value


def _embedding_defaults(manifest: Json) -> Json:
    names = {"default_pooling": "pooling", "default_normalize": "normalize"}
    return {new: manifest[old] for old, new in names.items() if old in manifest}


def _precision(precision: Json, sizes: Json) -> Json:
    upgraded = {name: value for name, value in precision.items() if name not in _STEPS}
    upgraded["weights"] = [precision["weights"]]
    steps = [_step(name, precision, sizes) for name in _STEPS if name in precision]
    if steps:
        upgraded["steps"] = steps
    if "shortlist" in precision.get("encoder", {}).get("outputs", ()):
        upgraded["shortlist_output"] = "shortlist"
    return upgraded


def _step(name: str, precision: Json, sizes: Json) -> Json:
    graph = precision[name]
    inputs = set(graph["inputs"])
    num_tokens = sum(each.startswith("adjusted_positions") for each in graph["inputs"])
    suffixes = ["", *(f"_{i}" for i in range(1, num_tokens))]
    biases = [
        {"indices": f"adjusted_positions{suffix}", "values": f"adjustments{suffix}"}
        for suffix in suffixes
    ]
    return {
        "name": name,
        "graph": graph,
        "num_tokens": num_tokens,
        "max_prefill_tokens": 1,
        "rows_per_sentence": 1 if "total_source_length" in inputs else 0,
        "inputs": {role: each for role, each in _INPUTS.items() if each in inputs}
        | {"token_biases": biases},
        "outputs": {each: each for each in ("candidate_ids", "candidate_log_probabilities")},
        "states": list(_states(graph, suffixes, precision["name"], sizes)),
    }


def _states(graph: Json, suffixes: Iterable[str], precision: str, sizes: Json) -> Iterator[Json]:
    """The states of the graph, in the order of its inputs."""
    outputs = set(graph["outputs"])
    shared = {
        "data_type": "DATA_TYPE_FLOAT16" if precision == "fp16" else "DATA_TYPE_FLOAT32",
        "shape": [sizes["num_heads"], 0, sizes["head_dim"]],
    }
    for name in graph["inputs"]:
        if name.startswith("past_"):
            written = [f"{name.replace('past_', 'present_')}{suffix}" for suffix in suffixes]
            yield {
                "input": name,
                "outputs": written,
                "owner": "STATE_OWNER_ROW",
                "update": "STATE_UPDATE_GROWS",
                **shared,
            }
        elif name.startswith("cross_"):
            written = [f"present_{name}{suffix}" for suffix in suffixes]
            written = [each for each in written if each in outputs]
            yield {
                "input": name,
                "outputs": written,
                "owner": "STATE_OWNER_SOURCE",
                "update": "STATE_UPDATE_CONSTANT",
                "encoder_output": name,
                # Only kernels that write the state know the end of each source.
                "reads_padding": not written,
                **shared,
            }


def _transformer(sizes: Json) -> Json:
    embeddings = {
        "vocab_size": sizes["vocab_size"],
        "scale": sqrt(sizes["d_model"]),
        "positions": {"kind": "POSITION_KIND_SINUSOIDAL_HALVED"},
    }
    return {
        "d_model": sizes["d_model"],
        "source_embeddings": embeddings,
        "target_embeddings": embeddings,
        "shares_embeddings": True,
        "encoder": _stack(sizes, sizes["num_encoder_layers"], "ACTIVATION_RELU"),
        "decoder": _stack(sizes, sizes["num_decoder_layers"], "ACTIVATION_RELU", is_decoder=True),
        "head": {"is_tied": True},
    }


def _bert(sizes: Json, manifest: Json) -> Json:
    architecture = {
        "d_model": sizes["d_model"],
        "source_embeddings": {
            "vocab_size": sizes["vocab_size"],
            "positions": {"kind": "POSITION_KIND_LEARNED"},
            "has_norm": True,
        },
        "encoder": _stack(sizes, sizes["num_layers"], "ACTIVATION_GELU"),
    }
    if any("mlm_head" in precision for precision in manifest["precisions"]):
        architecture["head"] = {"is_tied": True, "has_bias": True, "transform": "ACTIVATION_GELU"}
    return architecture


def _stack(sizes: Json, num_layers: int, activation: str, is_decoder: bool = False) -> Json:
    attention = {
        "num_heads": sizes["num_heads"],
        "head_dim": sizes["head_dim"],
        "has_bias": True,
    }
    layers: Json = {
        "num_layers": num_layers,
        "self_attention": attention | ({"is_causal": True} if is_decoder else {}),
        "feed_forward": {
            "d_feed_forward": sizes["d_feed_forward"],
            "activation": activation,
            "has_bias": True,
        },
    }
    if is_decoder:
        layers["cross_attention"] = attention
    return {"groups": [layers], "norm_epsilon": _EPSILON}
