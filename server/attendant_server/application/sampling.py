"""The options of sampling: checks, defaults, and the seed of each search."""

import secrets
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from attendant_server.application.validation import check_range
from attendant_server.engine.calls import Sampling
from attendant_server.engine.sampling import MAX_TOP_K
from attendant_server.errors import InvalidRequest

DEFAULT_TOP_K = 50
MAX_TEMPERATURE = 100.0


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """The options of one call; None means the default."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int | None = None
    first_index: int = 0
    """Index of the call's first text, for calls that are parts of a larger one."""


def checked_sampling(options: SamplingOptions) -> Sampling:
    """The options with all defaults filled in; raises InvalidRequest."""
    temperature = 1.0 if options.temperature is None else options.temperature
    # The threads of the engine take subnormal numbers for 0, and could not divide by them.
    if not sys.float_info.min <= temperature <= MAX_TEMPERATURE:
        raise _invalid("temperature", f"must be more than 0 and at most {MAX_TEMPERATURE:g}")
    top_k = DEFAULT_TOP_K if options.top_k is None else options.top_k
    check_range("options.sampling.top_k", top_k, 1, MAX_TOP_K)
    top_p = 1.0 if options.top_p is None else options.top_p
    if not 0 < top_p <= 1:
        raise _invalid("top_p", "must be more than 0 and at most 1")
    min_p = 0.0 if options.min_p is None else options.min_p
    if not 0 <= min_p <= 1:
        raise _invalid("min_p", "must be between 0 and 1")
    return Sampling(temperature, top_k, top_p, min_p)


def chosen_seed(options: SamplingOptions | None) -> int | None:
    """The seed of a call, which is a random one unless the call has one; None without sampling."""
    if options is None:
        return None
    return secrets.randbits(32) if options.seed is None else options.seed


def places_of(options: SamplingOptions | None, num_texts: int) -> Sequence[str]:
    """The places of a call's texts, for their seeds; none without sampling."""
    first = None if options is None else options.first_index
    return [] if first is None else [str(first + i) for i in range(num_texts)]


def seeds_of(
    seed: int | None,
    places: Sequence[str],
    num_pieces: Iterable[int],
    num_samples: int,
) -> Iterator[str]:
    """The seed of each sample of each piece of the texts; none without sampling.

    ``num_pieces`` are those of each text, 0 for a text with a fault. A seed depends on the places
    of the text, of the piece and of the sample only, so that samples are independent of each other,
    and a sample is the same however many there are.
    """
    if seed is None:
        return
    for place, number in zip(places, num_pieces, strict=True):
        for piece in range(number):
            for sample in range(num_samples):
                yield f"{seed}/{place}/{piece}/{sample}"


def _invalid(name: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"options.sampling.{name}", problem)
