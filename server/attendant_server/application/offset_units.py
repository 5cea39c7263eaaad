"""Units of offsets: places in texts, which the server counts in code points.

Requests are converted where their spans are checked, and answers where their messages are made.
"""

from bisect import bisect_left
from collections.abc import Sequence
from enum import IntEnum
from functools import cached_property
from itertools import accumulate


class OffsetUnit(IntEnum):
    """The units of offsets; numbered as in the contract."""

    CODE_POINTS = 1
    UTF8_BYTES = 2
    UTF16_UNITS = 3

    def length(self, character: str) -> int:
        """Number of units of a character."""
        code = ord(character)
        if self is OffsetUnit.UTF8_BYTES:
            return 1 + (code > 0x7F) + (code > 0x7FF) + (code > 0xFFFF)
        return 1 + (self is OffsetUnit.UTF16_UNITS and code > 0xFFFF)


class TextOffsets:
    """Converts the offsets of one text."""

    def __init__(self, text: str, unit: OffsetUnit) -> None:
        self._text, self._unit = text, unit
        self._is_same = unit is OffsetUnit.CODE_POINTS or text.isascii()

    @cached_property
    def _places(self) -> Sequence[int]:
        """The offset of each character in the unit, and the length of the text."""
        return list(accumulate(map(self._unit.length, self._text), initial=0))

    @property
    def length(self) -> int:
        """Length of the text in the unit."""
        return len(self._text) if self._is_same else self._places[-1]

    def in_unit(self, code_points: int) -> int:
        """An offset in the unit, from one in code points."""
        return code_points if self._is_same else self._places[code_points]

    def in_code_points(self, offset: int) -> int | None:
        """An offset in code points, from one in the unit within the text.

        None if it is inside a character.
        """
        if self._is_same:
            return offset
        found = bisect_left(self._places, offset)
        return found if self._places[found] == offset else None
