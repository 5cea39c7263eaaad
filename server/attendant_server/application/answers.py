"""The fields that the answers of all calls to a model have in common."""

from dataclasses import dataclass

from attendant_server.records import Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer to a call that a model has run for."""

    model: str
    """The model that answered, as ``name/version``."""
    num_input_tokens: int
    """Tokens that the model read."""
    phases: tuple[Phase, ...]
    """Where the time of the call went so far."""
    size: int
    """About how many tokens and candidates the answer holds. Doors give it to `JobRunner.run_for`
    when they serialize the answer."""
