"""The options of diverse beam searches and of alternatives: checks and defaults."""

from typing import Protocol

from attendant_server.application.descriptions import ModelDescription
from attendant_server.application.sampling import SamplingOptions
from attendant_server.application.validation import RequestLimits, check_range
from attendant_server.errors import InvalidRequest

DEFAULT_DIVERSITY_PENALTY, MAX_DIVERSITY_PENALTY = 0.5, 100.0


class GroupedSearchOptions(Protocol):
    """The options of one call that decide about its groups; None means the default."""

    @property
    def beam_size(self) -> int | None:
        """Beams of the search, or of each alternative."""

    @property
    def num_hypotheses(self) -> int | None:
        """Number of hypotheses, or of alternatives."""

    @property
    def num_beam_groups(self) -> int | None:
        """Groups of a diverse beam search."""

    @property
    def diversity_penalty(self) -> float | None:
        """Penalty of a token for each beam of an earlier group that has it."""

    @property
    def return_alternatives(self) -> bool:
        """Whether hypotheses begin with different tokens after the prefix."""

    @property
    def sampling(self) -> SamplingOptions | None:
        """How tokens are drawn at random."""


def checked_beam_groups(options: GroupedSearchOptions, beam_size: int) -> int:
    """The number of groups, by default 1; raises InvalidRequest."""
    number = options.num_beam_groups
    if number is None:
        return 1
    if options.return_alternatives and number != 1:
        raise InvalidRequest("options.num_beam_groups", "must be 1 with return_alternatives")
    if not number or beam_size % number:
        problem = f"must divide beam_size, which is {beam_size}, got {number}"
        raise InvalidRequest("options.num_beam_groups", problem)
    return number


def checked_diversity_penalty(options: GroupedSearchOptions, num_beam_groups: int) -> float:
    """The diversity penalty, 0 without groups; raises InvalidRequest."""
    penalty, field = options.diversity_penalty, "options.diversity_penalty"
    if penalty is None:
        return DEFAULT_DIVERSITY_PENALTY if num_beam_groups > 1 else 0.0
    if not 0 <= penalty <= MAX_DIVERSITY_PENALTY:
        raise InvalidRequest(field, f"must be between 0 and {MAX_DIVERSITY_PENALTY:g}")
    if num_beam_groups == 1:
        raise InvalidRequest(field, "needs several num_beam_groups")
    return penalty


def widths_of_alternatives(
    options: GroupedSearchOptions, limits: RequestLimits, model: ModelDescription
) -> tuple[int, int]:
    """The beams of each alternative, and the number of alternatives; raises InvalidRequest."""
    if options.sampling is not None:
        raise InvalidRequest("options.return_alternatives", "is for searches without sampling only")
    number, most = options.num_hypotheses, limits.max_beam_size
    num_alternatives = 1 if number is None else number
    check_range("options.num_hypotheses", num_alternatives, 1, most)
    most //= num_alternatives
    beam_size = options.beam_size
    if beam_size is None:
        return min(model.default_beam_size, most), num_alternatives
    if not 1 <= beam_size <= most:
        problem = f"must be between 1 and {most} with {num_alternatives} alternatives"
        raise InvalidRequest("options.beam_size", f"{problem}, got {beam_size}")
    return beam_size, num_alternatives
