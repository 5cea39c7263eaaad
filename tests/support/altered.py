"""Real bundles with another tokenizer, and with the hashes that belong to it."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def with_tokenizer(bundle: Path, root: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Copy ``bundle`` to a folder of bundles at ``root``, its tokenizer changed; that folder."""
    path = bundle / "tokenizer.json"
    definition = json.loads(path.read_text(encoding="utf-8"))
    change(definition)
    return with_tokenizer_file(bundle, root, json.dumps(definition).encode())


def with_tokenizer_file(bundle: Path, root: Path, content: bytes) -> Path:
    """Copy ``bundle`` to a folder of bundles at ``root`` with this tokenizer.json; that folder."""
    copy = root / bundle.parent.name / bundle.name
    shutil.copytree(bundle, copy)
    (copy / "tokenizer.json").write_bytes(content)
    manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    [file] = (f for f in manifest["files"] if f["path"] == "tokenizer.json")
    file |= {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    (copy / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return root
