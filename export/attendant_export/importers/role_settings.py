"""What a model of late interaction states about its queries and documents."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RoleSettings:
    """The settings that change vectors."""

    markers: Mapping[str, str]
    """What is put before a query and before a document, by the names of prompts."""
    max_tokens: int
    """Limit of tokens of a document, special tokens and marker included."""
    max_query_tokens: int
    """The same of a query."""
    expands_queries: bool
    """Whether mask tokens are put after queries up to their limit."""
    attends_to_expansion: bool
    skipped_token_ids: Iterable[int | None]
    """Ids of tokens whose vectors are left out of documents; None for a token that there is not."""
    default_prompt: str = ""
    """Name of the prompt of texts without a role. Empty for no prompt."""
