"""Curves of a run for TensorBoard. Only this module uses its library, which is an extra."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

EXTRA = "attendant-export[tensorboard]"
FOLDER = "tensorboard"


def check_installed() -> None:
    """Raise ValueError that names the extra if the library is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise ValueError(f"--tensorboard: needs the extra {EXTRA}")


class TensorBoard:
    """Writes values to the folder ``tensorboard`` of a run, which appears with the first of them.

    A resumed run adds a file. Its values replace those of the same and later steps.
    """

    def __init__(self, run_dir: Path) -> None:
        self._folder = run_dir / FOLDER
        self._writer: Any = None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write values of a step; they appear within seconds."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(self._folder, purge_step=step, flush_secs=10)
        for name, value in values.items():
            self._writer.add_scalar(name.replace(".", "/"), value, step)

    def close(self) -> None:
        """Finish the file, if there is one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
