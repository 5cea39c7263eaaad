"""Bounds for differences of log-probabilities, which manifests state for each precision."""

import math
from collections.abc import Iterable

import numpy as np
from attendant_manifest.rules import MAX_LOG_PROBABILITY_BOUNDS

FP32_BOUND = MAX_LOG_PROBABILITY_BOUNDS["fp32"]
MIN_BOUNDS = {"fp16": 1e-2, "int8": 2e-2}
"""Effect of a single value rounded in the other direction, which may happen on other processors."""


def largest(differences: Iterable[float]) -> float:
    """The largest difference, 0 without any; NaN if one is NaN, which ``max`` could drop."""
    return float(np.max(list(differences), initial=0.0))


def stated_bound(precision: str, moved: float) -> float:
    """The bound between batches that a manifest states, given the largest measured difference.

    The bound of fp32 is fixed. That of other precisions is twice the measured difference, but at
    least the value in `MIN_BOUNDS`.
    """
    if precision == "fp32":
        return FP32_BOUND
    return max(MIN_BOUNDS[precision], round_up(2 * moved))


def round_up(value: float) -> float:
    """Round up to one significant digit. Returns 0, NaN and infinity unchanged."""
    if value == 0 or not math.isfinite(value):
        return value
    digit = 10.0 ** math.floor(math.log10(value))
    return float(f"{math.ceil(value / digit) * digit:.0e}")
