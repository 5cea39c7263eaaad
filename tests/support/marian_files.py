"""Tiny models in Marian's own formats, written byte by byte, with random weights.

Names and shapes of the tensors are spelled out here a second time. Quantized matrices are written
as Marian's converter writes them.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from tests.support.checkpoints import Shapes
from tests.support.marian_checkpoints import tiny_pieces
from tests.support.sentencepiece_files import CONTROL, UNKNOWN, write_sentencepiece

FloatArray = NDArray[np.float32]
Stored = tuple[str, int, tuple[int, ...], bytes]
"""Name, type, shape and data of a tensor."""

FLOAT32, INT8, CHARACTERS = 0x404, 0x4101, 0x101
MAGIC = 0xF11A48D5013417F5
FIELDS: dict[str, Any] = {
    "bert-train-type-embeddings": True,
    "bert-type-vocab-size": 2,
    "dec-cell": "ssru",
    "dec-cell-base-depth": 2,
    "dec-cell-high-depth": 1,
    "dec-depth": 2,
    "dim-emb": 32,
    "dim-rnn": 1024,
    "enc-cell": "gru",
    "enc-cell-depth": 1,
    "enc-depth": 2,
    "enc-type": "bidirectional",
    "input-types": [],
    "layer-normalization": False,
    "lemma-dim-emb": 0,
    "output-omit-bias": False,
    "right-left": False,
    "skip": False,
    "tied-embeddings": False,
    "tied-embeddings-all": True,
    "tied-embeddings-src": False,
    "transformer-aan-activation": "swish",
    "transformer-aan-depth": 2,
    "transformer-aan-nogate": False,
    "transformer-decoder-autoreg": "rnn",
    "transformer-dim-aan": 2048,
    "transformer-dim-ffn": 48,
    "transformer-ffn-activation": "relu",
    "transformer-ffn-depth": 2,
    "transformer-guided-alignment-layer": "last",
    "transformer-heads": 4,
    "transformer-no-projection": False,
    "transformer-pool": False,
    "transformer-postprocess": "dan",
    "transformer-postprocess-emb": "d",
    "transformer-postprocess-top": "",
    "transformer-preprocess": "",
    "transformer-tied-layers": [],
    "transformer-train-position-embeddings": False,
    "type": "transformer",
    "ulr": False,
    "ulr-dim-emb": 0,
    "ulr-trainable-transformation": False,
    "version": "v1.9.56 94aeaa46 2021-04-28 00:28:35 +0100",
}
"""The configuration of a student, in the fields of Marian 1.9."""
PRE_NORM = {
    "transformer-preprocess": "n",
    "transformer-postprocess": "da",
    "transformer-postprocess-top": "n",
}
MARIAN_SPECIAL = (("</s>", 0.0, CONTROL), ("<unk>", 0.0, UNKNOWN))


def write_marian_folder(
    folder: Path,
    quantizes: bool = True,
    has_separate_vocabularies: bool = False,
    has_shortlist: bool = True,
    **fields: Any,
) -> Path:
    """Write a folder as Firefox ships it and return it.

    ``fields`` change the configuration, with ``_`` for ``-``. Without ``quantizes``, the model is
    an ``.npz`` file in float32.
    """
    folder.mkdir(parents=True)
    sides = ("source", "target") if has_separate_vocabularies else ("source", "source")
    names = ("srcvocab.enfr.spm", "trgvocab.enfr.spm")
    for name, side in zip(names, sides, strict=True):
        name = name if has_separate_vocabularies else "vocab.enfr.spm"
        write_vocabulary(folder / name, side)
    sizes = [len(vocabulary(side)) for side in sides]
    changed = {name.replace("_", "-"): value for name, value in fields.items()}
    config = {**FIELDS, "dim-vocabs": sizes, **changed}
    tensors = random_tensors(marian_shapes(config))
    if quantizes:
        write_binary(folder / "model.enfr.intgemm.alphas.bin", config, tensors)
    else:
        write_npz(folder / "model.enfr.npz", config, tensors)
    if has_shortlist:
        write_shortlist(folder / "lex.50.50.enfr.s2t.bin", random_lists(*sizes))
    return folder


def write_options(folder: Path, **fields: Any) -> Path:
    """Write a file of options beside a model; ``fields`` change it. Returns the folder."""
    names = ["vocab.enfr.spm", "vocab.enfr.spm"]
    options = {
        "relative-paths": True,
        "models": ["model.enfr.intgemm.alphas.bin"],
        "vocabs": names,
        "shortlist": ["lex.50.50.enfr.s2t.bin", False],
        "beam-size": 1,
        "normalize": 1.0,
        "word-penalty": 0,
        "mini-batch": 64,
        "max-length-factor": 2.5,
        "gemm-precision": "int8shiftAlphaAll",
        **{name.replace("_", "-"): value for name, value in fields.items()},
    }
    (folder / "config.yml").write_text(json.dumps(options))  # JSON is YAML
    return folder


def vocabulary(side: str) -> list[str]:
    """All pieces by id."""
    return [*(text for text, *_ in MARIAN_SPECIAL), *tiny_pieces(side).scores]


def write_vocabulary(path: Path, side: str) -> None:
    """Write the vocabulary of a side, whose first pieces are those of Marian."""
    write_sentencepiece(path, tiny_pieces(side), special=MARIAN_SPECIAL)


def marian_shapes(config: Mapping[str, Any]) -> Shapes:
    """Names and shapes of the tensors."""
    width, (source_size, target_size) = config["dim-emb"], config["dim-vocabs"]
    shapes: Shapes = {"decoder_ff_logit_out_b": (1, target_size)}
    is_tied = config["tied-embeddings-all"] or config["tied-embeddings"]
    if config["tied-embeddings-all"] or config["tied-embeddings-src"]:
        shapes["Wemb"] = (source_size, width)
    else:
        shapes["encoder_Wemb"] = (source_size, width)
        shapes["decoder_Wemb"] = (target_size, width)
    if not is_tied:
        shapes["decoder_ff_logit_out_Wt"] = (target_size, width)
    suffix = "_pre" if config["transformer-preprocess"] else ""
    for layer in range(1, config["enc-depth"] + 1):
        shapes |= _attention(f"encoder_l{layer}_self", width, suffix)
        shapes |= _feed_forward(f"encoder_l{layer}_ffn", width, config, suffix)
    for layer in range(1, config["dec-depth"] + 1):
        if config["transformer-decoder-autoreg"] == "rnn":
            rnn = f"decoder_l{layer}_rnn"
            shapes |= {f"{rnn}_W": (width, width), f"{rnn}_Wf": (width, width)}
            shapes |= {f"{rnn}_bf": (1, width), **_norm(f"{rnn}_ffn", width, suffix)}
        else:
            shapes |= _attention(f"decoder_l{layer}_self", width, suffix)
        shapes |= _attention(f"decoder_l{layer}_context", width, suffix)
        shapes |= _feed_forward(f"decoder_l{layer}_ffn", width, config, suffix)
    if config["transformer-postprocess-top"]:
        shapes |= _norm("encoder_top", width) | _norm("decoder_top", width)
    return shapes


def _attention(name: str, width: int, suffix: str) -> Shapes:
    matrices = {f"{name}_W{each}": (width, width) for each in "qkvo"}
    biases = {f"{name}_b{each}": (1, width) for each in "qkvo"}
    return {**matrices, **biases, **_norm(f"{name}_Wo", width, suffix)}


def _feed_forward(name: str, width: int, config: Mapping[str, Any], suffix: str) -> Shapes:
    inner = config["transformer-dim-ffn"]
    return {
        f"{name}_W1": (width, inner),
        f"{name}_b1": (1, inner),
        f"{name}_W2": (inner, width),
        f"{name}_b2": (1, width),
        **_norm(f"{name}_ffn", width, suffix),
    }


def _norm(name: str, width: int, suffix: str = "") -> Shapes:
    return {f"{name}_ln_scale{suffix}": (1, width), f"{name}_ln_bias{suffix}": (1, width)}


def random_tensors(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, FloatArray]:
    """Random weights; those of norms are around 1. Most translations end soon."""
    draw = np.random.default_rng(5)
    tensors = {}
    for name, shape in shapes.items():
        scale = 1 / shape[1] ** 0.5 if "Wemb" in name or "_Wt" in name else 1 / shape[0] ** 0.5
        tensor = draw.normal(size=shape) * (0.1 if shape[0] == 1 else scale)
        tensors[name] = (tensor + ("ln_scale" in name)).astype(np.float32)
    tensors["decoder_ff_logit_out_b"][0, 0] += 2.5
    return tensors


def write_binary(
    path: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, FloatArray],
    output_name: str = "Wemb",
) -> None:
    """Write a model whose matrices are quantized, with factors for activations.

    ``output_name`` is the matrix that the factor of the tied output layer is named after.
    """
    stored: list[Stored] = []
    for name, tensor in sorted(tensors.items()):
        if len(tensor) == 1:
            stored.append((name, FLOAT32, tensor.shape, tensor.tobytes()))
            continue
        stored.append((name, INT8, tensor.shape, _quantized(name, tensor)))
        factor = np.float32(12.5).tobytes()
        of_name = output_name if name == "Wemb" else name
        stored.append((f"{of_name}_QuantMultA", FLOAT32, (1, 1), factor))
    text = _yaml(config)
    write_tensors(path, [*stored, ("special:model.yml", CHARACTERS, (len(text),), text)])


def _quantized(name: str, tensor: FloatArray) -> bytes:
    multiplier = np.float32(127 / np.abs(tensor).max())
    integers = np.rint(tensor * multiplier).clip(-127, 127).astype(np.int8)
    if "Wemb" not in name:
        integers = integers.T
    return integers.tobytes() + multiplier.tobytes()


def write_tensors(path: Path, tensors: Sequence[Stored], version: int = 1) -> None:
    """Write a binary file. Each tensor's data is padded to 256 bytes, as are names and shapes."""
    content = struct.pack("<2Q", version, len(tensors))
    for name, kind, shape, data in tensors:
        content += struct.pack("<4Q", len(name) + 1, kind, len(shape), _rounded(len(data)))
    content += b"".join(name.encode() + b"\0" for name, *_ in tensors)
    content += b"".join(struct.pack(f"<{len(shape)}i", *shape) for _, _, shape, _ in tensors)
    padding = _rounded(len(content) + 8) - len(content) - 8
    content += struct.pack("<Q", padding) + bytes(padding)
    path.write_bytes(content + b"".join(d.ljust(_rounded(len(d)), b"\0") for *_, d in tensors))


