"""Imports a checkpoint of another project as a verified bundle."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any

from attendant.v1.bundle_pb2 import (
    Control,
    ImportSource,
    Language,
    Manifest,
    PrecisionGraphs,
    Provenance,
)
from attendant.v1.text_pb2 import TEXT_NORMALIZATION_NONE
from attendant_manifest import MANIFEST_VERSION, rules
from attendant_manifest.sizes import text_dimension

from attendant_export import importers
from attendant_export.bundle.controls import ControlOption, control_messages
from attendant_export.bundle.draft import Draft
from attendant_export.bundle.embedding import EmbeddingExport
from attendant_export.bundle.export import (
    MODEL_CARD,
    check_options,
    new_bundle,
    write_precisions,
)
from attendant_export.bundle.glossaries import GlossaryFile, add_glossaries
from attendant_export.bundle.kinds import ModelExport
from attendant_export.bundle.language_model import LanguageModelExport
from attendant_export.bundle.manifest import write_manifest
from attendant_export.bundle.model_card import write_import_card
from attendant_export.bundle.original import compare_model, is_original_installed
from attendant_export.bundle.translation import TranslationExport
from attendant_export.data.pair_tokenizer import PairTokenizer, Side
from attendant_export.importers.cards import Card, read_card
from attendant_export.importers.checkpoint import Checkpoint, CheckpointError
from attendant_export.importers.families import Imported, read_model
from attendant_export.importers.imported import ImportedEncoder, ImportedTranslator
from attendant_export.importers.language_model import ImportedLanguageModel
from attendant_export.importers.languages import single_languages
from attendant_export.importers.left_out import left_out_files
from attendant_export.importers.prompts import check_room
from attendant_export.importers.sources import open_checkpoint
from attendant_export.importers.trained_dimensions import (
    check_trained_dimensions,
    read_default_dimensions,
    read_trained_dimensions,
)
from attendant_export.verify.original import OriginalError

logger = logging.getLogger(__name__)

SAMPLE_TEXTS = "sample_texts.txt"
UNDETERMINED = "und"
"""Stands for the target language where callers put its prefix into the text themselves."""
PAIR = re.compile(r"opus-mt(?:-tc-[a-z]+)?-([a-z]{2,3})-([a-z]{2,3})$")
"""The languages at the end of the name of a checkpoint."""


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """The options of an import. What is None is taken from the checkpoint."""

    name: str | None = None
    version: str = "1"
    precisions: tuple[str, ...] = ("fp32",)
    """fp32 by default: indexes that users have hold vectors of the original."""
    license: str | None = None
    languages: tuple[str, ...] | None = None
    """The languages of an embedding model or a language model."""
    source_languages: tuple[str, ...] | None = None
    """The languages that a translation model reads."""
    target_languages: tuple[str, ...] | None = None
    """The languages that a translation model writes."""
    max_tokens: int | None = None
    revision: str | None = None
    """The branch, tag or commit of a model on the hub; the architecture or hash of one of Firefox.

    None: its default branch, or the released model.
    """
    tokenizer: str | None = None
    """The tokenizer of a CTranslate2 folder: ``characters``, ``whitespace`` or a file in it."""
    trained_dimensions: tuple[int, ...] | None = None
    """Numbers of first values of a vector for which an embedding model was trained."""
    controls: tuple[ControlOption, ...] = ()
    """The controls of a translation model."""
    glossaries: tuple[GlossaryFile, ...] = ()
    """Glossaries that the bundle of a translation model holds."""
    without_head: bool = False
    """Whether to import the embedding part of a model for classification."""
    max_words: int | None = None
    """Number of words of a file of word vectors, its first ones. None: all."""


def import_bundle(source: str | Path, bundles_dir: Path, options: ImportOptions) -> Path:
    """Import a checkpoint to ``bundles_dir/<name>/<version>``; returns that folder.

    ``source`` is what `open_checkpoint` takes.

    Raises ValueError for bad options, CheckpointError for a checkpoint that is damaged or not
    supported, BundleError if the bundle exists, and ParityError if its graphs differ from the
    checkpoint's model. A failed import leaves no files.
    """
    checkpoint = open_checkpoint(str(source), options.revision)
    name = options.name or _name_of(checkpoint)
    check_options(name, options.version, options.precisions, options.max_tokens)
    card = read_card(checkpoint)
    license_ = options.license or card.license or checkpoint.statements.license
    if license_ is None:
        raise CheckpointError(
            f"{checkpoint.title}: no card states the licence of the weights: give --license"
        )
    imported = read_model(checkpoint, options.tokenizer, options.without_head, options.max_words)
    checkpoint.release_weights()
    languages = _languages(imported, checkpoint, card, options)
    controls = _controls(imported, options)
    max_tokens = min(imported.max_tokens, options.max_tokens or imported.max_tokens)
    if options.glossaries and not isinstance(imported, ImportedTranslator):
        raise ValueError("--glossary is for translation models")
    if isinstance(imported, ImportedEncoder):
        check_room(imported.tokenizer, imported.defaults, max_tokens)
        _add_dimensions(imported, checkpoint, options.trained_dimensions)
    elif options.trained_dimensions is not None:
        raise ValueError("--trained-dimensions is for embedding models")
    with new_bundle(bundles_dir, name, options.version) as (bundle, scratch):
        manifest = _new_manifest(name, options.version, license_, imported.family, checkpoint)
        manifest.MergeFrom(languages)
        manifest.controls.extend(controls)
        draft = Draft(
            folder=bundle,
            scratch=scratch,
            manifest=manifest,
            precisions=options.precisions,
            texts=sample_texts(),
            max_tokens=max_tokens,
        )
        if isinstance(imported, ImportedTranslator):
            export: ModelExport = _new_translator(imported, draft)
        elif isinstance(imported, ImportedLanguageModel):
            export = LanguageModelExport(
                imported.model, imported.tokenizer, draft, imported.decoding
            )
        else:
            export = EmbeddingExport(
                *(imported.model, imported.tokenizer, draft),
                *(imported.defaults, imported.classification, imported.late_interaction),
            )
        written = write_precisions(export, draft)
        outputs = export.reference_outputs()
        del imported, export  # Free the model before the original implementation loads its own.
        _compare_with_original(checkpoint, draft, written, outputs)
        draft.add_reference_outputs(outputs)
        (draft.folder / MODEL_CARD).write_text(write_import_card(manifest), encoding="utf-8")
        add_glossaries(draft.folder, manifest, options.glossaries)
        write_manifest(draft.folder, manifest)
    return bundles_dir / name / options.version


def sample_texts() -> list[str]:
    """Short texts in many languages, written for this purpose."""
    text = files(importers).joinpath(SAMPLE_TEXTS).read_text(encoding="utf-8")
    return text.splitlines()


def _name_of(checkpoint: Checkpoint) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", checkpoint.name.lower()).strip("-")
    if not rules.NAME.fullmatch(name):
        raise CheckpointError(f"{checkpoint.title}: its name makes no name of a model: give --name")
    return name


def _add_dimensions(
    imported: ImportedEncoder, checkpoint: Checkpoint, given: Sequence[int] | None
) -> None:
    """Add the trained dimensions, those ``given`` or stated, and the default to the manifest."""
    dimension, defaults = text_dimension(imported.model.architecture), imported.defaults
    stated = read_trained_dimensions(checkpoint, dimension)
    defaults.default_dimensions = read_default_dimensions(checkpoint, dimension)
    trained = stated if given is None else check_trained_dimensions(given, dimension)
    chosen = {defaults.default_dimensions} - {0}
    defaults.trained_dimensions[:] = sorted({*trained, *chosen})


def _controls(imported: Imported, options: ImportOptions) -> list[Control]:
    if isinstance(imported, ImportedTranslator):
        tokenizers, architecture = imported.tokenizers, imported.model.architecture
        sides = tokenizers.source, tokenizers.target
        return list(control_messages(options.controls, *sides, architecture))
    if options.controls:
        raise ValueError("--control is for translation models")
    return []


def _languages(
    imported: Imported, checkpoint: Checkpoint, card: Card, options: ImportOptions
) -> Manifest:
    """A manifest with languages only: the given ones, or those of the checkpoint."""
    sides = (options.source_languages, options.target_languages)
    if not isinstance(imported, ImportedTranslator):
        if sides != (None, None):
            raise ValueError("--source-languages and --target-languages are for translation models")
        return Manifest(
            languages=card.languages if options.languages is None else options.languages
        )
    if options.languages is not None:
        raise ValueError(
            "--languages is for embedding models and language models: give "
            "--source-languages and so on"
        )
    tokenizers, named = imported.tokenizers, PAIR.search(checkpoint.name)
    stated = (tokenizers.source_languages, tokenizers.target_languages)
    chosen = [
        _chosen_languages(side, tags, found, named[i + 1] if named else "")
        for i, (side, tags, found) in enumerate(
            zip(("source", "target"), sides, stated, strict=True)
        )
    ]
    chosen = [
        single_languages(side, found, other, card.languages)
        for side, found, other in zip(("source", "target"), chosen, reversed(chosen), strict=True)
    ]
    if not all(chosen):
        raise CheckpointError(
            f"{checkpoint.title} does not state the languages: give --source-languages and "
            "--target-languages"
        )
    return Manifest(source_languages=chosen[0], target_languages=chosen[1])


def _chosen_languages(
    side: str, tags: Sequence[str] | None, stated: Sequence[Language], named: str
) -> Sequence[Language]:
    """The languages of one side: given by tags, stated by the checkpoint, or named by its folder.

    Raises ValueError for a tag without the tokens that the languages of the checkpoint have.
    """
    if not tags:
        return stated or ([Language(tag=named)] if named else [])
    if all(language == Language(tag=language.tag) for language in stated):
        return [Language(tag=tag) for tag in tags]
    by_tag = {language.tag: language for language in stated}
    if side == "target" and not any(language.forced_target_ids for language in stated):
        by_tag[UNDETERMINED] = Language(tag=UNDETERMINED)
    for tag in tags:
        if tag not in by_tag:
            raise ValueError(f"--{side}-languages: {tag!r} is none of {', '.join(by_tag)}")
    return [by_tag[tag] for tag in tags]


def _new_manifest(
    name: str, version: str, license_: str, family: str, checkpoint: Checkpoint
) -> Manifest:
    origin = ImportSource(
        source=checkpoint.source,
        revision=checkpoint.revision,
        family=family,
        files=checkpoint.used_files(),
    )
    left_out = left_out_files(checkpoint, {file.path for file in origin.files})
    description = f"Imported from {checkpoint.source}, family {family}."
    if left_out:
        logger.warning("not supported, and left out: %s", ", ".join(left_out))
        description += f" Without its files {', '.join(left_out)}, which are not supported."
    return Manifest(
        manifest_version=MANIFEST_VERSION,
        name=name,
        version=version,
        description=description,
        license=license_,
        credits=checkpoint.statements.credits,
        provenance=Provenance(created=date.today().isoformat(), imported_from=origin),
        text_normalization=TEXT_NORMALIZATION_NONE,
    )


def _new_translator(imported: ImportedTranslator, draft: Draft) -> TranslationExport:
    tokenizers, manifest = imported.tokenizers, draft.manifest
    export = TranslationExport(
        *(imported.model, _pair_tokenizer(imported), draft),
        *(imported.shortlists, imported.input_scales),
        penalizes_repetition=bool(imported.decoding.repetition_penalty),
    )
    manifest.decoding.CopyFrom(imported.decoding)
    manifest.special_tokens.CopyFrom(tokenizers.source_tokens)
    if tokenizers.target_tokens != tokenizers.source_tokens:
        manifest.target_special_tokens.CopyFrom(tokenizers.target_tokens)
    return export


def _pair_tokenizer(imported: ImportedTranslator) -> PairTokenizer:
    tokenizers = imported.tokenizers
    source = Side(tokenizers.source, tokenizers.source_tokens.pad_id)
    target = source
    if tokenizers.target is not tokenizers.source:
        target = Side(tokenizers.target, tokenizers.target_tokens.pad_id)
    return PairTokenizer(source, target, imported.decoding.start_token_id)


def _compare_with_original(
    checkpoint: Checkpoint,
    draft: Draft,
    written: Mapping[str, PrecisionGraphs],
    outputs: Mapping[str, Any],
) -> None:
    """Compare with the original implementation, if it is installed and can load the checkpoint."""
    if not is_original_installed(checkpoint.location):
        return
    manifest = draft.manifest
    logger.info("comparing with the original implementation")
    folders = [(draft.folder_of(name), precision) for name, precision in written.items()]
    try:
        found = compare_model(checkpoint.location, manifest, outputs, folders)
    except OriginalError as error:
        logger.warning("not compared with the original implementation: %s", error)
        return
    manifest.parity.original.CopyFrom(found)
