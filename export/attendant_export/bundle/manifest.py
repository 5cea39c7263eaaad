"""Writes and reads the manifest of a bundle, and checks the files against its hashes."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from attendant.v1.bundle_pb2 import BundleFile, Graph, Manifest, PrecisionGraphs
from attendant_manifest import ManifestError, format_manifest, parse_stored_manifest
from attendant_manifest.rules import SIGNATURE_NAME, problems

from attendant_export.bundle.exchange import describe_replaced

MANIFEST = "manifest.json"


class BundleError(ValueError):
    """A bundle differs from its manifest, or cannot be written."""


def describe_file(folder: Path, path: str) -> BundleFile:
    """Path, size and hash of a file of the bundle in ``folder``."""
    with (folder / path).open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    return BundleFile(path=path, sha256=sha256, size_bytes=(folder / path).stat().st_size)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest`` with the sizes and hashes of all files in ``folder``.

    Raises BundleError, without writing, if the manifest is invalid.
    """
    paths = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    paths -= {MANIFEST, SIGNATURE_NAME}
    manifest.files.extend(describe_file(folder, path) for path in sorted(paths))
    if problem := next(problems(manifest), None):
        raise BundleError(f"{folder}: the manifest that would be written is wrong: {problem}")
    (folder / MANIFEST).write_text(format_manifest(manifest), encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a bundle. Raises BundleError if it is missing or breaks a rule."""
    return read_stored_manifest(folder)[0]


def read_stored_manifest(folder: Path) -> tuple[Manifest, int]:
    """The manifest, as `read_manifest` returns it, and the version of the manifest on disk."""
    path = folder / MANIFEST
    if not path.exists():
        replaced = describe_replaced(folder.resolve())
        raise BundleError(f"{folder} is not a bundle: it has no {MANIFEST}{replaced}")
    if not path.is_file():
        raise BundleError(f"{path}: is not a regular file")
    try:
        manifest, version = parse_stored_manifest(path.read_text(encoding="utf-8"))
    except (ManifestError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: {error}") from error
    if problem := next(problems(manifest), None):
        raise BundleError(f"{path}: {problem}")
    return manifest, version


def check_files(folder: Path, manifest: Manifest) -> None:
    """Compare every file with the manifest. Raises BundleError that lists all differences."""
    if differences := list(_file_problems(folder, manifest)):
        raise BundleError(f"{folder}: " + "; ".join(differences))


def graphs_of(precision: PrecisionGraphs) -> list[Graph]:
    """All graphs of a precision."""
    fields = [value for _, value in precision.ListFields() if isinstance(value, Graph)]
    return [*fields, *(step.graph for step in precision.steps)]


def _file_problems(folder: Path, manifest: Manifest) -> Iterator[str]:
    for file in manifest.files:
        path = Path(os.path.realpath(folder / file.path))
        if not path.is_relative_to(os.path.realpath(folder)):
            yield f"{file.path} is outside the bundle"
        elif not path.exists():
            yield f"{file.path} is missing"
        elif not path.is_file():
            yield f"{file.path} is not a regular file"
        elif describe_file(folder, file.path) != file:
            yield f"{file.path} has another SHA-256 or size than the manifest says"
    known = {MANIFEST, SIGNATURE_NAME, *(file.path for file in manifest.files)}
    for path in sorted(folder.rglob("*")):
        # Graphs refer to external weight files themselves, so every file must be listed.
        name = path.relative_to(folder).as_posix()
        if name not in known and (path.is_symlink() or not path.is_dir()):
            yield f"{name} is not in the manifest"
