"""Initial weights of a training, from another run or a bundle."""

from collections.abc import Mapping, Set
from dataclasses import replace
from pathlib import Path

from attendant.v1.architecture_pb2 import Architecture
from attendant.v1.bundle_pb2 import Manifest
from torch import Tensor, nn

from attendant_export.bundle.data_card import data_of
from attendant_export.bundle.description import describe_origin
from attendant_export.bundle.kinds import kind_of_bundle
from attendant_export.bundle.manifest import MANIFEST, read_manifest
from attendant_export.bundle.parameters import read_parameters
from attendant_export.bundle.upgrade import read_upgraded
from attendant_export.data.pair_tokenizer import PairTokenizer, load_tokenizers
from attendant_export.models.embeddings import SOURCE, target_names
from attendant_export.runs import checkpoint
from attendant_export.runs.config import RunConfig, read_config
from attendant_export.runs.config_checks import check_same_config
from attendant_export.runs.records import DataSource, read_run_record
from attendant_export.runs.text_facts import (
    facts_of,
    has_trained_vocabulary,
    have_language_tokens,
    read_facts,
)

FREE = frozenset({"dropout"})
"""Fields that may differ from the model that gives the initial weights."""
EMBEDDING = f"{SOURCE.tokens}.weight"
TARGET_EMBEDDING = f"{target_names(shares_embeddings=False).tokens}.weight"


def describe_start(folder: Path) -> tuple[str, list[DataSource]]:
    """A sentence that names the run or bundle of the initial weights, and the bundle's data.

    The data of an imported bundle are its weights, with their licence and credits.
    """
    if not (folder / MANIFEST).exists():
        name = folder.resolve().name
        return f"Started from the weights of the run {name}.", read_run_record(folder).start_data
    manifest = read_manifest(folder)
    begun = f"Started from the weights of the bundle {manifest.name}/{manifest.version}, licence "
    if manifest.provenance.HasField("imported_from"):
        origin = describe_origin(manifest.provenance.imported_from)
        credit = "; ".join(manifest.credits) or f"Weights of {origin}"
        source = DataSource(f"Weights of {origin}", manifest.license, credit)
        return f"{begun}{manifest.license}, imported from {origin}.", [source]
    sources = data_of(manifest)
    credits = "; ".join(f"{source.credit} ({source.license})" for source in sources)
    return f"{begun}{manifest.license}, trained on: {credits}.", sources


def start_architecture(folder: Path) -> Architecture:
    """The network of a run folder or a bundle. Raises BundleError and ValueError."""
    if (folder / MANIFEST).exists():
        architecture = read_upgraded(folder)[0].architecture
    else:
        architecture = read_config(folder).architecture
    if not architecture.HasField("decoder"):
        raise ValueError(f"--init-from {folder}: is an embedding model, without a decoder")
    return architecture


def start_facts(folder: Path) -> Manifest | None:
    """How the model of a run folder or a bundle reads and writes texts.

    None: as a model with a vocabulary of the exporter, without languages and controls to choose.
    """
    if not (folder / MANIFEST).exists():
        return read_facts(folder)
    manifest, _ = read_upgraded(folder)
    facts = facts_of(manifest)
    is_plain = has_trained_vocabulary(facts) and not (facts.controls or have_language_tokens(facts))
    return None if is_plain else facts


def check_new_tokenizer(folder: Path | None) -> None:
    """Raise ValueError if no model gives the initial weights, or one that keeps its tokenizer.

    ``folder`` is its run folder or bundle.
    """
    if folder is None:
        raise ValueError("new_tokenizer: is for a training that starts from other weights")
    facts = start_facts(folder)
    if facts is not None and not has_trained_vocabulary(facts):
        raise ValueError(
            f"--new-tokenizer: the model in {folder} is an imported one and keeps its tokenizer, "
            "to which its special tokens and defaults belong"
        )


def check_start(folder: Path, config: RunConfig, free: Set[str] = FREE) -> None:
    """Raise ValueError that lists where ``config`` differs from a run folder or a bundle.

    Differences in the fields of ``free`` are allowed.
    """
    if (folder / MANIFEST).exists():
        manifest, _ = read_upgraded(folder)
        kind = kind_of_bundle(manifest).name
        found = replace(config, kind=kind, architecture=manifest.architecture)
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


def load_start(folder: Path, model: nn.Module, tokenizer: PairTokenizer | None = None) -> None:
    """Load the best weights of a run folder, or the weights of a bundle, into ``model``.

    With a ``tokenizer`` that differs from the one in ``folder``, tokens with the same text take
    their embeddings from ``folder``; all other tokens keep those of ``model``. Raises BundleError
    for a damaged bundle and ValueError that lists all tensors that do not fit.
    """
    if (folder / MANIFEST).exists():
        parameters = read_parameters(folder)
    else:
        parameters = checkpoint.read_weights(checkpoint.find_weights(folder))
    if tokenizer is not None:
        own, (source, target) = model.state_dict(), load_tokenizers(folder)
        sides = {
            EMBEDDING: (source, tokenizer.source),
            TARGET_EMBEDDING: (target or source, tokenizer.target),
        }
        for name, (old, side) in sides.items():
            if name in own and name in parameters:
                vocabularies = old.get_vocab(), own[name].cpu(), side.tokenizer.get_vocab()
                parameters[name] = _carry_over(parameters[name], *vocabularies)
    checkpoint.set_weights(folder, parameters, model)


def _carry_over(
    old: Tensor, old_ids: Mapping[str, int], new: Tensor, new_ids: Mapping[str, int]
) -> Tensor:
    common = [token for token in new_ids if token in old_ids]
    merged = new.clone()  # (new vocab, d_model)
    merged[[new_ids[token] for token in common]] = old[[old_ids[token] for token in common]].float()
    return merged
