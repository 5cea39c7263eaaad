"""The sizes of models on disk, compared before weights are loaded or anything is written.

Shapes of tensors do not tell them all: the same weights fit any number of heads.
"""

from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from attendant_export import checkpoint
from attendant_export.manifest import MANIFEST, read_manifest

FREE = frozenset({"dropout"})
"""What may differ from the model whose weights a training starts from."""


def check_run(run_dir: Path, config: Mapping[str, Any]) -> None:
    """ValueError that lists where ``config`` differs from the run's ``config.json``, if any."""
    if has_started(run_dir):
        _compare(f"{run_dir} is the run", checkpoint.read_json(run_dir / checkpoint.CONFIG), config)


def has_started(run_dir: Path) -> bool:
    """Whether a training got so far that its data and flags were found to be good."""
    return (run_dir / checkpoint.CONFIG).exists()


def check_start(folder: Path, config: Mapping[str, Any], free: Set[str] = FREE) -> None:
    """ValueError that lists where ``config`` differs from a run folder or bundle to start from.

    What is named in ``free`` may differ.
    """
    if (folder / MANIFEST).exists():
        found = _bundle_config(folder)
    else:
        found = checkpoint.read_json(folder / checkpoint.CONFIG)
    known = [name for name in config if name in found and name not in free]
    _compare(
        f"{folder} has the weights",
        {name: found[name] for name in known},
        {name: config[name] for name in known},
    )


def _bundle_config(folder: Path) -> dict[str, Any]:
    manifest = read_manifest(folder)
    is_translation = manifest.HasField("translation_sizes")
    sizes = manifest.translation_sizes if is_translation else manifest.embedding_sizes
    named = {field.name: value for field, value in sizes.ListFields()}
    kind = "translation" if is_translation else "bert"
    return {"kind": kind, "d_ff": sizes.d_feed_forward, **named}


def _compare(what: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    differences = [
        f"{name} {found.get(name)}, not {wanted.get(name)}"
        for name in dict.fromkeys([*found, *wanted])
        if found.get(name) != wanted.get(name)
    ]
    if differences:
        raise ValueError(f"{what} of a model with " + "; ".join(differences))
