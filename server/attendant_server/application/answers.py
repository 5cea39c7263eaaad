"""The common fields of all answers of models."""

from dataclasses import dataclass

from attendant_server.records import Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer to a call that ran a model."""

    model: str
    """The model that answered, as ``name/version``."""
    num_input_tokens: int
    """Tokens that the model read."""
    phases: tuple[Phase, ...]
    """The phases of the call so far, with their times."""
    size: int
    """Approximate number of tokens and candidates in the answer. Front doors pass it to
    `JobRunner.run_for` to serialize the answer."""
