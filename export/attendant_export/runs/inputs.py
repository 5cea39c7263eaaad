"""The text that a run is trained on. A run that has started continues on the same text only."""

from collections.abc import Sequence
from pathlib import Path

from attendant_export.runs import checkpoint
from attendant_export.runs.config_checks import has_started

INPUTS = "inputs.json"
Inputs = Sequence[tuple[str, str]]
"""Name and hash of each file or folder of training text."""


def check_inputs(run_dir: Path, inputs: Inputs) -> None:
    """Raise ValueError that names what differs from the text that the run has started with.

    Does nothing for runs of older versions, which did not write it.
    """
    path = run_dir / INPUTS
    if not has_started(run_dir) or not path.exists():
        return
    found = [(name, key) for name, key in checkpoint.read_json(path)]
    if found == list(inputs):
        return
    different = dict.fromkeys(name for name, _ in sorted({*found} ^ {*inputs})) or dict(inputs)
    raise ValueError(
        f"{run_dir} is a run on other training text; different, or with other filters, "
        f"languages or controls: {', '.join(different)}. A new run can start from its "
        f"weights: --init-from {run_dir}"
    )


def write_inputs(run_dir: Path, inputs: Inputs) -> None:
    """Write the names and hashes of the text that a run starts with, unless they are there."""
    if not (run_dir / INPUTS).exists():
        checkpoint.write_json(run_dir / INPUTS, [list(each) for each in inputs])
