"""Numbers of first values of a vector for which an encoder was trained (Matryoshka training)."""

from collections.abc import Iterator, Sequence
from typing import Any

from attendant_export.importers.checkpoint import Checkpoint, CheckpointError, Config
from attendant_export.importers.prompts import SETTINGS

CONFIG = "config.json"
LIST, NUMBER = "matryoshka_dimensions", "truncate_dim"


def read_trained_dimensions(checkpoint: Checkpoint, dimension: int) -> list[int]:
    """The numbers that a checkpoint states, ascending; none if it states none.

    ``dimension`` is that of whole vectors, which is left out. Raises CheckpointError for a value
    that is no such number.
    """
    configs = [checkpoint.options(SETTINGS)]
    if checkpoint.has(CONFIG):
        configs.append(checkpoint.config)
    found = {number for config in configs for number in _stated(config, dimension)}
    return sorted(found - {dimension})


def read_default_dimensions(checkpoint: Checkpoint, dimension: int) -> int:
    """The number of values that sentence-transformers returns for this folder; 0 for all.

    ``dimension`` is that of whole vectors. Call `read_trained_dimensions` first: it checks values.
    """
    number: int = checkpoint.options(SETTINGS).get(NUMBER) or dimension
    return number if number < dimension else 0


def check_trained_dimensions(numbers: Sequence[int], dimension: int) -> list[int]:
    """The given numbers, ascending; raises ValueError for one that is not less than ``dimension``.

    ``dimension`` is that of whole vectors.
    """
    for number in numbers:
        if not 1 <= number < dimension:
            raise ValueError(
                f"--trained-dimensions: {number} must be between 1 and {dimension - 1}, since the "
                f"vectors have {dimension} values"
            )
    return sorted(set(numbers))


def _stated(config: Config, dimension: int) -> Iterator[int]:
    values: Any = config.get(LIST, [])
    if not isinstance(values, list):
        raise CheckpointError(f"{config.path}: {LIST} is {values!r}, want a list of integers")
    names = [*((LIST, value) for value in values), (NUMBER, config.get(NUMBER))]
    for name, value in names:
        if value is None:
            continue
        if type(value) is not int or not 1 <= value <= dimension:
            raise CheckpointError(
                f"{config.path}: {name} has {value!r}, want integers from 1 to {dimension}"
            )
        yield value
