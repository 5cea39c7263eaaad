"""The weights that a training starts from: those of another run or of a bundle."""

from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from attendant_export.bundle.kinds import kind_of_bundle
from attendant_export.bundle.manifest import MANIFEST, read_manifest
from attendant_export.bundle.weights import read_parameters
from attendant_export.data.tokenizer import TOKENIZER, load_tokenizer
from attendant_export.runs import checkpoint
from attendant_export.runs.records import DataSource, read_run_record
from attendant_export.runs.sizes import check_same_config

FREE = frozenset({"dropout"})
"""What may differ from the model whose weights a training starts from."""
EMBEDDING = "embedding.weight"
SEGMENTS = "segment_embedding.weight"
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


def check_start(folder: Path, config: Mapping[str, Any], free: Set[str] = FREE) -> None:
    """ValueError that lists where ``config`` differs from a run folder or bundle to start from.

    What is named in ``free`` may differ.
    """
    if (folder / MANIFEST).exists():
        found = _bundle_config(folder)
    else:
        found = checkpoint.read_json(folder / checkpoint.CONFIG)
    known = [name for name in config if name in found and name not in free]
    check_same_config(
        f"{folder} has the weights",
        {name: found[name] for name in known},
        {name: config[name] for name in known},
    )


def _bundle_config(folder: Path) -> dict[str, Any]:
    manifest = read_manifest(folder)
    kind = kind_of_bundle(manifest)
    sizes = kind.sizes(manifest)
    return {"kind": kind.name, "d_ff": sizes["d_feed_forward"], **sizes}


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
