"""Tiny checkpoints of ColBERT and folders of PyLate with random weights."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from tests.support.checkpoints import WIDTH, change_json, write_checkpoint, write_json

DIMENSION = 12
MARKERS = {"query": "[unused0]", "document": "[unused1]"}
PYLATE_MARKERS = {"query": "[Q] ", "document": "[D] "}


def write_colbert(folder: Path, seed: int = 0, **metadata: Any) -> Path:
    """Write a checkpoint as the package of ColBERT writes it and return ``folder``.

    ``metadata`` are fields of ``artifact.metadata``; without any, the file is missing.
    """
    write_checkpoint(folder, "bert", has_head=False, prefix="bert.")
    _rename_last_words(folder / "tokenizer.json", list(MARKERS.values()))
    change_json(folder / "config.json", architectures=["HF_ColBERT"])
    _add_weights(folder / "model.safetensors", seed, **{"linear.weight": (DIMENSION, WIDTH)})
    if metadata:
        write_json(folder / "artifact.metadata", metadata)
    return folder


def write_pylate(folder: Path, family: str = "bert", seed: int = 0, **settings: Any) -> Path:
    """Write a folder as PyLate writes it, with two dense layers, and return ``folder``.

    ``settings`` change those of ``config_sentence_transformers.json``.
    """
    write_checkpoint(folder, family, has_head=False)
    path = folder / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.add_tokens(list(PYLATE_MARKERS.values()))
    tokenizer.save(str(path))
    _widen_embeddings(folder, tokenizer.get_vocab_size())
    entries: list[dict[str, str]] = [
        {"path": "", "type": "sentence_transformers.models.Transformer"}
    ]
    widths = (WIDTH, 20, DIMENSION)
    for number in (1, 2):
        name = f"{number}_Dense"
        entries.append({"path": name, "type": "pylate.models.Dense.Dense"})
        (folder / name).mkdir()
        inputs, outputs = widths[number - 1 : number + 1]
        fields: dict[str, Any] = {
            "in_features": inputs,
            "out_features": outputs,
            "bias": number == 1,
        }
        fields |= {"activation_function": "torch.nn.modules.linear.Identity"}
        write_json(folder / name / "config.json", fields | {"use_residual": False})
        shapes: dict[str, tuple[int, ...]] = {"linear.weight": (outputs, inputs)}
        shapes |= {"linear.bias": (outputs,)} if number == 1 else {}
        _add_weights(folder / name / "model.safetensors", seed + number, **shapes)
    write_json(
        folder / "modules.json",
        [{"idx": i, "name": str(i), **each} for i, each in enumerate(entries)],
    )
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 39, "do_lower_case": False})
    package: dict[str, Any] = {
        "prompts": {},
        "default_prompt_name": None,
        "similarity_fn_name": "MaxSim",
    }
    package |= {f"{name}_prefix": marker for name, marker in PYLATE_MARKERS.items()}
    package |= {"query_length": 32, "document_length": 100, "attend_to_expansion_tokens": False}
    write_json(
        folder / "config_sentence_transformers.json",
        package | {"skiplist_words": [".", ","]} | settings,
    )
    return folder


def _rename_last_words(path: Path, names: list[str]) -> None:
    """Rename the last words of the vocabulary, like the unused tokens of BERT."""
    content = json.loads(path.read_text(encoding="utf-8"))
    words = sorted(content["model"]["vocab"], key=content["model"]["vocab"].get)
    kept = words[: len(words) - len(names)]
    content["model"]["vocab"] = {word: i for i, word in enumerate([*kept, *names])}
    write_json(path, content)


def _add_weights(path: Path, seed: int, **shapes: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(seed)
    tensors = load_file(path) if path.exists() else {}
    for name, shape in shapes.items():
        tensors[name] = torch.randn(*shape, generator=generator) * 0.2
    save_file(tensors, path, {"format": "pt"})


def _widen_embeddings(folder: Path, vocab_size: int) -> None:
    """Give the tokens of the markers random embeddings."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    (name,) = [
        n for n in tensors if n.endswith(("word_embeddings.weight", "tok_embeddings.weight"))
    ]
    table = tensors[name]
    more = torch.randn(vocab_size - len(table), table.shape[1]) * 0.2
    tensors[name] = torch.cat([table, more])
    save_file(tensors, path, {"format": "pt"})
    change_json(folder / "config.json", vocab_size=vocab_size)
