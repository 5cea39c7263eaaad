"""Real bundles with a changed manifest or tokenizer and updated hashes."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

Change = Callable[[dict[str, Any]], None]


def with_manifest(bundle: Path, root: Path, change: Change) -> Path:
    """Copy ``bundle`` below ``root`` and change its manifest; returns ``root``."""
    copy = root / bundle.parent.name / bundle.name
    shutil.copytree(bundle, copy)
    path = copy / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")
    return root


def with_tokenizer(bundle: Path, root: Path, change: Change) -> Path:
    """Copy ``bundle`` below ``root`` and change its tokenizer; returns ``root``."""
    definition = json.loads((bundle / "tokenizer.json").read_text(encoding="utf-8"))
    change(definition)
    return with_tokenizer_file(bundle, root, json.dumps(definition).encode())


def with_tokenizer_file(bundle: Path, root: Path, content: bytes) -> Path:
    """Copy ``bundle`` below ``root`` and replace its tokenizer.json; returns ``root``."""
    copy = shutil.copytree(bundle, root / bundle.parent.name / bundle.name)
    replace_file(copy, "tokenizer.json", content)
    return root


def replace_file(folder: Path, name: str, content: bytes) -> None:
    """Replace a file of a bundle and update the manifest, so that only the content is wrong."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    [file] = (f for f in manifest["files"] if f["path"] == name)
    file |= {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    path.write_text(json.dumps(manifest), encoding="utf-8")
    (folder / name).write_bytes(content)
