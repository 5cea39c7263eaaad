"""Tiny CTranslate2 folders, written byte by byte as versions 1 to 6 of its format have them."""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from attendant_export.importers.checkpoint import Checkpoint
from attendant_export.importers.families import read_model
from attendant_export.importers.imported import ImportedTranslator
from numpy.typing import NDArray

from tests.support.checkpoints import write_json

Array: TypeAlias = NDArray[Any]
Tensors: TypeAlias = dict[str, Array]

EMBEDDINGS = "decoder/embeddings/weight"
WIDTH, HEADS, FEED_FORWARD, LAYERS = 16, 2, 24, {"encoder": 2, "decoder": 1}
DTYPES = ("float32", "int8", "int16", "int32", "float16", "bfloat16")
SPECIAL = ("<blank>", "<s>", "</s>")
SOURCE_TOKENS = (*SPECIAL, *"abcdefghijklmnop")
TARGET_TOKENS = (*SPECIAL, *"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
SIZES = len(SOURCE_TOKENS) + 1, len(TARGET_TOKENS) + 1
"""Sizes of the vocabularies, with the unknown token that the files lack."""
CONFIG = {
    "unk_token": "<unk>",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "decoder_start_token": "<s>",
    "add_source_bos": False,
    "add_source_eos": False,
}


def write_folder(
    folder: Path,
    version: int = 6,
    quantization: str = "float32",
    tensors: Tensors | None = None,
    aliases: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
    shared: Sequence[str] = (),
    **config: Any,
) -> Path:
    """Write a folder and return it.

    ``tensors`` are those of `random_weights` by default. ``options`` are scalars, and ``config``
    changes ``config.json``. ``shared`` is the vocabulary of both sides, if there is one for both.
    """
    folder.mkdir(parents=True)
    if shared:
        write_json(folder / "shared_vocabulary.json", list(shared))
    else:
        for side, tokens in (("source", SOURCE_TOKENS), ("target", TARGET_TOKENS)):
            (folder / f"{side}_vocabulary.txt").write_text("\n".join(tokens) + "\n")
    if version >= 6:
        write_json(folder / "config.json", CONFIG | config)
    stored = quantized(random_weights() if tensors is None else tensors, quantization)
    scalars = {"num_heads": np.int8(HEADS)} | dict(options or {})
    if version >= 5:
        heads = scalars.pop("num_heads")
        scalars = {f"{stack}/num_heads": heads for stack in LAYERS} | scalars
    stored |= {name: np.asarray(value) for name, value in scalars.items()}
    content = model_bytes(stored, version, aliases or {})
    (folder / "model.bin").write_bytes(content)
    return folder


def read_folder(folder: Path, tokenizer: str | None = "characters") -> ImportedTranslator:
    """The model of a folder."""
    imported = read_model(Checkpoint(folder), tokenizer)
    assert isinstance(imported, ImportedTranslator)
    return imported


def model_bytes(
    variables: Mapping[str, Array],
    version: int = 6,
    aliases: Mapping[str, str] | None = None,
    specification: str = "TransformerSpec",
    revision: int | None = None,
) -> bytes:
    """The content of ``model.bin``."""
    parts = [struct.pack("<I", version)]
    if version >= 2:
        number = {2: 3, 3: 4, 4: 4, 5: 5, 6: 7}[version] if revision is None else revision
        parts += [_text(specification), struct.pack("<I", number)]
    parts.append(struct.pack("<I", len(variables)))
    for name, array in variables.items():
        shape = array.shape
        parts += [_text(name), struct.pack(f"<B{len(shape)}I", len(shape), *shape)]
        # Arrays of bfloat16 are given as their 16 bits.
        dtype = "bfloat16" if array.dtype == np.uint16 else array.dtype.name
        if version >= 4:
            parts.append(struct.pack("<BI", DTYPES.index(dtype), array.nbytes))
        else:
            parts.append(struct.pack("<BI", array.itemsize, array.size))
        parts.append(array.tobytes())
    if version >= 3:
        parts.append(struct.pack("<I", len(aliases or {})))
        parts += [_text(each) for pair in (aliases or {}).items() for each in pair]
    return b"".join(parts)


def _text(text: str) -> bytes:
    content = text.encode() + b"\0"
    return struct.pack("<H", len(content)) + content


def random_weights(
    seed: int = 0,
    sizes: tuple[int, int] = SIZES,
    width: int = WIDTH,
    norms: Sequence[str] = ("encoder/layer_norm", "decoder/layer_norm"),
) -> Tensors:
    """The weights of a network whose translations vary in length; pre-norm by default."""
    shapes = {
        "encoder/embeddings_0/weight": (sizes[0], width),
        EMBEDDINGS: (sizes[1], width),
        "decoder/projection/weight": (sizes[1], width),
        "decoder/projection/bias": (sizes[1],),
    }
    for stack, num_layers in LAYERS.items():
        for number in range(num_layers):
            shapes |= _layer(f"{stack}/layer_{number}", width, stack == "decoder")
    for norm in norms:
        shapes |= _norm(norm, width)
    generator = np.random.default_rng(seed)
    tensors: Tensors = {}
    for name, shape in shapes.items():
        values = generator.normal(0, 0.4, shape).astype(np.float32)
        tensors[name] = values + np.float32(name.endswith("gamma"))
    tensors["decoder/projection/bias"][SPECIAL.index("</s>")] += 2
    return tensors


def _layer(name: str, width: int, is_decoder: bool) -> dict[str, tuple[int, ...]]:
    shapes = _norm(f"{name}/self_attention/layer_norm", width) | _norm(
        f"{name}/ffn/layer_norm", width
    )
    shapes |= _linear(f"{name}/self_attention/linear_0", 3 * width, width)
    shapes |= _linear(f"{name}/self_attention/linear_1", width, width)
    shapes |= _linear(f"{name}/ffn/linear_0", FEED_FORWARD, width)
    shapes |= _linear(f"{name}/ffn/linear_1", width, FEED_FORWARD)
    if is_decoder:
        shapes |= _norm(f"{name}/attention/layer_norm", width)
        shapes |= _linear(f"{name}/attention/linear_0", width, width)
        shapes |= _linear(f"{name}/attention/linear_1", 2 * width, width)
        shapes |= _linear(f"{name}/attention/linear_2", width, width)
    return shapes


def _linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}/weight": (outputs, inputs), f"{name}/bias": (outputs,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}/gamma": (width,), f"{name}/beta": (width,)}


