"""Writes a trained model as a bundle, or nothing at all, and verifies bundles again.

Refuse to overwrite, load, export, verify, write, rename: what stands in a bundles folder was
verified.
"""

import re
import shutil
import tempfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from attendant.v1.bundle_pb2 import Manifest, Provenance, TrainingData

from attendant_export import checkpoint
from attendant_export.bundle_draft import Draft
from attendant_export.embedding_bundle import check_embedding_outputs, write_embedding_files
from attendant_export.examples import example_outputs
from attendant_export.manifest import (
    MANIFEST_VERSION,
    BundleError,
    check_files,
    read_manifest,
    write_manifest,
)
from attendant_export.model_card import write_model_card
from attendant_export.onnx_graphs import PRECISIONS
from attendant_export.provenance import DataCard, read_run_record
from attendant_export.quality import Corpus
from attendant_export.tokenizer import load_tokenizer
from attendant_export.translation_bundle import (
    check_translation_outputs,
    write_translation_files,
)

MODEL_CARD = "MODEL_CARD.md"
MAX_PARITY_SENTENCES = 2000
MAX_TOKENS = 256
LARGEST_MAX_TOKENS = 65_536
"""A server takes no bundle with a larger limit."""
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,99}")
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,99}")


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
        if not NAME.fullmatch(self.name):
            raise ValueError(
                f"name {self.name!r} is not 1 to 100 lower-case letters, digits, hyphens"
            )
        if not VERSION.fullmatch(self.version):
            raise ValueError(
                f"version {self.version!r} is not 1 to 100 letters, digits, dots, hyphens"
            )
        if not self.precisions or not set(self.precisions) <= set(PRECISIONS):
            raise ValueError(f"precisions must be some of {', '.join(PRECISIONS)}")
        if self.max_tokens is not None and not 1 <= self.max_tokens <= LARGEST_MAX_TOKENS:
            raise ValueError(f"max_tokens must be between 1 and {LARGEST_MAX_TOKENS}")


def export_bundle(run_dir: Path, bundles_dir: Path, options: ExportOptions) -> Path:
    """Export the best model of a run to ``bundles_dir/<name>/<version>`` and return that folder.

    Raises BundleError if it exists already and ParityError if the graphs do not follow the model;
    then nothing is left behind. What a killed export of the same bundle left is removed.
    """
    target = bundles_dir / options.name / options.version
    if target.exists():
        raise BundleError(f"{target} exists already: choose another name or version")
    kind = checkpoint.read_json(run_dir / checkpoint.CONFIG)["kind"]
    if kind != "translation" and options.shortlist_pairs is not None:
        raise ValueError("shortlists are for translation models")
    bundles_dir.mkdir(parents=True, exist_ok=True)
    # Neither name nor version has a "_", so the prefix is this bundle's alone.
    prefix = f".export-{options.name}_{options.version}_"
    for leftover in bundles_dir.glob(f"{prefix}*"):
        shutil.rmtree(leftover)
    # On the same file system as the target, so that renaming is one step.
    with tempfile.TemporaryDirectory(prefix=prefix, dir=bundles_dir) as scratch:
        folder = Path(scratch, "bundle")
        folder.mkdir()
        draft = Draft(
            run_dir=run_dir,
            folder=folder,
            scratch=Path(scratch),
            manifest=_describe(run_dir, kind, options),
            precisions=options.precisions,
            valid=Corpus(options.valid_pairs, options.swap, MAX_PARITY_SENTENCES),
            tests=[Corpus(path, options.swap) for path in options.test_pairs],
            max_tokens=options.max_tokens or read_run_record(run_dir).max_tokens or MAX_TOKENS,
            shortlist_pairs=options.shortlist_pairs,
            swap=options.swap,
        )
        if kind == "translation":
            write_translation_files(draft)
        else:
            write_embedding_files(draft)
        examples = example_outputs(run_dir, kind, options.data_card.examples)
        card = write_model_card(draft.manifest, options.data_card, examples)
        (folder / MODEL_CARD).write_text(card, encoding="utf-8")
        write_manifest(folder, draft.manifest)
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(target)
    return target


def _describe(run_dir: Path, kind: str, options: ExportOptions) -> Manifest:
    """What the run and the data card say; sizes, files and figures are still missing."""
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
    if kind == "translation":
        if len(card.languages) != 2:
            raise ValueError("the data card of a translation model needs two languages")
        manifest.source_language, manifest.target_language = card.languages
    else:
        manifest.languages.extend(card.languages)
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


def verify_bundle(folder: Path) -> list[str]:
    """Check the files of a bundle and that its graphs still give the reference outputs.

    Returns what was checked, one line each. Raises BundleError for files that differ from the
    manifest and ParityError for other outputs.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    if not manifest.reference_outputs:
        raise BundleError(f"{folder}: the manifest names no reference outputs to compare with")
    tokenizer = load_tokenizer(folder / manifest.source_tokenizer)
    reference = checkpoint.read_json(folder / manifest.reference_outputs)
    is_translation = manifest.HasField("translation_sizes")
    check_outputs = check_translation_outputs if is_translation else check_embedding_outputs
    return [
        f"{manifest.name}/{manifest.version}: the {len(manifest.files)} files, and no others, "
        "have the sizes and SHA-256 of the manifest",
        *check_outputs(folder, manifest, tokenizer, reference),
    ]
