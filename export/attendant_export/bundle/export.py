"""Exports a trained model as a verified bundle.

Load, export, verify and write into a temporary folder, then rename it. A bundles folder therefore
only ever holds complete and verified bundles.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from attendant.v1.bundle_pb2 import (
    MODEL_KIND_TRANSLATION,
    Manifest,
    PrecisionGraphs,
    Provenance,
)
from attendant.v1.text_pb2 import TEXT_NORMALIZATION_STANDARD
from attendant_manifest import MANIFEST_VERSION, part_rules, rules

from attendant_export.bundle.controls import ControlOption
from attendant_export.bundle.data_card import DataCard, training_data
from attendant_export.bundle.draft import Draft
from attendant_export.bundle.exchange import describe_replaced, replaced_folder, sync_tree
from attendant_export.bundle.glossaries import GlossaryFile, add_glossaries
from attendant_export.bundle.kinds import ModelExport, ModelKind, kind_of_run
from attendant_export.bundle.manifest import BundleError, write_manifest
from attendant_export.bundle.model_card import write_model_card
from attendant_export.bundle.parameters import fitting_parameters
from attendant_export.bundle.scratch import scratch_folder
from attendant_export.bundle.weights import read_weights
from attendant_export.data.corpus import Corpus
from attendant_export.data.text_choice import NO_CHOICE, ChosenFile, TextChoice
from attendant_export.progress import progress
from attendant_export.runs import checkpoint
from attendant_export.runs.records import RunRecord, read_run_record
from attendant_export.runs.text_facts import read_facts

logger = logging.getLogger(__name__)

MODEL_CARD = "MODEL_CARD.md"
MAX_PARITY_SENTENCES = 2000
MAX_TOKENS = 256


def check_options(
    name: str, version: str, precisions: Sequence[str], max_tokens: int | None
) -> None:
    """Raise ValueError unless a new bundle can have these."""
    if not rules.NAME.fullmatch(name):
        raise ValueError(f"name {name!r} is not 1 to 100 lower-case letters, digits, hyphens")
    if not rules.VERSION.fullmatch(version):
        raise ValueError(f"version {version!r} is not 1 to 100 letters, digits, dots, hyphens")
    if not precisions or not set(precisions) <= set(rules.PRECISIONS):
        raise ValueError(f"precisions must be some of {', '.join(rules.PRECISIONS)}")
    if max_tokens is not None and not 1 <= max_tokens <= part_rules.MAX_TOKENS:
        raise ValueError(f"max_tokens must be between 1 and {part_rules.MAX_TOKENS}")


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Name, version, data and precisions of a bundle to export."""

    name: str
    version: str
    data_card: DataCard
    valid_pairs: Path
    """Pairs for the reference outputs and for the comparison of precisions."""
    valid_choice: TextChoice = NO_CHOICE
    """Their languages and controls."""
    test_pairs: tuple[ChosenFile, ...] = ()
    """Pairs for the quality figures."""
    swap: bool = False
    """Whether the second column of all these files is the source."""
    precisions: tuple[str, ...] = ("int8", "fp16")
    max_tokens: int | None = None
    """Limit of tokens of a source, a target, or a text to embed. None: the limit that the run
    recorded, else `MAX_TOKENS`."""
    recipe: str = ""
    """Description of the training. Empty: as recorded by the run."""
    hardware: str = ""
    """Hardware of the training. Empty: as recorded by the run."""
    num_averaged: int | None = None
    """Number of last validations whose mean weights are exported. None: the best weights."""
    shortlist_pairs: Path | None = None
    """Pairs to learn shortlists from. None: a bundle without shortlists."""
    controls: tuple[ControlOption, ...] = ()
    """The controls of a translation model."""
    glossaries: tuple[GlossaryFile, ...] = ()
    """Glossaries that the bundle of a translation model holds."""

    def __post_init__(self) -> None:
        check_options(self.name, self.version, self.precisions, self.max_tokens)


def export_bundle(run_dir: Path, bundles_dir: Path, options: ExportOptions) -> Path:
    """Export the model of a run to ``bundles_dir/<name>/<version>`` and return that folder.

    Raises BundleError if the folder exists, ValueError for options that do not fit the model, and
    ParityError if the graphs differ from the model. A failed export leaves no files. Files that a
    killed export of the same bundle left are removed.
    """
    kind = kind_of_run(run_dir)
    if kind.value != MODEL_KIND_TRANSLATION:
        _refuse_translation_options(options)
    with new_bundle(bundles_dir, options.name, options.version) as (folder, scratch):
        draft = _new_draft(kind, run_dir, folder, scratch, options)
        export = kind.new_export(run_dir, draft, options.controls, options.num_averaged)
        write_model(export, draft, options.data_card, options.glossaries)
    return bundles_dir / options.name / options.version


def _refuse_translation_options(options: ExportOptions) -> None:
    choices = [options.valid_choice, *(test.choice for test in options.test_pairs)]
    for is_given, what in (
        (options.shortlist_pairs is not None, "--shortlists is"),
        (bool(options.controls), "--control is"),
        (any(choices), "languages and controls of files are"),
        (bool(options.glossaries), "--glossary is"),
    ):
        if is_given:
            raise ValueError(f"{what} for translation models")


