"""Tiny folders of static embeddings, written as Model2Vec and sentence-transformers write them.

The vectors are random.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attendant_export.bundle.importing import sample_texts
from attendant_export.data.tokenizer import train_bert_tokenizer
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor

from tests.support import checkpoint_tokenizers
from tests.support.checkpoints import write_json

DIMENSION = 24
CARD = "---\nlicense: mit\nlanguage:\n- en\n---\n# Tiny static embeddings\n"


def word_piece() -> Tokenizer:
    """WordPiece of English texts with a post-processor, so that other scripts are unknown."""
    return train_bert_tokenizer([text for text in sample_texts() if text.isascii()], 300)


def words() -> Tokenizer:
    """Whole words, as of word vectors."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(
        vocab_size=200, special_tokens=["[UNK]"], show_progress=False
    )
    tokenizer.train_from_iterator(sample_texts(), trainer)
    return tokenizer


TOKENIZERS: Mapping[str, Callable[[], Tokenizer]] = {
    "word pieces": word_piece,
    "bytes, no unknown token": checkpoint_tokenizers.roberta,
    "unigram": checkpoint_tokenizers.xlm_roberta,
    "words": words,
}


def random_table(num_tokens: int, dimension: int = DIMENSION, seed: int = 5) -> Tensor:
    """Random vectors of tokens, of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.rand(num_tokens, 1, generator=generator) + 0.2
    return torch.randn(num_tokens, dimension, generator=generator) * sizes


def write_model2vec(
    folder: Path,
    tokenizer: Tokenizer,
    tensors: Mapping[str, Tensor] | None = None,
    has_modules: bool = True,
    **fields: Any,
) -> Path:
    """Write a folder in Model2Vec's own layout and return it.

    ``fields`` are further fields of the configuration.
    """
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    table = {"embeddings": random_table(tokenizer.get_vocab_size())}
    save_file(dict(tensors or table), folder / "model.safetensors")
    config = {"model_type": "model2vec", "architectures": ["StaticModel"], "hidden_dim": DIMENSION}
    write_json(folder / "config.json", config | fields)
    (folder / "README.md").write_text(CARD)
    if has_modules:
        write_modules(folder, "." if has_modules else "", fields.get("normalize", False))
    return folder


def write_static_transformer(
    folder: Path,
    tokenizer: Tokenizer,
    path: str = "0_StaticEmbedding",
    normalizes: bool = False,
    dense: Sequence[int] = (),
) -> Path:
    """Write a folder of sentence-transformers with static embeddings and return it.

    ``path`` is the folder of the embeddings, "" for the root; ``dense`` the widths of dense layers.
    """
    (folder / path).mkdir(parents=True)
    tokenizer.save(str(folder / path / "tokenizer.json"))
    table = random_table(tokenizer.get_vocab_size())
    save_file({"embedding.weight": table}, folder / path / "model.safetensors")
    write_json(folder / "config_sentence_transformers.json", {"prompts": {}})
    (folder / "README.md").write_text(CARD)
    write_modules(folder, path, normalizes, dense)
    width = DIMENSION
    for number, d_output in enumerate(dense, start=1):
        layer = folder / f"{number}_Dense"
        layer.mkdir()
        sizes = {"in_features": width, "out_features": d_output, "bias": True}
        write_json(layer / "config.json", sizes)
        tensors = {
            "linear.weight": random_table(d_output, width),
            "linear.bias": random_table(1, d_output)[0],
        }
        save_file(tensors, layer / "model.safetensors")
        width = d_output
    return folder


def write_modules(folder: Path, path: str, normalizes: bool, dense: Sequence[int] = ()) -> None:
    """Write the list of modules of sentence-transformers."""
    names = ["StaticEmbedding", *["Dense"] * len(dense), *["Normalize"] * normalizes]
    paths = [path, *(f"{i}_{name}" for i, name in enumerate(names) if i)]
    write_json(
        folder / "modules.json",
        [
            {"idx": i, "name": str(i), "path": each, "type": f"sentence_transformers.models.{name}"}
            for i, (name, each) in enumerate(zip(names, paths, strict=True))
        ],
    )
