"""Writes a trained model as a bundle, or nothing at all, and verifies bundles again.

Refuse to overwrite, load, export, verify, write, rename: what stands in a bundles folder was
verified.
"""

import logging
import shutil
import tempfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from attendant.v1.bundle_pb2 import Manifest, Provenance, TrainingData
from attendant_manifest import MANIFEST_VERSION, rules

from attendant_export.bundle.data_card import DataCard
from attendant_export.bundle.draft import Draft
from attendant_export.bundle.kinds import ModelExport, ModelKind, kind_of_run
from attendant_export.bundle.manifest import (
    BundleError,
    write_manifest,
)
from attendant_export.bundle.model_card import write_model_card
from attendant_export.bundle.weights import check_weights
from attendant_export.data.corpus import Corpus
from attendant_export.graphs.writer import PRECISIONS
from attendant_export.runs import checkpoint
from attendant_export.runs.records import read_run_record

logger = logging.getLogger(__name__)

MODEL_CARD = "MODEL_CARD.md"
MAX_PARITY_SENTENCES = 2000
MAX_TOKENS = 256


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What a bundle is to hold."""

    name: str
    version: str
    data_card: DataCard
    valid_pairs: Path
    """Text for the reference outputs and for comparing the precisions."""
    test_pairs: tuple[Path, ...] = ()
    """Text for the figures of quality."""
    swap: bool = False
    """Whether the second column of these files is the source."""
    precisions: tuple[str, ...] = ("int8", "fp16")
    max_tokens: int | None = None
    """Most tokens of a source, of a target, or of a text to embed; without it, what the run
    recorded, or `MAX_TOKENS`."""
    recipe: str = ""
    """How the model was trained; without it, what the run recorded."""
    hardware: str = ""
    """What it was trained on; without it, what the run recorded."""
    shortlist_pairs: Path | None = None
    """Text to learn shortlists from; without it the bundle has none."""

    def __post_init__(self) -> None:
        if not rules.NAME.fullmatch(self.name):
            raise ValueError(
                f"name {self.name!r} is not 1 to 100 lower-case letters, digits, hyphens"
            )
        if not rules.VERSION.fullmatch(self.version):
            raise ValueError(
                f"version {self.version!r} is not 1 to 100 letters, digits, dots, hyphens"
            )
        if not self.precisions or not set(self.precisions) <= set(PRECISIONS):
            raise ValueError(f"precisions must be some of {', '.join(PRECISIONS)}")
        if self.max_tokens is not None and not 1 <= self.max_tokens <= rules.MAX_TOKENS:
            raise ValueError(f"max_tokens must be between 1 and {rules.MAX_TOKENS}")


def export_bundle(run_dir: Path, bundles_dir: Path, options: ExportOptions) -> Path:
    """Export the best model of a run to ``bundles_dir/<name>/<version>`` and return that folder.

    Raises BundleError if it exists already and ParityError if the graphs do not follow the model;
    then nothing is left behind. What a killed export of the same bundle left is removed.
    """
    target = bundles_dir / options.name / options.version
    if target.exists():
        raise BundleError(f"{target} exists already: choose another name or version")
    kind = kind_of_run(run_dir)
    if options.shortlist_pairs is not None and not kind.can_have_shortlists:
        raise ValueError("shortlists are for translation models")
    bundles_dir.mkdir(parents=True, exist_ok=True)
    # Neither name nor version has a "_", so the prefix is this bundle's alone.
    prefix = f".export-{options.name}_{options.version}_"
    for leftover in bundles_dir.glob(f"{prefix}*"):
        shutil.rmtree(leftover)
    # On the same file system as the target, so that renaming is one step.
    with tempfile.TemporaryDirectory(prefix=prefix, dir=bundles_dir) as scratch:
        draft = _new_draft(kind, run_dir, Path(scratch), options)
        _write_model(kind.new_export(run_dir, draft), draft, options.data_card)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft.folder.rename(target)
    return target


def _new_draft(kind: ModelKind, run_dir: Path, scratch: Path, options: ExportOptions) -> Draft:
    folder = scratch / "bundle"
    folder.mkdir()
    return Draft(
        folder=folder,
        scratch=scratch,
        manifest=_new_manifest(kind, run_dir, options),
        precisions=options.precisions,
        valid=Corpus(options.valid_pairs, options.swap, MAX_PARITY_SENTENCES),
        tests=[Corpus(path, options.swap) for path in options.test_pairs],
        max_tokens=options.max_tokens or read_run_record(run_dir).max_tokens or MAX_TOKENS,
        shortlist_pairs=options.shortlist_pairs,
        swap=options.swap,
    )


def _write_model(export: ModelExport, draft: Draft, data_card: DataCard) -> None:
    """Write all precisions, verify all, measure all; then the model card and the manifest."""
    manifest = draft.manifest
    # First, since a bad example should not be found after minutes of verifying.
    examples = list(
        zip(data_card.examples, export.example_outputs(data_card.examples), strict=True)
    )
    written = {precision: export.write(precision) for precision in draft.all_precisions()}
    check_weights(draft.folder_of("fp32"), written["fp32"], manifest.architecture)
    for precision, graphs in written.items():
        logger.info("verifying %s", precision)
        manifest.parity.precisions.append(export.verify(graphs))
    manifest.precisions.extend(written[precision] for precision in draft.bundled_precisions())
    for graphs in manifest.precisions:
        for corpus in draft.tests:
            logger.info("measuring %s on %s", graphs.name, corpus.name)
            manifest.quality.extend(export.measure(graphs, corpus))
    draft.add_reference_outputs(export.reference_outputs())
    card = write_model_card(manifest, data_card, examples)
    (draft.folder / MODEL_CARD).write_text(card, encoding="utf-8")
    write_manifest(draft.folder, manifest)


def _new_manifest(kind: ModelKind, run_dir: Path, options: ExportOptions) -> Manifest:
    """The facts that run and data card state; sizes, files and figures are still missing."""
    card = options.data_card
    manifest = Manifest(
        manifest_version=MANIFEST_VERSION,
        name=options.name,
        version=options.version,
        description=card.description,
        license=card.license,
        credits=[source.credit for source in card.data],
        provenance=_provenance(run_dir, options),
    )
    kind.set_languages(manifest, card.languages)
    return manifest


def _provenance(run_dir: Path, options: ExportOptions) -> Provenance:
    record = read_run_record(run_dir)
    return Provenance(
        data=[
            TrainingData(name=source.name, license=source.license, credit=source.credit)
            for source in options.data_card.data
        ],
        trainer_version=record.trainer_version,
        seed=record.seed or 0,
        recipe=options.recipe or record.recipe,
        created=date.today().isoformat(),
        hardware=options.hardware or record.hardware,
        training_seconds=_training_seconds(run_dir),
    )


def _training_seconds(run_dir: Path) -> float:
    """Seconds of all phases: a phase of its own has a folder with ``last/`` inside the run's."""
    states = [run_dir / "last" / checkpoint.STATE, *run_dir.glob(f"*/last/{checkpoint.STATE}")]
    return sum(
        float(checkpoint.read_json(path)["elapsed_seconds"]) for path in states if path.exists()
    )
