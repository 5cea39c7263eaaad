"""The figures of a soak, and the faults in them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import linear_regression, median

MAX_GROWTH_BYTES = 20_000_000
"""How much the typical resident memory of the last quarter may exceed that of the first."""
MAX_LATE_SHARE = 0.01
"""Share of the calls that may be admitted and reach ``max_request_seconds`` in an overload: calls
are refused by an estimate of their wait (decision 0049)."""
MAX_MORE_HANDLES = 4
"""Files or threads that may be open at the end beyond those at the start."""


@dataclass(slots=True)
class Soak:
    """What was counted and sampled."""

    calls: Counter[str] = field(default_factory=Counter)
    """Calls by their end: answered, refused, expired, cancelled, rejected, left, late; failed, lost
    and wrong are faults."""
    failures: Counter[str] = field(default_factory=Counter)
    """Failed calls by status."""
    memory: list[tuple[float, int]] = field(default_factory=list)
    """Seconds and resident bytes, after the warm-up."""
    files: tuple[int, int] = (0, 0)
    """Open files before and after."""
    threads: tuple[int, int] = (0, 0)
    gauges: dict[str, float] = field(default_factory=dict)
    """Gauges that are 0 at rest, after the load."""

    @property
    def bytes_per_minute(self) -> float:
        """The slope of the resident memory."""
        seconds, sizes = zip(*self.memory, strict=True)
        return 60 * linear_regression(seconds, sizes).slope

    def faults(self, max_growth_bytes: int = MAX_GROWTH_BYTES) -> list[str]:
        """Descriptions of all faults; empty if there are none."""
        found = [f"{self.calls[end]} {end}" for end in ("failed", "lost", "wrong")]
        found = [fault for fault in found if not fault.startswith("0 ")]
        if self.calls["late"] > MAX_LATE_SHARE * self.calls.total():
            found.append(f"{self.calls['late']} late")
        if (growth := growth_of([size for _, size in self.memory])) > max_growth_bytes:
            found.append(f"memory grew by {growth / 1e6:.0f} MB")
        for name, (before, after) in (("files", self.files), ("threads", self.threads)):
            if after > before + MAX_MORE_HANDLES:
                found.append(f"{name}: {before} before, {after} after")
        return found + [f"{name} is {value}" for name, value in self.gauges.items() if value]


def growth_of(sizes: Sequence[int]) -> float:
    """Growth from the typical size of the first quarter to that of the last."""
    quarter = max(1, len(sizes) // 4)
    return median(sizes[-quarter:]) - median(sizes[:quarter])
