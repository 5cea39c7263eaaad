"""Imports of checkpoints: models alone, and bundles by the real command."""

from pathlib import Path

from attendant_export.__main__ import main
from attendant_export.importers.checkpoint import Checkpoint
from attendant_export.importers.families import read_model
from attendant_export.importers.imported import ImportedEncoder, ImportedTranslator


def read_encoder(folder: Path) -> ImportedEncoder:
    """The embedding model of a checkpoint."""
    imported = read_model(Checkpoint(folder))
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
