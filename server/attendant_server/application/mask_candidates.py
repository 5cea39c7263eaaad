"""Candidates that a caller gives for masks: the token that each of them is in its place."""

from collections.abc import Sequence
from typing import NamedTuple

from attendant_server.application.splitting import Span
from attendant_server.errors import InvalidRequest
from attendant_server.tokenized_text import TokenizedText
from attendant_server.tokenizer import TextTokenizer, TokenizerError

MAX_CONTEXT_CHARACTERS = 32
"""Characters before and after a mask, up to white space, with which candidates are tokenized."""


class GivenCandidates(NamedTuple):
    """The candidates for one mask."""

    texts: Sequence[str]
    token_ids: Sequence[int]


class CandidateReader(NamedTuple):
    """Finds the tokens of candidates."""

    tokenizer: TextTokenizer
    normalizes: bool
    mask_id: int
    max_candidates: int
    """Maximum number of candidates for one mask."""

    def read(
        self, number: int, text: str, masks: Sequence[Span], given: Sequence[Sequence[str]]
    ) -> list[GivenCandidates]:
        """The candidates for each of the masks of text ``number``; raises InvalidRequest.

        ``given`` has those of each mask, or one entry for all masks.
        """
        field = f"candidates[{number}]"
        if len(given) not in (1, len(masks)):
            problem = f"needs 1 entry, or one for each of {len(masks)} masks, got {len(given)}"
            raise InvalidRequest(f"{field}.masks", problem)
        entries = range(len(given)) if len(given) > 1 else [0] * len(masks)
        return [
            GivenCandidates(
                given[i], self._token_ids(f"{field}.masks[{i}].texts", text, m, given[i])
            )
            for m, i in zip(masks, entries, strict=True)
        ]

    def _token_ids(self, field: str, text: str, mask: Span, texts: Sequence[str]) -> list[int]:
        if not 1 <= len(texts) <= self.max_candidates:
            problem = f"must be between 1 and {self.max_candidates} texts, got {len(texts)}"
            raise InvalidRequest(field, problem)
        before, after = _context(text, mask)
        in_place = [before + candidate + after for candidate in texts]
        read = self.tokenizer.encode_all([*in_place, *texts], self.normalizes)
        found = []
        for i, candidate in enumerate(texts):
            span = len(before), len(before) + len(candidate)
            token_id = self._only_token(read[i], span)
            if token_id is None:  # for example since it forms a word with the text around it
                token_id = self._only_token(read[len(texts) + i], (0, len(candidate)))
            if token_id is None or not candidate.strip():
                raise InvalidRequest(f"{field}[{i}]", "must be a single token of the vocabulary")
            found.append(token_id)
        return found

    def _only_token(self, read: TokenizedText | TokenizerError, span: Span) -> int | None:
        """The token that is all of a part of a text; None if there is no such token."""
        if isinstance(read, TokenizerError):
            return None
        within = [t for t in read if t.start < span[1] and span[0] < t.end and not t.is_special]
        if len(within) != 1:
            return None
        (token,) = within
        is_unknown = self.tokenizer.num_unknown([token.id]) or token.id == self.mask_id
        # Some tokenizers count the white space before a word as a part of it.
        return None if is_unknown or token.start < span[0] - 1 or token.end > span[1] else token.id


def _context(text: str, mask: Span) -> tuple[str, str]:
    """The text before a mask from the last white space on, and after it up to the next one."""
    start, end = mask
    before = text[max(0, start - MAX_CONTEXT_CHARACTERS) : start]
    after = text[end : end + MAX_CONTEXT_CHARACTERS]
    head = next((i for i in reversed(range(len(before))) if before[i].isspace()), 0)
    tail = next((i for i in range(len(after)) if after[i].isspace()), len(after))
    return before[head:], after[:tail]


def best_first(
    given: GivenCandidates, probabilities: Sequence[float], top_k: int
) -> list[tuple[int, str, float]]:
    """The token id, text and probability of the likeliest candidates; equal ones in their order.

    ``probabilities`` may have padding at the end.
    """
    candidates = zip(given.token_ids, given.texts, probabilities, strict=False)
    return sorted(candidates, key=lambda candidate: -candidate[2])[:top_k]
