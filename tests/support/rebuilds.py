"""Rebuilds of bundles from their weights."""

from pathlib import Path

from attendant.v1.bundle_pb2 import Manifest
from attendant_export.bundle.manifest import read_manifest
from attendant_export.bundle.rebuild import _compare as compare_rebuilt
from attendant_export.bundle.rebuild import _write_graphs as write_rebuilt


def rebuilt_alike(bundle: Path, folder: Path) -> Manifest:
    """The manifest of a bundle whose graphs were rebuilt in ``folder``, to the last byte alike."""
    manifest, rebuilt = read_manifest(bundle), folder / "rebuilt"
    rebuilt.mkdir()
    for path in bundle.iterdir():
        (rebuilt / path.name).write_bytes(path.read_bytes())
    reference, parameters, _ = write_rebuilt(bundle, manifest, rebuilt)
    for graph in bundle.glob("*.onnx"):
        assert (rebuilt / graph.name).read_bytes() == graph.read_bytes()
    manifest.parity.ClearField("precisions")
    compare_rebuilt(rebuilt, manifest, reference, parameters)
    return manifest
