"""Roles of texts in a search by late interaction: the marker, the limit and the expansion of each.

Vectors of texts with a role are those that the package of the model gives.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from attendant_server.application.descriptions import LateInteraction, ModelDescription
from attendant_server.application.tokenization_options import TokenizationOptions
from attendant_server.application.validation import known_value
from attendant_server.errors import ModelWithoutHead
from attendant_server.tokenized_text import TokenizedText


class TextRole(IntEnum):
    """The role of a text; numbered as in the contract."""

    QUERY = 1
    DOCUMENT = 2

    @property
    def prompt_name(self) -> str:
        """The name of the prompt that marks texts of this role."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class RoleOfTexts:
    """The role of a call's texts for one model."""

    role: TextRole
    marker: str
    """Put before every text."""
    part: LateInteraction

    def tokenization(
        self, options: TokenizationOptions, mask_id: int | None
    ) -> TokenizationOptions:
        """``options`` with the limit and the expansion of the role.

        ``mask_id`` is the token that expands queries.
        """
        options = replace(options, prompt_length=len(self.marker))
        if self.role is TextRole.DOCUMENT:
            return options
        filler = None
        if self.part.expands_queries and mask_id is not None:
            (filler,) = options.tokenizer.special_tokens([mask_id])
        return replace(options, max_tokens=self.part.max_query_tokens, filler=filler)

    def attended_lengths(self, texts: Sequence[TokenizedText]) -> list[int]:
        """The numbers of tokens of ``texts`` that are attended to; empty if all are."""
        if self.role is TextRole.DOCUMENT or not self.part.has_unattended_tokens:
            return []
        return [len(text) - len(text.after) for text in texts]

    def kept(self, text: TokenizedText) -> tuple[TokenizedText, Sequence[int] | slice]:
        """The tokens of a text, without those that documents skip, and their rows in the text."""
        text = text.without_prompt(len(self.marker))
        if self.role is TextRole.QUERY or not self.part.skipped_token_ids:
            return text, slice(None)
        skipped = self.part.skipped_token_ids
        rows = [row for row, token_id in enumerate(text.token_ids) if token_id not in skipped]
        return text.keeping(rows), rows


def role_of_texts(requested: int, model: ModelDescription) -> RoleOfTexts | None:
    """The requested role, None for 0; raises InvalidRequest for an unknown one.

    Raises ModelWithoutHead for a model without roles.
    """
    if not requested:
        return None
    role = known_value("role", requested, TextRole.QUERY)
    if model.late_interaction is None:
        raise ModelWithoutHead(f"{model.key} has no roles of texts: role must be left out")
    return RoleOfTexts(role, model.prompts.get(role.prompt_name, ""), model.late_interaction)
