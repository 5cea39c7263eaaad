"""A small but complete manifest of version 2 as JSON, for tests of the manifest rules."""

import hashlib
from typing import Any


def content_of(path: str) -> bytes:
    return f"the content of {path}".encode()


def decoder_step(path: str) -> dict[str, Any]:
    """A step of one layer, with one row state and one source state."""
    inputs = {
        "tokens": "tokens",
        "past_lengths": "lengths",
        "total_length": "total_length",
        "source_lengths": "source_lengths",
        "num_candidates": "num_candidates",
    }
    bias = {"indices": "bias_indices", "values": "bias_values"}
    state = {"data_type": "DATA_TYPE_FLOAT32", "shape": [2, 0, 16]}
    outputs = {
        "candidate_ids": "candidate_ids",
        "candidate_log_probabilities": "candidate_log_probabilities",
    }
    return {
        "name": "decoder_step",
        "graph": {
            "path": path,
            "inputs": [*inputs.values(), *bias.values(), "past_key_0", "cross_key_0"],
            "outputs": [*outputs.values(), "present_key_0"],
        },
        "num_tokens": 1,
        "max_prefill_tokens": 1,
        "inputs": inputs | {"token_biases": [bias]},
        "outputs": outputs,
        "states": [
            state
            | {
                "input": "past_key_0",
                "outputs": ["present_key_0"],
                "owner": "STATE_OWNER_ROW",
                "update": "STATE_UPDATE_GROWS",
            },
            state
            | {
                "input": "cross_key_0",
                "owner": "STATE_OWNER_SOURCE",
                "update": "STATE_UPDATE_CONSTANT",
                "encoder_output": "cross_key_0",
            },
        ],
    }


def translation_manifest(name: str = "en-de", version: str = "1") -> dict[str, Any]:
    files = ["tokenizer.json", "weights.int8.bin", "weights.fp32.bin"]
    precisions = []
    for precision in ("int8", "fp32"):
        graphs = {
            graph: f"{graph}.{precision}.onnx" for graph in ("encoder", "decoder_step", "scorer")
        }
        files += graphs.values()
        step = decoder_step(graphs.pop("decoder_step"))
        precisions.append(
            {
                "name": precision,
                "weights": [f"weights.{precision}.bin"],
                "steps": [step],
                **{
                    graph: {"path": path, "outputs": ["cross_key_0"]}
                    for graph, path in graphs.items()
                },
            }
        )
    return {
        "manifest_version": 2,
        "name": name,
        "version": version,
        "kind": "MODEL_KIND_TRANSLATION",
        "source_tokenizer": "tokenizer.json",
        "target_tokenizer": "tokenizer.json",
        "source_languages": [{"tag": "en"}],
        "target_languages": [{"tag": "de"}],
        "special_tokens": {"pad_id": 0, "eos_id": 2, "unk_id": 3},
        "decoding": {"start_token_id": 1},
        "architecture": {
            "d_model": 32,
            "source_embeddings": {"vocab_size": 100},
            "target_embeddings": {"vocab_size": 100},
            "encoder": {"groups": [{"num_layers": 1}]},
            "decoder": {"groups": [{"num_layers": 1}]},
        },
        "limits": {"max_source_tokens": 64, "max_target_tokens": 64},
        "precisions": precisions,
        "files": [
            {
                "path": path,
                "sha256": hashlib.sha256(content_of(path)).hexdigest(),
                "size_bytes": len(content_of(path)),
            }
            for path in files
        ],
    }
