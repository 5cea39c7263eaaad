"""Verifies an existing bundle: its files and its reference outputs."""

from pathlib import Path

from tokenizers import Tokenizer

from attendant_export.bundle.kinds import kind_of_bundle
from attendant_export.bundle.manifest import BundleError, check_files, read_manifest
from attendant_export.bundle.reference_outputs import check_has_reference_outputs
from attendant_export.data.tokenizer import load_tokenizer


def verify_bundle(folder: Path) -> list[str]:
    """Check the files of a bundle and compare its graphs with the reference outputs.

    Returns one line per check. Raises BundleError if files differ from the manifest or cannot be
    read, or there are no reference outputs; GraphError if a graph cannot be run; and ParityError if
    outputs differ.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    check_has_reference_outputs(folder, manifest)
    tokenizer = _tokenizer(folder / manifest.source_tokenizer)
    return [
        f"{manifest.name}/{manifest.version}: the {len(manifest.files)} files, and no others, "
        "have the sizes and SHA-256 of the manifest",
        *kind_of_bundle(manifest).check_outputs(folder, manifest, tokenizer),
    ]


def _tokenizer(path: Path) -> Tokenizer:
    try:
        return load_tokenizer(path)
    except ValueError as error:
        raise BundleError(str(error)) from error
