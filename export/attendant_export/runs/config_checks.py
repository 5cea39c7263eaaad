"""Checks that two runs, or a run and a bundle, are of models with the same configuration.

The shapes of weights are not enough: the same weights fit any number of heads.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attendant_export.runs import checkpoint
from attendant_export.runs.config import RunConfig, read_config


def check_run(run_dir: Path, config: RunConfig) -> None:
    """Raise ValueError that lists where ``config`` differs from an existing ``config.json``."""
    if has_started(run_dir):
        found = read_config(run_dir)
        check_same_config(f"{run_dir} is the run", found.values(), config.values())


def has_started(run_dir: Path) -> bool:
    """Whether a training has accepted the run's data and options and has started."""
    return (run_dir / checkpoint.CONFIG).exists()


def check_same_config(what: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise ValueError that lists the differences between two configurations, if any."""
    differences = [
        f"{name} {found.get(name)}, not {wanted.get(name)}"
        for name in dict.fromkeys([*found, *wanted])
        if found.get(name) != wanted.get(name)
    ]
    if differences:
        raise ValueError(f"{what} of a model with " + "; ".join(differences))
