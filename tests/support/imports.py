"""Imports of checkpoints: models alone, and bundles by the real command."""

from pathlib import Path

from attendant_export.__main__ import main
from attendant_export.bundle.importing import ImportOptions, import_bundle
from attendant_export.importers.checkpoint import Checkpoint
from attendant_export.importers.families import read_model
from attendant_export.importers.imported import ImportedEncoder, ImportedTranslator

from tests.support.bundles import one_thread


def read_encoder(folder: Path, without_head: bool = False) -> ImportedEncoder:
    """The embedding model of a checkpoint."""
    imported = read_model(Checkpoint(folder), without_head=without_head)
    assert isinstance(imported, ImportedEncoder)
    return imported


def read_translator(folder: Path) -> ImportedTranslator:
    """The translation model of a checkpoint."""
    imported = read_model(Checkpoint(folder))
    assert isinstance(imported, ImportedTranslator)
    return imported


def import_(source: Path, bundles: Path, *options: str) -> Path:
    """Import a checkpoint by the command; returns the folder of the bundle."""
    main(["import", str(source), "--bundles-dir", str(bundles), *options])
    return bundles / source.name / "1"


def import_characters(source: Path, bundles: Path) -> None:
    """Import a translation model whose tokens are characters, from English to German."""
    options = ImportOptions(
        max_tokens=16,
        license="cc0-1.0",
        source_languages=("en",),
        target_languages=("de",),
        tokenizer="characters",
    )
    with one_thread():
        import_bundle(source, bundles, options)
