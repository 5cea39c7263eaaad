"""Models of late interaction, such as ColBERT: an encoder and dense layers for its tokens.

There are two layouts: checkpoints of ColBERT itself (``HF_ColBERT``), and folders of PyLate, which
are those of sentence-transformers with other modules.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from attendant.v1.architecture_pb2 import Dense, TextVectors
from attendant.v1.bundle_pb2 import EmbeddingDefaults
from attendant.v1.embedding_pb2 import POOLING_MEAN
from tokenizers import AddedToken, Tokenizer

from attendant_export.importers.checkpoint import Checkpoint, CheckpointError, Config
from attendant_export.importers.colbert import HF_PROJECTION, has_projection
from attendant_export.importers.imported import ImportedEncoder
from attendant_export.importers.prompts import SETTINGS, read_prompts
from attendant_export.importers.sentence_transformers import (
    IDENTITY,
    MODULES,
    Module,
    check_encoder_settings,
    check_folders,
    class_name,
    load_dense_layers,
)
from attendant_export.importers.weight_names import WeightTable
from attendant_export.models.text_vectors import DenseLayers

METADATA = "artifact.metadata"
"""The settings of a checkpoint of ColBERT, in JSON."""
PYLATE = "pylate."
SAMPLE = "An example, with punctuation."


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings that change vectors."""

    markers: Mapping[str, str]
    """The token after the first one of a query and of a document, by the names of prompts."""
    max_tokens: int
    """Limit of tokens of a document, special tokens and marker included."""


def is_late_interaction(checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint has dense layers for its tokens."""
    return is_pylate(checkpoint) or has_projection(checkpoint)


def is_pylate(checkpoint: Checkpoint) -> bool:
    """Whether a module of the checkpoint's list is of PyLate."""
    return any(name.startswith(PYLATE) for name, _ in _listed_modules(checkpoint))


def with_token_vectors(encoder: ImportedEncoder, checkpoint: Checkpoint) -> ImportedEncoder:
    """``encoder`` with vectors of tokens, and markers as prompts; raises CheckpointError."""
    model = encoder.model
    model.token_dense = read_token_dense(checkpoint, model.architecture.d_model)
    model.architecture.token_vectors.dense_layers.extend(model.token_dense.part.dense_layers)
    read = _pylate_settings if is_pylate(checkpoint) else _colbert_settings
    settings = read(checkpoint, encoder)
    for marker in settings.markers.values():
        _add_marker(encoder.tokenizer, marker, checkpoint)
    return replace(
        encoder,
        max_tokens=min(encoder.max_tokens, settings.max_tokens),
        defaults=EmbeddingDefaults(pooling=POOLING_MEAN, prompts=settings.markers),
    )


def read_token_dense(checkpoint: Checkpoint, d_model: int) -> DenseLayers:
    """The dense layers of tokens with their weights; raises CheckpointError."""
    if is_pylate(checkpoint):
        modules = _pylate_modules(checkpoint)
        return load_dense_layers(checkpoint, modules, d_model, "token_embeddings", IDENTITY)
    rows, *_ = checkpoint.weights.shapes[f"{HF_PROJECTION}.weight"]
    part = TextVectors(dense_layers=[Dense(d_output=rows)])
    with torch.device("meta"):
        layers = DenseLayers(part, d_model)
    only = WeightTable(names={"0.linear": HF_PROJECTION}, ignored=(rf"(?!{HF_PROJECTION}\.).+",))
    only.load(layers, checkpoint.weights)
    return layers


def _colbert_settings(checkpoint: Checkpoint, encoder: ImportedEncoder) -> Settings:
    config = checkpoint.options(METADATA)
    dimension = encoder.model.architecture.token_vectors.dense_layers[-1].d_output
    config.require(attend_to_mask_tokens=False, dim=dimension)
    names = {"query": ("query_token_id", "[unused0]"), "document": ("doc_token_id", "[unused1]")}
    markers = {name: _text(config, *field) for name, field in names.items()}
    return Settings(markers, config.integer("doc_maxlen", default=220))


def _pylate_settings(checkpoint: Checkpoint, encoder: ImportedEncoder) -> Settings:
    check_encoder_settings(checkpoint)
    if read_prompts(checkpoint, encoder.tokenizer).texts:
        raise CheckpointError(
            f"{checkpoint.folder / SETTINGS}: prompts of a model of PyLate are not supported"
        )
    config = checkpoint.options(SETTINGS)
    if config.flag("do_query_expansion", default=True):
        config.require(attend_to_expansion_tokens=False)
    markers = {
        name: _text(config, f"{name}_prefix", f"[{name[0].upper()}] ")
        for name in ("query", "document")
    }
    return Settings(
        {name: marker for name, marker in markers.items() if marker},
        config.integer("document_length", default=180),
    )


def _text(config: Config, name: str, default: str) -> str:
    value: Any = config.get(name, default)
    if not isinstance(value, str):
        raise CheckpointError(f"{config.path}: {name} is {value!r}, want a token")
    return value


def _add_marker(tokenizer: Tokenizer, marker: str, checkpoint: Checkpoint) -> None:
    """Let the tokenizer read ``marker`` before a text as its token; raises CheckpointError.

    The originals insert the token after the first one. In plain text, it would be several tokens.
    """
    marker_id = tokenizer.token_to_id(marker)
    if marker_id is None:
        raise CheckpointError(f"{checkpoint.folder}: tokenizer.json has no token {marker!r}")
    added = tokenizer.get_added_tokens_decoder()
    if marker_id not in added:
        tokenizer.add_tokens([AddedToken(marker, normalized=False, special=False)])
    first, *rest = tokenizer.encode(SAMPLE).ids
    tokenizer.encode_special_tokens = True
    found = tokenizer.encode(marker + SAMPLE).ids
    tokenizer.encode_special_tokens = False
    if found != [first, marker_id, *rest]:
        raise CheckpointError(
            f"{checkpoint.folder}: tokenizer.json does not read the marker {marker!r} before a "
            "text as one token after the first one"
        )


def _listed_modules(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    """The class and the folder of each module; none if the list has another form."""
    entries: Any = checkpoint.json(MODULES) if checkpoint.has(MODULES) else []
    try:
        return [(str(entry["type"]), str(entry["path"])) for entry in entries]
    except (TypeError, KeyError):
        return []  # refused by the import of sentence-transformers


def _pylate_modules(checkpoint: Checkpoint) -> list[Module]:
    """The dense layers of PyLate; raises CheckpointError for other modules."""
    (first, path), *others = _listed_modules(checkpoint)
    modules = [Module(name.rpartition(".")[2], path) for name, path in others]
    is_dense = all(name.startswith(PYLATE) and name.endswith(".Dense") for name, _ in others)
    if class_name(first) != "Transformer" or path != "" or not others or not is_dense:
        names = ", ".join(name for name, _ in [(first, path), *others])
        raise CheckpointError(
            f"{checkpoint.folder / MODULES}: the modules {names} are not supported; supported with "
            "PyLate: Transformer, then one or more Dense of PyLate"
        )
    check_folders(checkpoint.folder / MODULES, modules)
    return modules
