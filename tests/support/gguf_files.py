"""Tiny GGUF files of language models, written value by value from checkpoints of other tests.

Names, orders and layouts are spelled out a second time, as the converter of llama.cpp has them.
"""

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

Array = np.ndarray
ALIGNMENT = 32
LLAMA_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
GPT2_NAMES = {
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
OTHER_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd",
    "transformer.ln_f": "output_norm",
    "lm_head": "output",
}


def f32(values: Array) -> bytes:
    return values.astype("<f4").tobytes()


def f16(values: Array) -> bytes:
    return values.astype("<f2").tobytes()


def bf16(values: Array) -> bytes:
    """Rounded towards zero."""
    return (values.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()


def q8_0(values: Array) -> bytes:
    """Blocks of 32 values: a scale and whole numbers."""
    blocks = values.reshape(-1, 32).astype(np.float32)
    scales = np.maximum(np.abs(blocks).max(axis=1) / 127, 1e-6).astype("<f2")
    numbers = np.rint(blocks / scales[:, None].astype(np.float32)).astype(np.int8)
    return b"".join(s.tobytes() + n.tobytes() for s, n in zip(scales, numbers, strict=True))


def q4_1(values: Array) -> bytes:
    """Blocks of 32 values: a scale, the least value, and pairs of values 16 apart in a byte."""
    content = b""
    for block in values.reshape(-1, 32).astype(np.float32):
        least = np.float16(block.min())
        scale = np.float16(max((block.max() - block.min()) / 15, 1e-6))
        numbers = np.clip(np.rint((block - np.float32(least)) / np.float32(scale)), 0, 15)
        packed = numbers[:16].astype(np.uint8) | (numbers[16:].astype(np.uint8) << 4)
        content += scale.tobytes() + least.tobytes() + packed.tobytes()
    return content


TYPES: dict[str, tuple[int, Callable[[Array], bytes]]] = {
    "F32": (0, f32),
    "F16": (1, f16),
    "Q4_1": (3, q4_1),
    "Q8_0": (8, q8_0),
    "BF16": (30, bf16),
}


def write_gguf(path: Path, source: Path, kind: str = "F32", **fields: Any) -> Path:
    """Write the checkpoint in the folder ``source`` to a file and return it.

    ``kind`` is the type of matrices. ``fields`` change the metadata, and None removes one; "__" in
    a name stands for a dot.
    """
    config = json.loads((source / "config.json").read_text())
    family = config["model_type"]
    metadata = {
        "general.architecture": family,
        "general.license": "cc0-1.0",
        **(_llama_fields(config) if family == "llama" else _gpt2_fields(config)),
        **_byte_level_fields(source, config),
        **{name.replace("__", "."): value for name, value in fields.items()},
    }
    tensors = {
        name: (values, "F32" if values.ndim == 1 else kind)
        for name, values in _tensors(source, config)
    }
    path.write_bytes(content_of({k: v for k, v in metadata.items() if v is not None}, tensors))
    return path


def content_of(metadata: Mapping[str, Any], tensors: Mapping[str, tuple[Array, str]]) -> bytes:
    """The bytes of a file."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    head += b"".join(_text(key) + _typed(value) for key, value in metadata.items())
    data = b""
    for name, (values, kind) in tensors.items():
        number, pack = TYPES[kind]
        dimensions = values.shape[::-1]
        head += _text(name) + struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
        head += struct.pack("<IQ", number, len(data))
        data += pack(values)
        data += bytes(-len(data) % ALIGNMENT)
    return head + bytes(-len(head) % ALIGNMENT) + data


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _typed(value: Any) -> bytes:
    number, content = _value(value)
    return struct.pack("<I", number) + content


def _value(value: Any) -> tuple[int, bytes]:
    if isinstance(value, bool):
        return 7, struct.pack("<?", value)
    if isinstance(value, int):
        return 4, struct.pack("<I", value)
    if isinstance(value, float):
        return 6, struct.pack("<f", value)
    if isinstance(value, str):
        return 8, _text(value)
    number = _value(value[0])[0]
    elements = b"".join(_value(each)[1] for each in value)
    return 9, struct.pack("<IQ", number, len(value)) + elements


def _llama_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "llama.embedding_length": config["hidden_size"],
        "llama.block_count": config["num_hidden_layers"],
        "llama.feed_forward_length": config["intermediate_size"],
        "llama.context_length": config["max_position_embeddings"],
        "llama.attention.head_count": config["num_attention_heads"],
        "llama.attention.head_count_kv": config["num_key_value_heads"],
        "llama.attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "llama.rope.freq_base": config["rope_parameters"]["rope_theta"],
        "llama.rope.dimension_count": config["head_dim"],
        "llama.vocab_size": config["vocab_size"],
    }


def _gpt2_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "gpt2.embedding_length": config["n_embd"],
        "gpt2.block_count": config["n_layer"],
        "gpt2.feed_forward_length": 4 * config["n_embd"],
        "gpt2.context_length": config["n_positions"],
        "gpt2.attention.head_count": config["n_head"],
        "gpt2.attention.layer_norm_epsilon": config["layer_norm_epsilon"],
    }


def _byte_level_fields(source: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    model = tokenizer["model"]
    texts = sorted(model["vocab"], key=model["vocab"].__getitem__)
    special = {token["content"] for token in tokenizer["added_tokens"]}
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.token_type": [3 if text in special else 1 for text in texts],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in model["merges"]],
        "tokenizer.ggml.bos_token_id": config["bos_token_id"],
        "tokenizer.ggml.eos_token_id": config["eos_token_id"],
    }


def _tensors(source: Path, config: Mapping[str, Any]):
    heads: dict[str, int] = {}
    if config["model_type"] == "llama":
        heads["attn_q"] = config["num_attention_heads"]
        heads["attn_k"] = config["num_key_value_heads"]
    for name, values in load_file(source / "model.safetensors").items():
        module, kind = name.rsplit(".", 1)
        if module in OTHER_NAMES:
            yield f"{OTHER_NAMES[module]}.{kind}", values
            continue
        _, _, layer, rest = module.split(".", 3)
        is_gpt2 = rest in GPT2_NAMES
        ours = GPT2_NAMES[rest] if is_gpt2 else LLAMA_NAMES[rest]
        if is_gpt2 and values.ndim == 2:
            values = values.T
        if ours in heads:
            halves = values.reshape(heads[ours], 2, -1, values.shape[-1])
            values = halves.swapaxes(1, 2).reshape(values.shape)
        yield f"blk.{layer}.{ours}.{kind}", np.ascontiguousarray(values)
