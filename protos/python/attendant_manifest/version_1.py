"""Upgrades manifests of version 1. The only module that knows the names of that version.

Version 1 named the inputs and outputs of its graphs by rules; version 2 states them. Facts that
version 1 did not state are those of the exporter of that time; the position of norms differed and
stays unspecified.
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
_EPSILON = 1e-5


def upgrade(manifest: Json) -> Json:
    """The content of a manifest of version 1, as parsed from JSON, in version 2.

    Names that version 1 does not have stay as they are, for a strict reader to refuse. Raises
    KeyError, TypeError or AttributeError if a part that every manifest has is missing or of
    another type.
    """
    upgraded = {name: value for name, value in manifest.items() if name not in _MOVED}
    upgraded["manifest_version"] = 2
    if "translation_sizes" in manifest:
        sizes = manifest["translation_sizes"]
        tokens = dict(manifest["special_tokens"])
        upgraded |= {
            "source_languages": [manifest["source_language"]],
            "target_languages": [manifest["target_language"]],
            "decoding": {"start_token_id": tokens.pop("bos_id")},
            "special_tokens": tokens,
            "architecture": _transformer(sizes),
        }
    else:
        sizes = manifest["embedding_sizes"]
        upgraded |= {
            "embedding": _embedding_defaults(manifest),
            "architecture": _bert(sizes, manifest),
        }
    upgraded["precisions"] = [_precision(p, sizes) for p in manifest["precisions"]]
    return upgraded


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
    known = (
        "tokens",
        "lengths",
        "total_length",
        "source_lengths",
        "total_source_length",
        "num_candidates",
        "shortlist",
        "may_use",
    )
    biases = [
        {"positions": f"adjusted_positions{suffix}", "values": f"adjustments{suffix}"}
        for suffix in suffixes
    ]
    return {
        "name": name,
        "graph": graph,
        "num_tokens": num_tokens,
        "max_given_tokens": 1,
        "rows_per_sentence": 1 if "total_source_length" in inputs else 0,
        "inputs": {each: each for each in known if each in inputs} | {"token_biases": biases},
        "outputs": {each: each for each in ("candidate_ids", "candidate_log_probabilities")},
        "states": list(_states(set(graph["outputs"]), suffixes, precision["name"], sizes)),
    }


def _states(
    outputs: set[str], suffixes: Iterable[str], precision: str, sizes: Json
) -> Iterator[Json]:
    layers = range(sizes["num_decoder_layers"])
    for name in (f"{kind}_{layer}" for layer in layers for kind in ("key", "value")):
        shared = {
            "type": "DATA_TYPE_FLOAT16" if precision == "fp16" else "DATA_TYPE_FLOAT32",
            "shape": [sizes["num_heads"], 0, sizes["head_dim"]],
            "update": "STATE_UPDATE_GROWS",
        }
        yield {
            "input": f"past_{name}",
            "outputs": [f"present_{name}{suffix}" for suffix in suffixes],
            "owner": "STATE_OWNER_ROW",
            **shared,
        }
        written = [f"present_cross_{name}{suffix}" for suffix in suffixes]
        yield {
            "input": f"cross_{name}",
            "outputs": [each for each in written if each in outputs],
            "owner": "STATE_OWNER_SOURCE",
            "encoder_output": f"cross_{name}",
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
            "positions": {
                "kind": "POSITION_KIND_LEARNED",
                "num_positions": manifest["limits"]["max_tokens"],
            },
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
