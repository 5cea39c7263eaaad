"""Vectors as JSON: each number with the digits that its float32 needs."""

from typing import Any

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

VALUES_WRITTEN_FOR_ONE = 256
"""Numbers that are written in the time in which a token is written into an answer."""


def number_list(numbers: NDArray[Any]) -> Any:
    """Numbers (..., d) as nested lists, already encoded.

    Half as many bytes, and less than half the time, as for Python's numbers, which are doubles.
    """
    contiguous = np.ascontiguousarray(numbers, np.float32)
    return msgspec.Raw(orjson.dumps(contiguous, option=orjson.OPT_SERIALIZE_NUMPY))
