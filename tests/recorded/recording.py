"""Recordings on disk, and their comparison with new answers.

On the processor type of the recording, with the same ONNX Runtime and NumPy, answers must be equal
to the last bit. Elsewhere floats may differ within a bound, and all else must be equal.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.recorded.answers import Answer
from tests.recorded.json_text import dumped
from tests.recorded.surroundings import Surroundings, are_comparable_bit_by_bit

FOLDER = Path(__file__).parent / "answers"
MAX_SHOWN_CALLS = 20
MAX_SHOWN_DIFFERENCES = 8
MAX_SHOWN_CHARACTERS = 200
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Recording:
    """The answers of one server by call name."""

    surroundings: Surroundings
    answers: dict[str, Answer]

    def text(self) -> str:
        """The content of the file."""
        return dumped({"surroundings": self.surroundings, "answers": self.answers}) + "\n"

    def save(self, path: Path) -> None:
        """Write the file."""
        path.write_text(self.text(), encoding="utf-8", newline="\n")


def read_recording(path: Path) -> Recording:
    """Read a file of `Recording.save`."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return Recording(content["surroundings"], content["answers"])


def report(expected: Recording, found: Recording, bound: float) -> str:
    """The differences, call by call; empty if there are none.

    In the same environment nothing may differ. In others floats may differ by ``bound`` times the
    larger of 1 and their size, and the hashes of tensors are not compared.
    """
    is_exact = are_comparable_bit_by_bit(expected.surroundings, found.surroundings)
    sections = list(_sections(expected.answers, found.answers, None if is_exact else bound))
    if not sections:
        return ""
    number = f"{len(sections)} of {len(expected.answers)} calls are answered differently"
    how = "bit by bit" if is_exact else f"floats within {bound:g}"
    surroundings = "".join(
        f"\n  {line}" for line in _differences(expected.surroundings, found.surroundings, None, "")
    )
    hidden = len(sections) - MAX_SHOWN_CALLS
    more = [f"... and {hidden} more calls"] if hidden > 0 else []
    header = f"{number}, compared {how}" + (surroundings and f"; other surroundings:{surroundings}")
    return "\n".join([header, *sections[:MAX_SHOWN_CALLS], *more])


def _sections(
    expected: dict[str, Answer], found: dict[str, Answer], bound: float | None
) -> Iterator[str]:
    """One section per call with differences: its name and fields."""
    for name in [*expected, *(name for name in found if name not in expected)]:
        if name not in found:
            yield f"{name}\n  is recorded, but was not sent"
        elif name not in expected:
            yield f"{name}\n  is not recorded"
        else:
            lines = list(_differences(expected[name], found[name], bound, ""))
            hidden = len(lines) - MAX_SHOWN_DIFFERENCES
            if hidden > 0:
                lines[MAX_SHOWN_DIFFERENCES:] = [f"... and {hidden} more values"]
            if lines:
                yield "\n  ".join([name, *lines])


def _differences(expected: Any, found: Any, bound: float | None, path: str) -> Iterator[str]:
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in [*expected, *(key for key in found if key not in expected)]:
            if bound is None or key != "sha256":
                yield from _differences(
                    expected.get(key, _ABSENT), found.get(key, _ABSENT), bound, f"{path}.{key}"
                )
    elif isinstance(expected, list) and isinstance(found, list):
        if len(expected) != len(found):
            yield f"{path[1:]}: {len(found)} values instead of {len(expected)}"
        for index, (one, two) in enumerate(zip(expected, found, strict=False)):
            yield from _differences(one, two, bound, f"{path}[{index}]")
    elif not _are_equal(expected, found, bound):
        yield f"{path[1:]}: {_shown(found)} instead of {_shown(expected)}"


def _are_equal(expected: Any, found: Any, bound: float | None) -> bool:
    if bound is not None and float in (type(expected), type(found)):
        # A field that is 0 is absent.
        one, two = (0.0 if value is _ABSENT else value for value in (expected, found))
        if isinstance(one, float) and isinstance(two, float):
            return abs(one - two) <= bound * max(1.0, abs(one), abs(two))
    return type(expected) is type(found) and repr(expected) == repr(found)


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "nothing"
    text = dumped(value).replace("\n", "")
    cut = text[:MAX_SHOWN_CHARACTERS]
    return text if cut == text else f"{cut}... ({len(text)} characters)"
