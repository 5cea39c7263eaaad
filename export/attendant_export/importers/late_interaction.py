"""Models of late interaction, such as ColBERT: an encoder and dense layers for its tokens.

There are three layouts: checkpoints of ColBERT itself (``HF_ColBERT``), folders of PyLate, which
are those of sentence-transformers with other modules, and folders of ``MultiVectorEncoder``.
"""

import logging
from dataclasses import replace
from string import punctuation
from typing import Any

import torch
from attendant.v1.architecture_pb2 import Dense, TextVectors
from attendant.v1.bundle_pb2 import EmbeddingDefaults, LateInteraction
from attendant.v1.embedding_pb2 import POOLING_MEAN
from tokenizers import AddedToken, Tokenizer

from attendant_export.data.batches import special_tokens_as_text
from attendant_export.data.tokenizer import unknown_token_id
from attendant_export.importers.bge_m3 import is_bge_m3, read_bge_m3_dense
from attendant_export.importers.checkpoint import Checkpoint, CheckpointError, Config
from attendant_export.importers.colbert import HF_PROJECTION, has_projection
from attendant_export.importers.imported import ImportedEncoder
from attendant_export.importers.multi_vector import (
    TOKENS,
    is_multi_vector,
    multi_vector_modules,
    multi_vector_settings,
    with_plain_markers,
)
from attendant_export.importers.prompts import SETTINGS, read_prompts
from attendant_export.importers.role_settings import RoleSettings
from attendant_export.importers.sentence_transformers import (
    IDENTITY,
    MODULES,
    TANH,
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
LEAST_QUERY = 3
"""Number of tokens of the shortest query: two special tokens, and a marker or a token of a text."""
SAMPLE = "An example, with punctuation."


logger = logging.getLogger(__name__)


def is_late_interaction(checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint has dense layers for its tokens."""
    return is_pylate(checkpoint) or is_multi_vector(checkpoint) or has_projection(checkpoint)


def is_pylate(checkpoint: Checkpoint) -> bool:
    """Whether a module of the checkpoint's list is of PyLate."""
    return any(name.startswith(PYLATE) for name, _ in _listed_modules(checkpoint))


def with_token_vectors(encoder: ImportedEncoder, checkpoint: Checkpoint) -> ImportedEncoder:
    """``encoder`` with vectors of tokens, and markers as prompts; raises CheckpointError."""
    model = encoder.model
    model.token_dense = read_token_dense(checkpoint, model.architecture.d_model)
    model.architecture.token_vectors.dense_layers.extend(model.token_dense.part.dense_layers)
    encoder, settings = _with_markers(encoder, checkpoint)
    encoder = replace(
        encoder,
        max_tokens=min(encoder.max_network_tokens, settings.max_tokens),
        defaults=EmbeddingDefaults(
            pooling=POOLING_MEAN, prompts=settings.markers, default_prompt=settings.default_prompt
        ),
    )
    if problem := _query_problem(encoder, settings):
        if settings.attends_to_expansion:
            raise CheckpointError(f"{checkpoint.folder}: {problem}, which is not supported")
        logger.warning(
            "%s: %s, which is not supported: the bundle has no roles of texts, and callers write "
            "the markers before texts",
            *(checkpoint.folder, problem),
        )
        return encoder
    is_unattended = settings.expands_queries and not settings.attends_to_expansion
    model.architecture.token_vectors.has_unattended_tokens = is_unattended
    part = LateInteraction(
        max_query_tokens=settings.max_query_tokens,
        expands_queries=settings.expands_queries,
        skipped_token_ids=sorted({i for i in settings.skipped_token_ids if i is not None}),
    )
    return replace(encoder, late_interaction=part)


def _with_markers(
    encoder: ImportedEncoder, checkpoint: Checkpoint
) -> tuple[ImportedEncoder, RoleSettings]:
    """``encoder`` with a tokenizer that reads the markers, and the settings of the layout."""
    if is_multi_vector(checkpoint):
        encoder = with_plain_markers(encoder, checkpoint)
        return encoder, multi_vector_settings(checkpoint, encoder)
    read = _pylate_settings if is_pylate(checkpoint) else _colbert_settings
    settings = read(checkpoint, encoder)
    for marker in settings.markers.values():
        _add_marker(encoder.tokenizer, marker, checkpoint)
    return encoder, settings


def _query_problem(encoder: ImportedEncoder, settings: RoleSettings) -> str:
    """The reason why the model cannot read queries as the original does; "" without any."""
    length = settings.max_query_tokens
    if length > encoder.max_tokens:
        return f"queries have up to {length} tokens, and documents up to {encoder.max_tokens}"
    if not settings.expands_queries:
        return ""
    if encoder.model.tokens.mask_id is None:
        return "queries are expanded, and the tokenizer has no mask token"
    if settings.attends_to_expansion:
        return ""
    parts = [group.self_attention for group in encoder.model.architecture.encoder.groups]
    if any(part.is_causal for part in parts):
        return "queries are expanded by tokens without attention, and the network is causal"
    # A query has three tokens or more. Mask tokens farther away than a window attend to nothing,
    # which versions 4 and 5 of transformers compute differently.
    longest = min((part.window + LEAST_QUERY for part in parts if part.window), default=length)
    if length > longest:
        return (
            f"queries are expanded to {length} tokens, and the window of local attention reaches "
            f"{longest}"
        )
    return ""


def read_token_dense(checkpoint: Checkpoint, d_model: int) -> DenseLayers:
    """The dense layers of tokens with their weights; raises CheckpointError."""
    if is_bge_m3(checkpoint):
        return read_bge_m3_dense(checkpoint, d_model)
    if is_multi_vector(checkpoint):
        modules = multi_vector_modules(checkpoint)
        return load_dense_layers(checkpoint, modules, d_model, TOKENS, TANH)
    if is_pylate(checkpoint):
        modules = _pylate_modules(checkpoint)
        return load_dense_layers(checkpoint, modules, d_model, TOKENS, IDENTITY)
    rows, *_ = checkpoint.weights.shapes[f"{HF_PROJECTION}.weight"]
    part = TextVectors(dense_layers=[Dense(d_output=rows)])
    with torch.device("meta"):
        layers = DenseLayers(part, d_model)
    only = WeightTable(names={"0.linear": HF_PROJECTION}, ignored=(rf"(?!{HF_PROJECTION}\.).+",))
    only.load(layers, checkpoint.weights)
    return layers


def _colbert_settings(checkpoint: Checkpoint, encoder: ImportedEncoder) -> RoleSettings:
    config = checkpoint.options(METADATA)
    dimension = encoder.model.architecture.token_vectors.dense_layers[-1].d_output
    config.require(dim=dimension)
    names = {"query": ("query_token_id", "[unused0]"), "document": ("doc_token_id", "[unused1]")}
    skips = config.flag("mask_punctuation", default=True)
    tokenizer = encoder.tokenizer
    return RoleSettings(
        markers={name: _text(config, *field) for name, field in names.items()},
        max_tokens=config.integer("doc_maxlen", default=220),
        max_query_tokens=config.integer("query_maxlen", default=32),
        expands_queries=True,
        attends_to_expansion=config.flag("attend_to_mask_tokens", default=False),
        skipped_token_ids=[
            tokenizer.encode(each, add_special_tokens=False).ids[0] for each in punctuation if skips
        ],
    )


def _pylate_settings(checkpoint: Checkpoint, encoder: ImportedEncoder) -> RoleSettings:
    check_encoder_settings(checkpoint)
    if read_prompts(checkpoint, encoder.tokenizer).texts:
        raise CheckpointError(
            f"{checkpoint.folder / SETTINGS}: prompts of a model of PyLate are not supported"
        )
    config = checkpoint.options(SETTINGS)
    markers = {
        name: _text(config, f"{name}_prefix", f"[{name[0].upper()}] ")
        for name in ("query", "document")
    }
    skipped: Any = config.get("skiplist_words", list(punctuation))
    if not isinstance(skipped, list) or not all(isinstance(word, str) for word in skipped):
        raise CheckpointError(
            f"{config.path}: skiplist_words is {skipped!r}, want a list of tokens"
        )
    # The original reads a word that the vocabulary lacks as the unknown token.
    unknown = unknown_token_id(encoder.tokenizer)
    ids = [encoder.tokenizer.token_to_id(word) for word in skipped]
    return RoleSettings(
        markers={name: marker for name, marker in markers.items() if marker},
        max_tokens=config.integer("document_length", default=180),
        max_query_tokens=config.integer("query_length", default=32),
        expands_queries=config.flag("do_query_expansion", default=True),
        attends_to_expansion=config.flag("attend_to_expansion_tokens", default=False),
        skipped_token_ids=[unknown if token_id is None else token_id for token_id in ids],
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
    with special_tokens_as_text(tokenizer):
        found = tokenizer.encode(marker + SAMPLE).ids
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
