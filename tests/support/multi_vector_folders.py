"""Tiny folders of late interaction as ``MultiVectorEncoder`` of sentence-transformers writes them.

``mask`` and ``encoder`` settings go into the files of their modules, and others into the package's.
"""

import json
from pathlib import Path
from typing import Any

from tests.support.checkpoints import change_json, write_json
from tests.support.colbert_checkpoints import PYLATE_MARKERS, write_pylate

EXPANSION = {"strategy": "fixed", "attend": False, "token": None, "length": 32}
VECTORS = {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}
_CLASSES = "sentence_transformers.base.modules."
_MASK = "sentence_transformers.multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask"


def write_multi_vector(
    folder: Path,
    family: str = "bert",
    seed: int = 0,
    mask: dict[str, Any] | None = None,
    encoder: dict[str, Any] | None = None,
    **settings: Any,
) -> Path:
    """Write a model of PyLate as the package writes it again, and return ``folder``."""
    write_pylate(folder, family, seed)
    modules = {"1_Dense": f"{_CLASSES}dense.Dense", "2_Dense": f"{_CLASSES}dense.Dense"}
    modules |= {"3_MultiVectorMask": _MASK, "4_Normalize": f"{_CLASSES}normalize.Normalize"}
    entries = [{"path": "", "type": f"{_CLASSES}transformer.Transformer"}]
    entries += [{"path": path, "type": name} for path, name in modules.items()]
    write_json(folder / "modules.json", entries)
    for path in modules:
        (folder / path).mkdir(exist_ok=True)
    for path in ("1_Dense", "2_Dense"):
        change_json(folder / path / "config.json", use_residual=None, **VECTORS)
    fields: dict[str, Any] = {
        "skiplist_words": [".", ",", "nowhere"],
        "skiplist_tasks": ["document"],
    }
    fields |= {"keep_only_token_ids": None} | (mask or {})
    write_json(folder / "3_MultiVectorMask" / "config.json", fields)
    write_json(folder / "4_Normalize" / "config.json", VECTORS)
    text = {"method": "forward", "method_output_name": "last_hidden_state"}
    fields = {"transformer_task": "feature-extraction", "modality_config": {"text": text}}
    fields |= {"module_output_name": "token_embeddings", "document_length": 100}
    fields |= {"query_expansion": EXPANSION} | (encoder or {})
    write_json(folder / "sentence_bert_config.json", fields)
    package = {"model_type": "MultiVectorEncoder", "prompts": PYLATE_MARKERS}
    write_json(folder / "config_sentence_transformers.json", package | settings)
    _make_markers_special(folder / "tokenizer.json")
    return folder


def _make_markers_special(path: Path) -> None:
    """The package does so when it reads a model of PyLate."""
    content = json.loads(path.read_text(encoding="utf-8"))
    for token in content["added_tokens"]:
        if token["content"] in PYLATE_MARKERS.values():
            token |= {"special": True, "normalized": False}
    write_json(path, content)
