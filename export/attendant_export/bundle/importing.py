"""Imports a checkpoint of another project as a verified bundle."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any

from attendant.v1.bundle_pb2 import (
    EmbeddingDefaults,
    ImportSource,
    Manifest,
    PrecisionGraphs,
    Provenance,
)
from attendant_manifest import MANIFEST_VERSION, rules

from attendant_export import importers
from attendant_export.bundle.draft import Draft
from attendant_export.bundle.embedding import EmbeddingExport
from attendant_export.bundle.export import (
    MODEL_CARD,
    check_options,
    new_bundle,
    write_precisions,
)
from attendant_export.bundle.manifest import write_manifest
from attendant_export.bundle.model_card import write_import_card
from attendant_export.bundle.original import compare_encoder
from attendant_export.importers.cards import Card, read_card
from attendant_export.importers.checkpoint import Checkpoint, CheckpointError
from attendant_export.importers.families import read_model
from attendant_export.importers.imported import ImportedEncoder
from attendant_export.importers.special_tokens import read_tokenizer
from attendant_export.verify.embedding import EmbeddingGraphs
from attendant_export.verify.original import OriginalError, is_installed

logger = logging.getLogger(__name__)

SAMPLE_TEXTS = "sample_texts.txt"


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """The options of an import. What is None is taken from the checkpoint."""

    name: str | None = None
    version: str = "1"
    precisions: tuple[str, ...] = ("fp32",)
    """fp32 by default: indexes that users have hold vectors of the original."""
    license: str | None = None
    languages: tuple[str, ...] | None = None
    max_tokens: int | None = None


def import_bundle(folder: Path, bundles_dir: Path, options: ImportOptions) -> Path:
    """Import the checkpoint in ``folder`` to ``bundles_dir/<name>/<version>``; returns that folder.

    Raises ValueError for bad options, CheckpointError for a checkpoint that is damaged or not
    supported, BundleError if the bundle exists, and ParityError if its graphs differ from the
    checkpoint's model. A failed import leaves no files.
    """
    checkpoint = Checkpoint(folder)
    name = options.name or _name_of(folder)
    check_options(name, options.version, options.precisions, options.max_tokens)
    card = read_card(checkpoint)
    license_ = options.license or card.license
    if license_ is None:
        raise CheckpointError(
            f"{folder}: no card states the licence of the weights: give --license"
        )
    imported = read_model(checkpoint)
    with new_bundle(bundles_dir, name, options.version) as (bundle, scratch):
        manifest = _new_manifest(name, license_, imported, checkpoint, card, options)
        draft = Draft(
            folder=bundle,
            scratch=scratch,
            manifest=manifest,
            precisions=options.precisions,
            texts=sample_texts(),
            max_tokens=min(imported.max_tokens, options.max_tokens or imported.max_tokens),
        )
        _write_encoder(imported, checkpoint, draft)
    return bundles_dir / name / options.version


def sample_texts() -> list[str]:
    """Short texts in many languages, written for this purpose."""
    text = files(importers).joinpath(SAMPLE_TEXTS).read_text(encoding="utf-8")
    return text.splitlines()


def _name_of(folder: Path) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-")
    if not rules.NAME.fullmatch(name):
        raise CheckpointError(f"{folder}: its name makes no name of a model: give --name")
    return name


def _new_manifest(
    name: str,
    license_: str,
    imported: ImportedEncoder,
    checkpoint: Checkpoint,
    card: Card,
    options: ImportOptions,
) -> Manifest:
    return Manifest(
        manifest_version=MANIFEST_VERSION,
        name=name,
        version=options.version,
        description=f"Imported from {checkpoint.folder.resolve().name}, family {imported.family}.",
        license=license_,
        languages=card.languages if options.languages is None else options.languages,
        provenance=Provenance(
            created=date.today().isoformat(),
            imported_from=ImportSource(
                source=checkpoint.folder.resolve().name,
                family=imported.family,
                files=checkpoint.used_files(),
            ),
        ),
    )


def _write_encoder(imported: ImportedEncoder, checkpoint: Checkpoint, draft: Draft) -> None:
    tokenizer = read_tokenizer(checkpoint)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    defaults = EmbeddingDefaults(pooling=imported.pooling, normalize=imported.normalize)
    export = EmbeddingExport(imported.model, tokenizer, draft, defaults)
    written = write_precisions(export, draft)
    outputs = export.reference_outputs()
    _compare_with_original(checkpoint, draft, written, outputs)
    draft.add_reference_outputs(outputs)
    (draft.folder / MODEL_CARD).write_text(write_import_card(draft.manifest), encoding="utf-8")
    write_manifest(draft.folder, draft.manifest)


def _compare_with_original(
    checkpoint: Checkpoint,
    draft: Draft,
    written: Mapping[str, PrecisionGraphs],
    outputs: Mapping[str, Any],
) -> None:
    """Compare with the original implementation, if it is installed and can load the checkpoint."""
    if not is_installed():
        return
    manifest = draft.manifest
    logger.info("comparing with the original implementation")
    texts = {text["text"]: text["token_ids"] for text in outputs["texts"]}
    graphs = {
        name: EmbeddingGraphs(draft.folder_of(name), precision, manifest)
        for name, precision in written.items()
    }
    try:
        found = compare_encoder(checkpoint.folder, manifest, texts, graphs)
    except OriginalError as error:
        logger.warning("not compared with the original implementation: %s", error)
        return
    manifest.parity.original.CopyFrom(found)
