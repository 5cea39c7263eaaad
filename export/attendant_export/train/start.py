"""The weights that a training starts from: those of another run or of a bundle."""

from collections.abc import Mapping, Set
from dataclasses import replace
from pathlib import Path

import torch
from attendant.v1.architecture_pb2 import NORM_POSITION_UNSPECIFIED
from tokenizers import Tokenizer
from torch import Tensor, nn

from attendant_export.bundle.kinds import kind_of_bundle
from attendant_export.bundle.manifest import MANIFEST, read_manifest
from attendant_export.bundle.weights import read_parameters
from attendant_export.data.tokenizer import TOKENIZER, load_tokenizer
from attendant_export.models.embeddings import SOURCE
from attendant_export.runs import checkpoint
from attendant_export.runs.config import RunConfig, read_config
from attendant_export.runs.records import DataSource, read_run_record
from attendant_export.runs.sizes import check_same_config

FREE = frozenset({"dropout"})
"""What may differ from the model whose weights a training starts from."""
FREE_IN_BUNDLES = frozenset({"num_positions", "num_token_types"})
"""Fields that version 1 of manifests lacks. The shapes of weights decide instead."""
NORMS = frozenset({"norm_position", "has_final_norm"})
"""Fields that version 1 lacks, unless `attendant-export upgrade` stated them."""
EMBEDDING = f"{SOURCE.tokens}.weight"
SEGMENTS = f"{SOURCE.token_types}.weight"
"""Embedding graphs hold segment 0 inside the positions."""


def describe_start(folder: Path) -> tuple[str, list[DataSource]]:
    """A sentence on the run folder or bundle that a training starts from, and its bundle's data."""
    if not (folder / MANIFEST).exists():
        name = folder.resolve().name
        return f"Started from the weights of the run {name}.", read_run_record(folder).start_data
    manifest = read_manifest(folder)
    sources = [DataSource(d.name, d.license, d.credit) for d in manifest.provenance.data]
    credits = "; ".join(f"{source.credit} ({source.license})" for source in sources)
    return (
        f"Started from the weights of the bundle {manifest.name}/{manifest.version}, licence "
        f"{manifest.license}, trained on: {credits}."
    ), sources


def check_start(folder: Path, config: RunConfig, free: Set[str] = FREE) -> None:
    """ValueError that lists where ``config`` differs from a run folder or bundle to start from.

    Fields that are named in ``free`` may differ.
    """
    if (folder / MANIFEST).exists():
        manifest = read_manifest(folder)
        kind = kind_of_bundle(manifest).name
        found = replace(config, kind=kind, architecture=manifest.architecture)
        free = free | FREE_IN_BUNDLES
        if manifest.architecture.encoder.norm_position == NORM_POSITION_UNSPECIFIED:
            free = free | NORMS
    else:
        found = read_config(folder)
    check_same_config(
        f"{folder} has the weights",
        *(
            {
                path: value
                for path, value in each.values().items()
                if path.split(".")[-1] not in free
            }
            for each in (found, config)
        ),
    )


def load_start(folder: Path, model: nn.Module, tokenizer: Tokenizer | None = None) -> None:
    """Load the weights of a run folder (its best) or of a bundle into ``model``.

    With a ``tokenizer``, another than that of ``folder``, tokens that both have, by their text,
    bring their embeddings along; the others keep those of ``model``. Raises BundleError for a
    damaged bundle and ValueError that lists all tensors that do not fit.
    """
    parameters = _start_parameters(folder, model)
    if tokenizer is not None:
        own = model.state_dict()[EMBEDDING].cpu()
        old_ids = load_tokenizer(folder / TOKENIZER).get_vocab()
        parameters[EMBEDDING] = _carry_over(
            parameters[EMBEDDING], old_ids, own, tokenizer.get_vocab()
        )
    checkpoint.set_weights(folder, parameters, model)


def _start_parameters(folder: Path, model: nn.Module) -> dict[str, Tensor]:
    if not (folder / MANIFEST).exists():
        return checkpoint.read_weights(checkpoint.find_weights(folder))
    parameters = read_parameters(folder)
    if (segments := model.state_dict().get(SEGMENTS)) is not None:
        parameters[SEGMENTS] = torch.zeros_like(segments, device="cpu")
    return parameters


def _carry_over(
    old: Tensor, old_ids: Mapping[str, int], new: Tensor, new_ids: Mapping[str, int]
) -> Tensor:
    common = [token for token in new_ids if token in old_ids]
    merged = new.clone()  # (new vocab, d_model)
    merged[[new_ids[token] for token in common]] = old[[old_ids[token] for token in common]].float()
    return merged
