"""Real bundles with a changed manifest or tokenizer and updated hashes."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

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


def with_failing_graph(bundle: Path, root: Path, name: str) -> Path:
    """Copy ``bundle`` below ``root``, with a graph whose runs fail; returns ``root``."""
    copy = shutil.copytree(bundle, root / bundle.parent.name / bundle.name)
    model = onnx.load(copy / name, load_external_data=False)
    output = model.graph.output[0].name
    [node] = (node for node in model.graph.node if output in node.output)
    node.output[list(node.output).index(output)] = "before"
    # No output of a short text has a multiple of this many elements.
    wrong_shape = numpy_helper.from_array(np.array([9973, -1]), "wrong_shape")
    model.graph.initializer.append(wrong_shape)
    model.graph.node.extend(
        [
            helper.make_node("Shape", ["before"], ["right_shape"]),
            helper.make_node("Reshape", ["before", "wrong_shape"], ["failing"]),
            helper.make_node("Reshape", ["failing", "right_shape"], [output]),
        ]
    )
    replace_file(copy, name, model.SerializeToString())
    return root


def replace_file(folder: Path, name: str, content: bytes) -> None:
    """Replace a file of a bundle and update the manifest, so that only the content is wrong."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    [file] = (f for f in manifest["files"] if f["path"] == name)
    file |= {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    path.write_text(json.dumps(manifest), encoding="utf-8")
    (folder / name).write_bytes(content)