@contextmanager
def new_bundle(bundles_dir: Path, name: str, version: str) -> Iterator[tuple[Path, Path]]:
    """Make the folder of a new bundle; yields it, while it is written, and a scratch folder.

    The bundle gets its place after the block, or leaves no files if the block raises. Raises
    BundleError if the bundle exists or another process writes it. Files that a killed process left
    of it are removed.
    """
    target = bundles_dir / name / version
    bundles_dir.mkdir(parents=True, exist_ok=True)
    with scratch_folder(bundles_dir / f".export-{name}_{version}", target) as scratch:
        if target.exists() or replaced_folder(target).exists():
            raise BundleError(
                f"{target} exists already: choose another name or version"
                f"{describe_replaced(target)}"
            )
        folder = scratch / "bundle"
        folder.mkdir()
        yield folder, scratch
        sync_tree(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(target)


def _new_draft(
    kind: ModelKind, run_dir: Path, folder: Path, scratch: Path, options: ExportOptions
) -> Draft:
    swap, valid, tests = options.swap, None, []
    if kind.read_texts is None:
        valid = Corpus(options.valid_pairs, swap, MAX_PARITY_SENTENCES, options.valid_choice)
        texts: Sequence[str] = valid.sources
    else:
        texts = kind.read_texts(options.valid_pairs)
    if kind.read_test is not None:
        tests = [kind.read_test(path, swap, choice) for path, choice in options.test_pairs]
    elif options.test_pairs:
        raise ValueError("--test is not for language models")
    facts = read_facts(run_dir) or Manifest()
    stated = options.max_tokens or read_run_record(run_dir).max_tokens
    return Draft(
        folder=folder,
        scratch=scratch,
        manifest=_new_manifest(kind, run_dir, options),
        precisions=options.precisions,
        texts=texts,
        valid=valid,
        tests=tests,
        max_tokens=stated
        or facts.limits.max_source_tokens
        or facts.limits.max_tokens
        or MAX_TOKENS,
        shortlist_pairs=options.shortlist_pairs,
        swap=swap,
    )


def write_model(
    export: ModelExport, draft: Draft, data_card: DataCard, glossaries: Sequence[GlossaryFile] = ()
) -> None:
    """Write, then verify, then measure all precisions. Write model card and manifest last.

    Raises ParityError and BundleError.
    """
    manifest = draft.manifest
    # Run the examples first, so that a bad example fails before minutes of verification.
    examples = list(
        zip(data_card.examples, export.example_outputs(data_card.examples), strict=True)
    )
    write_precisions(export, draft)
    for graphs in manifest.precisions:
        for test in draft.tests:
            logger.info("measuring %s on %s", graphs.name, test.name)
            manifest.quality.extend(export.measure(graphs, test))
    draft.add_reference_outputs(export.reference_outputs())
    card = write_model_card(manifest, data_card, examples, export.example_title)
    (draft.folder / MODEL_CARD).write_text(card, encoding="utf-8")
    add_glossaries(draft.folder, manifest, glossaries)
    write_manifest(draft.folder, manifest)


def write_precisions(export: ModelExport, draft: Draft) -> dict[str, PrecisionGraphs]:
    """Write, then verify the graphs of all precisions; returns them.

    Raises ParityError and BundleError.
    """
    manifest = draft.manifest
    precisions = progress(draft.all_precisions(), "writing graphs")
    written = {precision: export.write(precision) for precision in precisions}
    weights = read_weights(draft.folder_of("fp32"), written["fp32"])
    fitting_parameters("fp32", weights, manifest.architecture)  # Raises BundleError.
    for precision, graphs in written.items():
        logger.info("verifying %s", precision)
        manifest.parity.precisions.append(export.verify(graphs))
    manifest.precisions.extend(written[precision] for precision in draft.bundled_precisions())
    return written


def _new_manifest(kind: ModelKind, run_dir: Path, options: ExportOptions) -> Manifest:
    """A manifest with the facts of the run and the data card, but not yet files and figures."""
    card = options.data_card
    manifest = Manifest(
        manifest_version=MANIFEST_VERSION,
        name=options.name,
        version=options.version,
        description=card.description,
        license=card.license,
        credits=[source.credit for source in card.data],
        provenance=_provenance(run_dir, options),
        text_normalization=TEXT_NORMALIZATION_STANDARD,
    )
    kind.set_languages(manifest, card.languages, read_facts(run_dir))
    return manifest


def _provenance(run_dir: Path, options: ExportOptions) -> Provenance:
    record = read_run_record(run_dir)
    return Provenance(
        data=training_data(options.data_card),
        trainer_version=record.trainer_version,
        seed=record.seed or 0,
        recipe=_recipe(run_dir, options, record),
        created=date.today().isoformat(),
        hardware=options.hardware or record.hardware,
        training_seconds=_training_seconds(run_dir),
    )


def _recipe(run_dir: Path, options: ExportOptions, record: RunRecord) -> str:
    recipe = options.recipe or record.recipe
    if options.num_averaged is None:
        return recipe
    kept = checkpoint.kept_weights(run_dir)[-options.num_averaged :]
    steps = ", ".join(f"{int(path.stem):,}" for path in kept)
    return (
        f"{recipe} The exported weights are not those of one checkpoint, but the mean of those "
        f"after steps {steps}."
    ).strip()


def _training_seconds(run_dir: Path) -> float:
    """Seconds of all phases. The earlier phases of a run have folders of their own inside it."""
    states = [run_dir / "last" / checkpoint.STATE, *run_dir.glob(f"*/last/{checkpoint.STATE}")]
    return sum(
        float(checkpoint.read_json(path)["elapsed_seconds"]) for path in states if path.exists()
    )