def quantized(tensors: Tensors, quantization: str) -> Tensors:
    """The arrays of a file with a quantization of CTranslate2's converters."""
    weights, _, others = quantization.partition("_")
    others = others or (weights if "float" in weights else "float32")
    stored: Tensors = {}
    for name, array in tensors.items():
        values = array.astype(np.float32)
        if not name.endswith("/weight") or "float" in weights:
            stored[name] = _floats(values, others)
        elif weights == "int8":
            scales = (127 / np.abs(values).max(axis=1)).astype(np.float32)
            stored[name] = np.rint(values * scales[:, None]).astype(np.int8)
            stored[f"{name}_scale"] = scales
        else:
            scale = np.float32(2**10 / np.abs(values).max())
            stored[name] = np.rint(values * scale).astype(np.int16)
            stored[f"{name}_scale"] = np.asarray(scale)
    return stored


def _floats(values: NDArray[np.float32], dtype: str) -> Array:
    if dtype == "bfloat16":
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(dtype)


def early_names(tensors: Tensors) -> Tensors:
    """The same arrays with the names of OpenNMT-tf, which revision 1 has."""
    renamed = {}
    for name, array in tensors.items():
        stack = "encoder" if name.startswith("encoder") else "decoder"
        early = name.replace("embeddings_0/weight", "w_embs").replace("embeddings/weight", "w_embs")
        early = early.replace("layer_norm", "LayerNorm").replace("weight", "kernel")
        early = early.replace("projection", "dense").replace("linear_0", "conv1d")
        early = early.replace("linear_", "conv1d_")
        masked = "multi_head" if stack == "encoder" else "masked_multi_head"
        early = early.replace("self_attention", masked).replace("/attention/", "/multi_head/")
        renamed[f"transformer/{early}:0"] = array
    return renamed
