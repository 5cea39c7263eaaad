"""Folders of bundles whose versions tests add, replace and remove."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def add_version(
    bundle: Path, root: Path, version: str, change: Callable[[Any], None] = lambda manifest: None
) -> Path:
    """Copy a bundle to ``root`` as another version, with a changed manifest.

    Replaces the version that is there by renaming, as the exporter does.
    """
    target = root / bundle.parent.name / version
    staged, replaced = target.with_name(f".{version}.new"), target.with_name(f".{version}.old")
    shutil.copytree(bundle, staged)
    manifest = json.loads((staged / "manifest.json").read_text())
    manifest["version"] = version
    change(manifest)
    (staged / "manifest.json").write_text(json.dumps(manifest))
    if target.exists():
        target.rename(replaced)
    staged.rename(target)
    shutil.rmtree(replaced, ignore_errors=True)
    return target


def damage(bundle: Path) -> None:
    """Change a byte of the bundle's weights."""
    weights = bundle / "weights.fp32.bin"
    content = bytearray(weights.read_bytes())
    content[100] ^= 1
    weights.write_bytes(content)
