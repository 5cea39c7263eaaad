"""What the stages of the trial share: time limit, choice of sizes, and figures as JSON."""

import json
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

FOLDER = Path("build/bench/gpu")
"""Folder of the bundles, logs and runs of the trial."""
Size = TypeVar("Size")
Figures = Mapping[str, Any]


@dataclass(slots=True)
class Trial:
    """One stage on one device. Its time limit counts from when this object is made."""

    stage: str
    seconds: float
    """Time limit of the stage."""
    is_smoke: bool = False
    """Whether everything is as small as possible and runs on the CPU, to test the trial itself."""
    started: float = field(default_factory=time.monotonic)
    num_failed: int = 0
    """Number of parts that failed, or were skipped for lack of time."""

    @property
    def device(self) -> str:
        """The device of the models, as servers call it."""
        return "cpu" if self.is_smoke else "cuda"

    def pick(self, full: Size, smoke: Size) -> Size:
        """The size of something: ``full``, or ``smoke`` in a smoke test."""
        return smoke if self.is_smoke else full

    def left(self) -> float:
        """Seconds until the time limit."""
        return self.started + self.seconds - time.monotonic()

    def report(self, part: str, figures: Figures) -> None:
        """Print the figures of one measurement as one line of JSON, at once.

        The line also has the stage, the part, and the seconds since the stage began.
        """
        at = round(time.monotonic() - self.started, 1)
        print(json.dumps({"stage": self.stage, "part": part, "at": at, **figures}), flush=True)

    def part(self, name: str, measure: Callable[..., Figures], *arguments: Any) -> None:
        """Measure one part of the stage with ``arguments``, and report its figures.

        A part that fails is reported with its error; the next parts are measured all the same. A
        part that begins after the time limit is reported and not measured.
        """
        if self.left() <= 0:
            self.num_failed += 1
            self.report(name, {"skipped": "no time is left"})
            return
        try:
            figures = measure(*arguments)
        except (Exception, SystemExit) as error:  # drivers and libraries raise their own classes
            traceback.print_exc()
            self.num_failed += 1
            figures = {"error": described(error)}
        if figures:
            self.report(name, figures)


def described(error: BaseException) -> str:
    """The class of an error and the beginning of its message, in one line."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message[:400]}"


def rounded(value: float, digits: int = 3) -> float:
    """``value`` with ``digits`` significant digits."""
    return float(f"{value:.{digits}g}")
