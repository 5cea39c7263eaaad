"""Rewrites the manifest of an older bundle in the current version. Other files do not change."""

import json
from pathlib import Path

from attendant.v1.architecture_pb2 import (
    NORM_POSITION_POST,
    NORM_POSITION_PRE,
    POSITION_KIND_LEARNED,
    Architecture,
)
from attendant.v1.bundle_pb2 import Graph, Manifest
from attendant_manifest import MANIFEST_VERSION, format_manifest, version_of
from attendant_manifest.rules import problems

from attendant_export.bundle.manifest import MANIFEST, BundleError, check_files, read_manifest
from attendant_export.bundle.weights import initializer_shapes

NUM_TOKEN_TYPES = 2
"""Number of token types of every BERT exported with a manifest of version 1."""


def upgrade_bundle(folder: Path) -> str:
    """Upgrade the manifest of the bundle in ``folder``; returns a one-line summary.

    Raises BundleError for a damaged bundle, which is left unchanged.
    """
    folder = folder.resolve()
    manifest, found = read_upgraded(folder)
    path = folder / MANIFEST
    name = f"{manifest.name}/{manifest.version}"
    if found == MANIFEST_VERSION:
        return f"{name}: the manifest is of version {MANIFEST_VERSION} already"
    # Outside the bundle, which may hold no file that the manifest does not list.
    temporary = folder.with_name(f".{folder.name}.{MANIFEST}")
    try:
        temporary.write_text(format_manifest(manifest), encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return f"{name}: the manifest was of version {found} and is of version {MANIFEST_VERSION} now"


def read_upgraded(folder: Path) -> tuple[Manifest, int | None]:
    """The manifest of a bundle in the current version, and the version that its file has.

    Reads facts that an older manifest lacks from the graphs. Raises BundleError for a damaged
    bundle.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    if problem := next(problems(manifest), None):
        raise BundleError(f"{folder}: {problem}")
    found = version_of(json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
    if found != MANIFEST_VERSION:
        _complete(manifest.architecture, folder, _encoder(manifest))
    return manifest, found


def _encoder(manifest: Manifest) -> Graph:
    graphs = manifest.precisions[0]
    return graphs.encoder if graphs.HasField("encoder") else graphs.embedder


def _complete(architecture: Architecture, folder: Path, encoder: Graph) -> None:
    """Add the facts that version 1 lacks: norm positions, learned positions and token types.

    Only a pre-norm encoder has a final norm. Embedding graphs add the embedding of token type 0 to
    the position table.
    """
    shapes = initializer_shapes(folder, encoder)
    is_pre_norm = "encoder_norm.weight" in shapes
    if architecture.source_embeddings.positions.kind == POSITION_KIND_LEARNED:
        num_positions, _ = shapes["position_embedding.weight"]
        architecture.source_embeddings.positions.num_positions = num_positions
        architecture.source_embeddings.num_token_types = NUM_TOKEN_TYPES
    for name in ("encoder", "decoder"):
        if architecture.HasField(name):
            stack = getattr(architecture, name)
            stack.norm_position = NORM_POSITION_PRE if is_pre_norm else NORM_POSITION_POST
            stack.has_final_norm = is_pre_norm
