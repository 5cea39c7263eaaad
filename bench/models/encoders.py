"""Encoders of well-known sizes with random weights, for us and for others.

    python -m bench.models.encoders --data-dir DATA_DIR --model minilm

One set of weights is written twice: as a run folder, which ``attendant-export export`` makes a
bundle of, and as the folder of an equal Hugging Face ``BertModel`` with mean pooling and
normalization, which sentence-transformers and others read. Both have the same ``tokenizer.json``.
Random weights cost as much time as trained ones.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from bench.texts import add_data_dir, paragraphs

Weights = Mapping[str, NDArray[np.float32]]

FOLDER = Path("build/bench/encoders")
PRECISIONS = ("fp32", "int8")
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
NUM_SEGMENTS = 2
LAYER_NORM_EPSILON = 1e-5
NUM_TOKENIZER_TEXTS = 60_000


@dataclass(frozen=True, slots=True)
class EncoderSizes:
    """The sizes of a post-norm BERT with GELU."""

    num_layers: int
    d_model: int
    num_heads: int
    d_ff: int
    vocab_size: int = 30_522
    max_positions: int = 512


SIZES = {
    "minilm": EncoderSizes(num_layers=6, d_model=384, num_heads=12, d_ff=1536),
    "bert-base": EncoderSizes(num_layers=12, d_model=768, num_heads=12, d_ff=3072),
}


@dataclass(frozen=True, slots=True)
class Encoder:
    """Where one encoder was written."""

    bundle: Path
    hugging_face: Path

    @property
    def bundles_dir(self) -> Path:
        """The folder that a server is started on."""
        return self.bundle.parent.parent

    @property
    def tokenizer(self) -> Path:
        """The ``tokenizer.json`` of all."""
        return self.bundle / "tokenizer.json"


def prepare(name: str, data_dir: Path, folder: Path = FOLDER) -> Encoder:
    """The encoder called ``name`` in `SIZES`, written into ``folder`` if it is not there yet."""
    encoder = Encoder(folder / "bundles" / name / "1", folder / "hugging-face" / name)
    if not encoder.bundle.exists():
        tokenizer = _kept_tokenizer(folder / "tokenizer.json", data_dir)
        weights = random_weights(SIZES[name])
        write_hugging_face(encoder.hugging_face, weights, SIZES[name], tokenizer)
        run_dir = folder / "runs" / name
        write_run(run_dir, weights, SIZES[name], tokenizer)
        _export(run_dir, encoder.bundles_dir, data_dir)
    return encoder


def _kept_tokenizer(path: Path, data_dir: Path) -> Tokenizer:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        texts = paragraphs(data_dir, NUM_TOKENIZER_TEXTS)
        train_tokenizer(texts, SIZES["minilm"].vocab_size).save(str(path))
    return Tokenizer.from_file(str(path))


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """An uncased WordPiece vocabulary, as BERT has it; encoding adds [CLS] and [SEP]."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=list(SPECIAL_TOKENS), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    return tokenizer


def random_weights(sizes: EncoderSizes, seed: int = 1) -> Weights:
    """BERT's initialization (normal, deviation 0.02) by the names of our model's parameters."""
    rng = np.random.default_rng(seed)
    return {
        name: _initial(rng, name, shape) for name, shape in sorted(_parameter_shapes(sizes).items())
    }


def _initial(rng: np.random.Generator, name: str, shape: Sequence[int]) -> NDArray[np.float32]:
    if name.endswith("bias"):
        return np.zeros(shape, np.float32)
    if len(shape) == 1:  # of a layer norm
        return np.ones(shape, np.float32)
    return rng.normal(0, 0.02, shape).astype(np.float32)


def _parameter_shapes(sizes: EncoderSizes) -> dict[str, tuple[int, ...]]:
    width = sizes.d_model
    shapes: dict[str, tuple[int, ...]] = {
        "embedding.weight": (sizes.vocab_size, width),
        "position_embedding.weight": (sizes.max_positions, width),
        "segment_embedding.weight": (NUM_SEGMENTS, width),
        "mask_head.bias": (sizes.vocab_size,),
    }
    linears = {"mask_head.dense": (width, width)}
    norms = ["embedding_norm", "mask_head.norm"]
    for i in range(sizes.num_layers):
        block = f"encoder.{i}"
        linears[f"{block}.self_attention.query_key_value"] = (3 * width, width)
        linears[f"{block}.self_attention.output"] = (width, width)
        linears[f"{block}.feed_forward.0"] = (sizes.d_ff, width)
        linears[f"{block}.feed_forward.2"] = (width, sizes.d_ff)
        norms += [f"{block}.self_attention_residual.norm", f"{block}.feed_forward_residual.norm"]
    for name, shape in linears.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for name in norms:
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    return shapes


