"""Rewrites the manifest of an older bundle in the current version. Other files do not change.

A signature of the earlier manifest is removed.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path

from attendant.v1.architecture_pb2 import (
    NORM_POSITION_POST,
    NORM_POSITION_PRE,
    POSITION_KIND_LEARNED,
    Stack,
)
from attendant.v1.bundle_pb2 import Graph, Manifest
from attendant_manifest import MANIFEST_VERSION, format_manifest
from attendant_manifest.rules import SIGNATURE_NAME
from attendant_manifest.sizes import num_layers

from attendant_export.bundle.exchange import sync
from attendant_export.bundle.manifest import (
    MANIFEST,
    BundleError,
    check_files,
    read_manifest,
    read_stored_manifest,
)
from attendant_export.bundle.scratch import locked
from attendant_export.bundle.weights import parameter_shapes
from attendant_export.models.embeddings import SOURCE

NUM_TOKEN_TYPES = 2
"""Number of token types of every BERT exported with a manifest of version 1."""


def upgrade_bundle(folder: Path) -> str:
    """Upgrade the manifest of the bundle in ``folder``; returns a one-line summary.

    Raises BundleError for a damaged bundle, which is left unchanged, and if another process writes
    the bundle.
    """
    folder = folder.resolve()
    read_manifest(folder)
    with locked(folder, folder):
        return _upgrade(folder)


def _upgrade(folder: Path) -> str:
    temporary = folder / f".{MANIFEST}.new"
    # In the bundle itself, because the folder may be a mount point. A killed upgrade may leave it.
    if temporary.is_dir():
        raise BundleError(f"{temporary} is a folder: an upgrade needs this name for a file")
    temporary.unlink(missing_ok=True)
    manifest, found = read_upgraded(folder)
    name = f"{manifest.name}/{manifest.version}"
    if found == MANIFEST_VERSION:
        return f"{name}: the manifest is of version {MANIFEST_VERSION} already"
    _replace(folder / MANIFEST, format_manifest(manifest), temporary)
    (folder / SIGNATURE_NAME).unlink(missing_ok=True)
    return f"{name}: the manifest was of version {found} and is of version {MANIFEST_VERSION} now"


def read_upgraded(folder: Path) -> tuple[Manifest, int]:
    """The manifest of a bundle in the current version, and the version that its file has.

    Reads facts that an older manifest lacks from the graphs. Raises BundleError for a damaged
    bundle.
    """
    manifest, found = read_stored_manifest(folder)
    check_files(folder, manifest)
    if found != MANIFEST_VERSION:
        _complete(manifest, folder)
    return manifest, found


def _replace(path: Path, text: str, temporary: Path) -> None:
    """Replace a file as a whole. Its mode stays, and its owner if this process may set it."""
    old = path.stat()
    temporary.touch(mode=0o600, exist_ok=False)
    try:
        temporary.write_text(text, encoding="utf-8")
        sync(temporary)
        with suppress(PermissionError):
            os.chown(temporary, old.st_uid, old.st_gid)
        temporary.chmod(stat.S_IMODE(old.st_mode))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _complete(manifest: Manifest, folder: Path) -> None:
    """Add the facts that version 1 lacks: norm positions, learned positions and token types.

    Embedding graphs add the embedding of token type 0 to the position table.
    """
    architecture, graphs = manifest.architecture, manifest.precisions[0]
    d_model = architecture.d_model
    encoder = graphs.encoder if graphs.HasField("encoder") else graphs.embedder
    parameters = _Parameters(folder, encoder)
    embeddings = architecture.source_embeddings
    if embeddings.positions.kind == POSITION_KIND_LEARNED:
        table = parameters.shape(f"{SOURCE.positions}.weight", (None, d_model))
        embeddings.positions.num_positions = table[0]
        embeddings.num_token_types = NUM_TOKEN_TYPES
    _complete_norms(architecture.encoder, "encoder", d_model, parameters)
    if architecture.HasField("decoder"):
        step = _Parameters(folder, graphs.steps[0].graph)
        _complete_norms(architecture.decoder, "decoder", d_model, step)


class _Parameters:
    """The shapes of the parameters of a graph."""

    def __init__(self, folder: Path, graph: Graph) -> None:
        self._path = folder / graph.path
        self._shapes = parameter_shapes(folder, graph)

    def __contains__(self, name: str) -> bool:
        return name in self._shapes

    def shape(self, name: str, wanted: tuple[int | None, ...]) -> tuple[int, ...]:
        """The shape of a parameter. Raises BundleError unless it is ``wanted``; None: any size."""
        if name not in self._shapes:
            raise BundleError(f"{self._path}: the graph does not use the parameter {name}")
        found = self._shapes[name]
        fits = [size in (None, has) for size, has in zip(wanted, found, strict=False)]
        if len(found) != len(wanted) or not all(fits):
            sizes = " x ".join("any" if size is None else str(size) for size in wanted)
            raise BundleError(f"{self._path}: {name} has the shape {found}, not {sizes}")
        return found


def _complete_norms(stack: Stack, name: str, d_model: int, parameters: _Parameters) -> None:
    """Add the position of the norms. Only a pre-norm stack has a final norm.

    Every stack has norms in its layers. A graph without them says nothing about their position.
    """
    for layer in range(num_layers(stack)):
        for part in ("self_attention", "feed_forward"):
            parameters.shape(f"{name}.{layer}.{part}_residual.norm.weight", (d_model,))
    final = f"{name}_norm.weight"
    stack.has_final_norm = final in parameters
    if stack.has_final_norm:
        parameters.shape(final, (d_model,))
    stack.norm_position = NORM_POSITION_PRE if stack.has_final_norm else NORM_POSITION_POST