def _rounded(num_bytes: int) -> int:
    return -(-num_bytes // 256) * 256


def write_npz(path: Path, config: Mapping[str, Any], tensors: Mapping[str, FloatArray]) -> None:
    """Write a model in float32."""
    text = np.frombuffer(_yaml(config), np.int8)
    arrays: dict[str, Any] = {"special:model.yml": text, **tensors}
    np.savez(path, allow_pickle=False, **arrays)


def _yaml(config: Mapping[str, Any]) -> bytes:
    return yaml.safe_dump(dict(config)).encode() + b"\0"


def random_lists(source_size: int, target_size: int) -> list[list[int]]:
    """Up to 6 target tokens for each source token; EOS has none."""
    draw = np.random.default_rng(7)
    lists: list[list[int]] = [[]]
    for _ in range(1, source_size):
        chosen = draw.choice(np.arange(2, target_size), draw.integers(7), replace=False)
        lists.append(sorted(chosen.tolist()))
    return lists


def write_shortlist(path: Path, lists: Sequence[Sequence[int]], num_frequent: int = 50) -> None:
    """Write a binary shortlist."""
    offsets = np.cumsum([0, *map(len, lists)])
    tokens = [token for each in lists for token in each]
    content = struct.pack("<4Q", num_frequent, 50, len(offsets), len(tokens))
    content += struct.pack(f"<{len(offsets)}Q", *offsets) + struct.pack(f"<{len(tokens)}I", *tokens)
    path.write_bytes(struct.pack("<2Q", MAGIC, _hash(content)) + content)


def _hash(content: bytes) -> int:
    """The hash of Marian's ``util::hashMem`` over whole 64-bit words."""
    seed, mask = 0, 2**64 - 1
    for (word,) in struct.iter_unpack("<Q", content[: len(content) & ~7]):
        seed ^= (word + 0x9E3779B9 + (seed << 6) + (seed >> 2)) & mask
    return seed
