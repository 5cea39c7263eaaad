"""Progress bars on a terminal."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(items: Sequence[T], description: str) -> Iterable[T]:
    """``items``, with a bar on stderr while they are consumed, if stderr is a terminal."""
    return tqdm(items, desc=description, disable=None, leave=False)
