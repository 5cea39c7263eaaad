"""Tokens without the marks that tokenizers of imported models put into texts."""

import re
from collections.abc import Callable, Sequence

MARKS = re.compile("[\ufdd0-\ufdd2]")
"""Noncharacters that tokenizers of imported models put around runs of unknown characters."""


def without_marks(
    texts: Sequence[str], offsets: Sequence[tuple[int, int]]
) -> tuple[list[str], list[tuple[int, int]]]:
    """Tokens and their offsets. A mark at the beginning has the offsets of the character before."""
    ends = [0, *(end for _, end in offsets)]
    begins = [
        max(start, last_end) if MARKS.match(text) else start
        for text, (start, _), last_end in zip(texts, offsets, ends, strict=False)
    ]
    plain = [MARKS.sub("", text) for text in texts]
    return plain, list(zip(begins, ends[1:], strict=True))


class TokenTexts(dict[int, str]):
    """The tokens that were asked for, as the vocabulary writes them, by id."""

    def __init__(self, id_to_token: Callable[[int], str | None]) -> None:
        super().__init__()
        self._id_to_token = id_to_token

    def __missing__(self, token_id: int) -> str:
        text = self[token_id] = MARKS.sub("", self._id_to_token(token_id) or "")
        return text