def hugging_face_weights(weights: Weights, num_layers: int) -> Weights:
    """The same weights by the names of a Hugging Face ``BertModel``; its pooler, unused, is 0."""
    width = weights["embedding.weight"].shape[1]
    renamed = {
        "embeddings.word_embeddings.weight": weights["embedding.weight"],
        "embeddings.position_embeddings.weight": weights["position_embedding.weight"],
        "embeddings.token_type_embeddings.weight": weights["segment_embedding.weight"],
        "pooler.dense.weight": np.zeros((width, width), np.float32),
        "pooler.dense.bias": np.zeros(width, np.float32),
    }
    for kind in ("weight", "bias"):
        renamed[f"embeddings.LayerNorm.{kind}"] = weights[f"embedding_norm.{kind}"]
        for i in range(num_layers):
            renamed |= _hugging_face_layer(weights, i, kind)
    return renamed


def _hugging_face_layer(weights: Weights, layer: int, kind: str) -> Weights:
    ours, theirs = f"encoder.{layer}", f"encoder.layer.{layer}"
    names = {
        "self_attention.output": "attention.output.dense",
        "self_attention_residual.norm": "attention.output.LayerNorm",
        "feed_forward.0": "intermediate.dense",
        "feed_forward.2": "output.dense",
        "feed_forward_residual.norm": "output.LayerNorm",
    }
    renamed = {
        f"{theirs}.{name}.{kind}": weights[f"{ours}.{our_name}.{kind}"]
        for our_name, name in names.items()
    }
    fused = np.split(weights[f"{ours}.self_attention.query_key_value.{kind}"], 3)
    for part, array in zip(("query", "key", "value"), fused, strict=True):
        renamed[f"{theirs}.attention.self.{part}.{kind}"] = array
    return renamed


def write_run(run_dir: Path, weights: Weights, sizes: EncoderSizes, tokenizer: Tokenizer) -> None:
    """Write what ``attendant-export`` takes for the folder of a finished training."""
    special = {
        f"{name}_id": tokenizer.token_to_id(f"[{name.upper()}]")
        for name in ("pad", "cls", "sep", "mask")
    }
    config = {
        "kind": "bert",
        "vocab_size": sizes.vocab_size,
        "d_model": sizes.d_model,
        "num_heads": sizes.num_heads,
        "d_ff": sizes.d_ff,
        "num_layers": sizes.num_layers,
        "max_positions": sizes.max_positions,
        **special,
    }
    record = {"recipe": "random weights", "max_tokens": sizes.max_positions}
    _write(run_dir, {"config.json": config, "run.json": record})
    tokenizer.save(str(run_dir / "tokenizer.json"))
    (run_dir / "best").mkdir(exist_ok=True)
    _save_weights(run_dir / "best/weights.safetensors", weights)


def write_hugging_face(
    folder: Path, weights: Weights, sizes: EncoderSizes, tokenizer: Tokenizer
) -> None:
    """Write a model that ``SentenceTransformer(folder)`` loads."""
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_act": "gelu",
        "hidden_size": sizes.d_model,
        "intermediate_size": sizes.d_ff,
        "layer_norm_eps": LAYER_NORM_EPSILON,
        "max_position_embeddings": sizes.max_positions,
        "num_attention_heads": sizes.num_heads,
        "num_hidden_layers": sizes.num_layers,
        "pad_token_id": tokenizer.token_to_id("[PAD]"),
        "type_vocab_size": NUM_SEGMENTS,
        "vocab_size": sizes.vocab_size,
    }
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": sizes.max_positions,
        "model_input_names": ["input_ids", "attention_mask"],
        **{f"{token[1:-1].lower()}_token": token for token in SPECIAL_TOKENS},
    }
    modules = ("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")
    described = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(modules)
    ]
    pooling = {"word_embedding_dimension": sizes.d_model, "pooling_mode_mean_tokens": True}
    _write(
        folder,
        {
            "config.json": config,
            "tokenizer_config.json": tokenizer_config,
            "modules.json": described,
            "sentence_bert_config.json": {"max_seq_length": sizes.max_positions},
            "1_Pooling/config.json": pooling,
        },
    )
    (folder / "2_Normalize").mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    _save_weights(
        folder / "model.safetensors", hugging_face_weights(weights, sizes.num_layers), format="pt"
    )


def _write(folder: Path, contents: Mapping[str, Any]) -> None:
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _save_weights(path: Path, weights: Weights, **metadata: str) -> None:
    contiguous = {name: np.ascontiguousarray(array) for name, array in weights.items()}
    save_file(contiguous, path, metadata or None)


def _export(run_dir: Path, bundles_dir: Path, data_dir: Path) -> None:
    card = {
        "description": "Random weights, to measure speed with.",
        "license": "CC0-1.0",
        "languages": ["en"],
        "data": [],
        "intended_use": "Benchmarks.",
        "weaknesses": ["It knows nothing."],
    }
    _write(run_dir, {"card.json": card})
    command = [sys.executable, "-m", "attendant_export", "export"]
    command += [f"--data-dir={data_dir}", f"--run-dir={run_dir}", f"--bundles-dir={bundles_dir}"]
    command += [f"--data-card={run_dir / 'card.json'}", f"--precisions={','.join(PRECISIONS)}"]
    subprocess.run(command, check=True)


def main() -> None:
    """Write one encoder and say where."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_data_dir(parser)
    parser.add_argument("--model", choices=SIZES, required=True)
    arguments = parser.parse_args()
    print(prepare(arguments.model, arguments.data_dir))


if __name__ == "__main__":
    main()
