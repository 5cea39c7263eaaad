"""Tiny folders of SPLADE models, as sentence-transformers writes them."""

from pathlib import Path
from typing import Any

from tests.support.checkpoints import change_json, write_checkpoint, write_json

SETTINGS = {
    "transformer_task": "fill-mask",
    "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
    "module_output_name": "token_embeddings",
}
"""Those that version 6 writes. Version 5 states the limit and the lower-casing only."""


def write_splade(
    folder: Path,
    family: str = "bert",
    settings: dict[str, Any] | None = None,
    package: dict[str, Any] | None = None,
    first: str = "MLMTransformer",
    **pooling: Any,
) -> Path:
    """Write a folder around a masked language model and return ``folder``.

    ``settings`` are those of the encoder, ``package`` those of the package, ``pooling`` those of
    the pooling that differ from the defaults.
    """
    return add_splade_modules(write_checkpoint(folder, family), settings, package, first, **pooling)


def add_splade_modules(
    folder: Path,
    settings: dict[str, Any] | None = None,
    package: dict[str, Any] | None = None,
    first: str = "MLMTransformer",
    **pooling: Any,
) -> Path:
    """Make a checkpoint such a folder; the parameters are those of `write_splade`."""
    names = {"": first, "1_SpladePooling": "SpladePooling"}
    entries = [
        {
            "idx": i,
            "name": str(i),
            "path": path,
            "type": f"sentence_transformers.sparse_encoder.modules.{name}",
        }
        for i, (path, name) in enumerate(names.items())
    ]
    write_json(folder / "modules.json", entries)
    write_json(folder / "sentence_bert_config.json", SETTINGS if settings is None else settings)
    prompts = {"prompts": {"query": "", "document": ""}, "default_prompt_name": None}
    write_json(folder / "config_sentence_transformers.json", prompts)
    change_json(folder / "config_sentence_transformers.json", **(package or {}))
    (folder / "1_SpladePooling").mkdir()
    config = {"pooling_strategy": "max", "activation_function": "relu"}
    write_json(folder / "1_SpladePooling/config.json", config | pooling)
    return folder
