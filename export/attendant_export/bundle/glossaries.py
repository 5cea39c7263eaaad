"""Glossaries of translation models: files that are checked and put into bundles."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from attendant.v1.bundle_pb2 import Manifest
from attendant_glossaries import (
    MAX_FILE_BYTES,
    NAME,
    SUFFIX,
    GlossaryFault,
    parsed_entries,
)
from attendant_manifest.translation_rules import glossary_path


@dataclass(frozen=True, slots=True)
class GlossaryFile:
    """A glossary for a bundle."""

    name: str
    content: bytes


def read_glossaries(paths: Sequence[Path]) -> tuple[GlossaryFile, ...]:
    """Read the glossaries of files ``NAME.tsv``.

    Raises ValueError for two of the same name, and for a bad one, with the number of its line.
    """
    glossaries = tuple(map(read_glossary, paths))
    for number, glossary in enumerate(glossaries):
        if glossary.name in (each.name for each in glossaries[:number]):
            raise ValueError(f"--glossary {paths[number]}: another one has the same name")
    return glossaries


def read_glossary(path: Path) -> GlossaryFile:
    """Read the glossary of a file ``NAME.tsv``; raises ValueError, which names a bad line."""
    if path.suffix != SUFFIX or not NAME.fullmatch(path.stem):
        raise ValueError(
            f"--glossary {path}: want NAME.tsv, where NAME is a letter or digit, then letters, "
            'digits, "_", "-" and ".", at most 64'
        )
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    try:
        parsed_entries(content)
    except GlossaryFault as fault:
        raise ValueError(f"{path}: {fault}") from None
    return GlossaryFile(path.stem, content)


def add_glossaries(folder: Path, manifest: Manifest, glossaries: Sequence[GlossaryFile]) -> None:
    """Write glossaries into the folder of a bundle; they replace those of the same name.

    Raises ValueError if the manifest is that of an embedding model or of one without an aligner.
    """
    if glossaries and not manifest.HasField("alignment"):
        raise ValueError("--glossary is for translation models with an aligner")
    for glossary in glossaries:
        path = folder / glossary_path(glossary.name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(glossary.content)
    names = {*manifest.glossaries, *(glossary.name for glossary in glossaries)}
    manifest.glossaries[:] = sorted(names)
