"""Encoders of well-known sizes with random weights, for attendant and its rivals.

The same weights are written in two formats: as a run folder for ``attendant-export export``, and as
a Hugging Face ``BertModel`` with mean pooling and normalization for sentence-transformers and other
engines. Both have the same ``tokenizer.json``. Random weights take as much time as trained ones.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from attendant.v1.architecture_pb2 import Architecture
from attendant_export.models.shapes import bert
from attendant_export.models.special_tokens import EncoderTokens
from attendant_manifest.sizes import embedding_sizes
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from bench.models.build import HUGGING_FACE
from bench.models.runs import (
    Weights,
    export_run,
    random_weights,
    save_weights,
    write_json,
    write_run,
)
from bench.texts import paragraphs, sample_texts

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""Special tokens in the order of their ids, the defaults of `EncoderTokens`."""
NUM_TOKENIZER_TEXTS = 60_000
NUM_VERIFIED_TEXTS = 200
VOCAB_SIZE = 30_522
# Post-norm BERTs with GELU.
SIZES = {
    "minilm": bert(VOCAB_SIZE, d_model=384, num_heads=12, d_feed_forward=1536, num_layers=6),
    "bert-base": bert(VOCAB_SIZE, d_model=768, num_heads=12, d_feed_forward=3072, num_layers=12),
}


def build(bundle: Path, data_dir: Path) -> None:
    """Write the encoder of `SIZES` with the bundle's name in both formats."""
    name = bundle.parent.name
    tokenizer = train_tokenizer(paragraphs(data_dir, NUM_TOKENIZER_TEXTS), VOCAB_SIZE)
    weights = random_weights(SIZES[name])
    write_hugging_face(HUGGING_FACE / name, SIZES[name], weights, tokenizer)
    run_dir = Path("build/bench/runs") / name
    write_run(run_dir, SIZES[name], weights, tokenizer)
    texts = sample_texts(data_dir, "short", NUM_VERIFIED_TEXTS)
    export_run(run_dir, bundle, "fp32,int8", ["en"], texts)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train an uncased WordPiece vocabulary, as in BERT. Encoding adds [CLS] and [SEP]."""
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


def hugging_face_weights(weights: Weights, num_layers: int) -> Weights:
    """The same weights by the names of a Hugging Face ``BertModel``. Its unused pooler is 0."""
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


def write_hugging_face(
    folder: Path, architecture: Architecture, weights: Weights, tokenizer: Tokenizer
) -> None:
    """Write a model that ``SentenceTransformer(folder)`` loads."""
    sizes, embeddings = embedding_sizes(architecture), architecture.source_embeddings
    max_positions = embeddings.positions.num_positions
    described = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_act": "gelu",
        "hidden_size": sizes.d_model,
        "intermediate_size": sizes.d_feed_forward,
        "layer_norm_eps": architecture.encoder.norm_epsilon,
        "max_position_embeddings": max_positions,
        "num_attention_heads": sizes.num_heads,
        "num_hidden_layers": sizes.num_layers,
        "pad_token_id": EncoderTokens().pad_id,
        "type_vocab_size": embeddings.num_token_types,
        "vocab_size": embeddings.vocab_size,
    }
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_positions,
        "model_input_names": ["input_ids", "attention_mask"],
        **{f"{token[1:-1].lower()}_token": token for token in SPECIAL_TOKENS},
    }
    modules = ("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")
    parts = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(modules)
    ]
    pooling = {"word_embedding_dimension": sizes.d_model, "pooling_mode_mean_tokens": True}
    write_json(folder / "config.json", described)
    write_json(folder / "tokenizer_config.json", tokenizer_config)
    write_json(folder / "modules.json", parts)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_positions})
    write_json(folder / "1_Pooling/config.json", pooling)
    (folder / "2_Normalize").mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    renamed = hugging_face_weights(weights, sizes.num_layers)
    save_weights(folder / "model.safetensors", renamed, format="pt")
