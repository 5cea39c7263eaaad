"""The hypotheses of a beam search, which share their beginnings."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class Beam:
    """A running or finished hypothesis of a beam search: one token more than its ``parent``."""

    parent: "Beam | None" = None
    token: int = -1
    token_log_probability: float = 0.0
    total: float = 0.0
    """Sum of the scores of its tokens: log-probabilities, after a repetition penalty if any."""
    num_tokens: int = 0

    def extended(self, token: int, log_probability: float, score: float) -> "Beam":
        """This beam and one token more."""
        return Beam(self, token, log_probability, self.total + score, self.num_tokens + 1)

    def lineage(self) -> list["Beam"]:
        """The beams of its first token, of its first two, and so on up to itself."""
        beams: list[Beam] = []
        beam = self
        while beam.parent is not None:
            beams.append(beam)
            beam = beam.parent
        return beams[::-1]

    def token_ids(self) -> tuple[int, ...]:
        """All its tokens."""
        return tuple(beam.token for beam in self.lineage())

    def beginning(self, num_tokens: int) -> "Beam":
        """The beam of its first ``num_tokens`` tokens."""
        beam = self
        while beam.num_tokens > num_tokens and beam.parent is not None:
            beam = beam.parent
        return beam

    def num_shared_tokens(self, other: "Beam") -> int:
        """Length of the common prefix of this beam and ``other``, which must be equally long."""
        one: Beam | None = self
        two: Beam | None = other
        while one is not two:
            assert one is not None
            assert two is not None
            one, two = one.parent, two.parent
        return one.num_tokens if one is not None else 0
