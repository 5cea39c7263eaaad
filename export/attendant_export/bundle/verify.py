"""Verifies a bundle that exists: its files, and its reference outputs."""

from pathlib import Path

from attendant_export.bundle.kinds import kind_of_bundle
from attendant_export.bundle.manifest import BundleError, check_files, read_manifest
from attendant_export.data.tokenizer import load_tokenizer
from attendant_export.runs import checkpoint


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
    return [
        f"{manifest.name}/{manifest.version}: the {len(manifest.files)} files, and no others, "
        "have the sizes and SHA-256 of the manifest",
        *kind_of_bundle(manifest).check_outputs(folder, manifest, tokenizer, reference),
    ]
