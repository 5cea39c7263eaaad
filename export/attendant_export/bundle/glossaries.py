"""Glossaries of translation models: files that are checked and put into bundles."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from attendant.v1.bundle_pb2 import Manifest
from attendant_manifest.translation_rules import (
    GLOSSARY_NAME,
    MAX_GLOSSARY_BYTES,
    glossary_path,
)

MAX_ENTRIES, MAX_TARGETS, MAX_TERM_CHARACTERS = 10_000, 16, 200
"""The limits of a server, see Manifest.glossaries."""


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
    if path.suffix != ".tsv" or not GLOSSARY_NAME.fullmatch(path.stem):
        raise ValueError(
            f"--glossary {path}: want NAME.tsv, where NAME is a letter or digit, then letters, "
            'digits, "_", "-" and ".", at most 64'
        )
    with path.open("rb") as file:
        content = file.read(MAX_GLOSSARY_BYTES + 1)
    if len(content) > MAX_GLOSSARY_BYTES:
        raise ValueError(f"{path}: has more than {MAX_GLOSSARY_BYTES} bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is not UTF-8") from None
    if problem := next(_problems(text), None):
        raise ValueError(f"{path}: {problem}")
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


def _problems(text: str) -> Iterator[str]:
    num_entries = 0
    # As servers read it, not splitlines: form feeds and other separators do not end lines.
    for number, line in enumerate(StringIO(text, newline=None), 1):
        if not line.strip() or line.startswith("#"):
            continue
        num_entries += 1
        terms = [" ".join(term.split()) for term in line.rstrip("\t\n").split("\t")]
        if not 1 <= len(terms) - 1 <= MAX_TARGETS:
            yield (
                f"line {number}: a term must have between 1 and {MAX_TARGETS} translations, "
                f"separated by tabs, got {len(terms) - 1}"
            )
        if not all(1 <= len(term) <= MAX_TERM_CHARACTERS for term in terms):
            yield (
                f"line {number}: terms and translations must have between 1 and "
                f"{MAX_TERM_CHARACTERS} characters"
            )
    if num_entries > MAX_ENTRIES:
        yield f"has more than {MAX_ENTRIES} entries"
