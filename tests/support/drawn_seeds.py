"""Seeds of drawn configurations of imported models."""

import pytest

NUM_SEEDS = 30


def seeds(num_always: int = 3) -> list:
    """Seeds for `pytest.mark.parametrize`; all but the first run in `make test-real` only."""
    return [
        pytest.param(seed, marks=() if seed < num_always else pytest.mark.real)
        for seed in range(NUM_SEEDS)
    ]
