"""How often each of several sources occurs in an epoch. Works on numbers only."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def nums_in_epoch(
    sizes: Sequence[int], weights: Sequence[float] | None = None, temperature: float = 1.0
) -> list[int]:
    """The number of pairs of each source in an epoch that has as many pairs as all sources.

    The shares are proportional to ``weights`` or, without them, to ``size ** (1 / temperature)``:
    each pair occurs once at a temperature of 1, and all sources are equally frequent at a high one.
    A source without pairs has none.
    """
    if weights is None and temperature == 1:
        return list(sizes)
    powers = np.asarray(sizes, float) ** (1 / temperature)
    shares = powers if weights is None else np.where(np.asarray(sizes) > 0, weights, 0.0)
    total = sum(sizes)
    exact = shares * (total / shares.sum()) if total else np.zeros(len(sizes))
    nums = np.floor(exact).astype(int)
    most_missed = np.argsort(nums - exact, kind="stable")[: total - nums.sum()]
    nums[most_missed] += 1
    return [int(num) for num in nums]


def draw_rows(size: int, num: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """``num`` rows of a source of ``size`` rows: all rows in order, as many times as fit.

    What remains is a random sample without repeats; ``rng`` is used for it only.
    """
    times, rest = divmod(num, max(1, size))
    whole = np.tile(np.arange(size), times)
    return (
        np.concatenate([whole, np.sort(rng.choice(size, rest, replace=False))]) if rest else whole
    )


def spread_rows(size: int, num: int) -> NDArray[np.int64]:
    """`draw_rows` with evenly spread rows instead of a random sample."""
    times, rest = divmod(num, max(1, size))
    return np.concatenate([np.tile(np.arange(size), times), np.arange(rest) * size // max(1, rest)])
