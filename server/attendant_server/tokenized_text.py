"""The tokens of one text: ids, offsets, truncation. Knows no requests and no models."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import NamedTuple

from tokenizers import Encoding

from attendant_server.text_normalization import NormalizedText
from attendant_server.token_marks import without_marks

WORD_START = "\u2581"
"""The mark of a word's beginning, as the only character of a token."""


class Token(NamedTuple):
    """One token of a text; ``start`` and ``end`` (exclusive) are offsets in code points."""

    id: int
    text: str
    start: int
    end: int
    is_special: bool
    """Whether the tokenizer added the token. Such a token stands for no part of the text."""


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """The tokens of a text, possibly truncated."""

    encoding: Encoding
    positions: Sequence[int]
    """Indices of the kept tokens, ascending."""
    before: Sequence[Token] = ()
    """Tokens put before the text, such as that of its language."""
    after: Sequence[Token] = ()
    """Tokens put after the text."""
    after_first: Sequence[Token] = ()
    """Tokens put after the first token of the text, such as the code of its language."""
    normalized: Sequence[NormalizedText | None] = ()
    """The normalized texts, one or a pair; None for a text that normalization did not change. Empty
    without normalization."""
    prompt_length: int = 0
    """Number of first characters that offsets do not count."""

    def between(
        self, before: Sequence[Token], after: Sequence[Token], after_first: Sequence[Token] = ()
    ) -> "TokenizedText":
        """The text with further tokens around it and in it, which are never truncated."""
        return replace(self, before=before, after=after, after_first=after_first)

    def filled(self, filler: Token, length: int) -> "TokenizedText":
        """The text with tokens after it, up to ``length`` tokens."""
        return replace(self, after=(*self.after, *[filler] * (length - len(self))))

    def without_prompt(self, prompt_length: int) -> "TokenizedText":
        """The text with offsets that do not count its first ``prompt_length`` characters.

        Tokens of these characters are special ones.
        """
        return replace(self, prompt_length=prompt_length)

    def keeping(self, rows: Sequence[int]) -> "TokenizedText":
        """A text without further tokens before and after it, with some of its tokens."""
        return replace(self, positions=[self.positions[row] for row in rows])

    @property
    def num_original_tokens(self) -> int:
        """Number of tokens before truncation, including special tokens."""
        return len(self.encoding) + self.num_added

    @property
    def num_added(self) -> int:
        """Number of tokens that were put around the text and into it."""
        return len(self.before) + len(self.after_first) + len(self.after)

    @property
    def token_ids(self) -> list[int]:
        """Ids of the kept tokens."""
        ids = self._ids
        if len(self.positions) != len(ids):
            ids = [ids[i] for i in self.positions]
        if self.num_added:
            before, after_first, after = (
                [token.id for token in added]
                for added in (self.before, self.after_first, self.after)
            )
            return [*before, *ids[:1], *after_first, *ids[1:], *after]
        return ids

    @property
    def first_id(self) -> int:
        """The id of the first token of a text that is not empty."""
        return self._ids[0]

    @property
    def first_end(self) -> int:
        """The end of the first token, in code points."""
        return self._offsets[0][1]

    @property
    def is_empty(self) -> bool:
        """Whether the text has only special tokens."""
        return self.is_empty_after(0)

    def is_empty_after(self, prompt_length: int) -> bool:
        """Whether the text has only special tokens after this number of characters."""
        mask: list[int] = self.encoding.special_tokens_mask
        if not prompt_length:
            if len(self.positions) == len(mask):
                return 0 not in mask
            return all(mask[i] for i in self.positions)
        offsets = self._offsets
        return all(mask[i] or offsets[i][1] <= prompt_length for i in self.positions)

    def __len__(self) -> int:
        return len(self.positions) + self.num_added

    def __iter__(self) -> Iterator[Token]:
        tokens = self._tokens()
        if self.prompt_length:
            tokens = (_after_prompt(token, self.prompt_length) for token in tokens)
        return chain(self.before, islice(tokens, 1), self.after_first, tokens, self.after)

    @property
    def _ids(self) -> list[int]:
        """Ids of all tokens of the text."""
        return self.encoding.ids

    @property
    def _offsets(self) -> Sequence[tuple[int, int]]:
        """The offsets of all tokens in the text as sent."""
        offsets: list[tuple[int, int]] = self.encoding.offsets
        if not any(self.normalized):
            return offsets
        return [
            offset if side is None else _original(self.normalized[side], offset)
            for side, offset in zip(self.encoding.sequence_ids, offsets, strict=True)
        ]

    def _tokens(self) -> Iterator[Token]:
        """The kept tokens of the text."""
        encoding = self.encoding
        ids, texts, offsets = encoding.ids, encoding.tokens, self._offsets
        special = encoding.special_tokens_mask
        if self.normalized and texts[:1] == [WORD_START] and offsets[:1] == offsets[1:2]:
            # The library gives a mark that it put before the text the offsets of the next token.
            offsets = [(offsets[0][0],) * 2, *offsets[1:]]
        return (Token(ids[i], texts[i], *offsets[i], bool(special[i])) for i in self.positions)

    @property
    def first_length(self) -> int:
        """Number of kept tokens of type 0: all but those of the second text of a pair."""
        types = self.encoding.type_ids
        return self.num_added + sum(types[i] == 0 for i in self.positions)

    def has_text(self, number: int) -> bool:
        """Whether text ``number`` of a pair, 0 or 1, has a token among the kept ones."""
        texts = self.encoding.sequence_ids
        return any(texts[i] == number for i in self.positions)

    def cut_pair(self, max_tokens: int, keeps_end: bool) -> "TokenizedText":
        """Drop tokens of the longer text of a pair, and at last of both, until enough are dropped.

        ``keeps_end`` drops tokens at the beginnings of the texts, else at their ends. Special
        tokens are kept. If they alone are too many, the result is longer than ``max_tokens``.
        """
        special, plain = self._split()
        texts = self.encoding.sequence_ids
        sides = [[i for i in plain if texts[i] == number] for number in (0, 1)]
        room = max(0, max_tokens - len(special))
        lengths = _pair_lengths(len(sides[0]), len(sides[1]), room)
        kept = [
            side[len(side) - length :] if keeps_end else side[:length]
            for side, length in zip(sides, lengths, strict=True)
        ]
        return self._keeping(special, kept[0] + kept[1])

    def cut_end(self, max_tokens: int) -> "TokenizedText":
        """Drop tokens at the end until ``max_tokens`` are left; special tokens are kept.

        If they alone are too many, the result is longer than ``max_tokens``.
        """
        special, plain = self._split()
        return self._keeping(special, plain[: max(0, max_tokens - self.num_added - len(special))])

    def cut_beginning(self, max_tokens: int, prompt_length: int = 0) -> "TokenizedText":
        """Drop tokens at the beginning until ``max_tokens`` are left.

        Special tokens are kept, and those that end in the first ``prompt_length`` characters. If
        they alone are too many, the result is longer than ``max_tokens``.
        """
        special, plain = self._split(prompt_length)
        num_kept = max(0, max_tokens - self.num_added - len(special))
        return self._keeping(special, plain[len(plain) - num_kept :])

    def _split(self, prompt_length: int = 0) -> tuple[list[int], list[int]]:
        mask: Sequence[int] = self.encoding.special_tokens_mask
        if prompt_length:
            offsets = self._offsets
            mask = [m or end <= prompt_length for m, (_, end) in zip(mask, offsets, strict=True)]
        return [i for i, m in enumerate(mask) if m], [i for i, m in enumerate(mask) if not m]

    def _keeping(self, special: list[int], plain: list[int]) -> "TokenizedText":
        return replace(self, positions=sorted(special + plain))


def _original(text: NormalizedText | None, offset: tuple[int, int]) -> tuple[int, int]:
    return offset if text is None else text.original(*offset)


def _after_prompt(token: Token, length: int) -> Token:
    if token.end <= length:
        return token._replace(start=0, end=0, is_special=True)
    return token._replace(start=max(0, token.start - length), end=token.end - length)


def _pair_lengths(first: int, second: int, room: int) -> tuple[int, int]:
    """The lengths of two texts within ``room``: the longer one is cut, then both equally.

    An odd token goes to the longer text, and to the second one of equally long texts.
    """
    shorter = min(first, second)
    shorter, longer = (
        (shorter, room - shorter) if 2 * shorter <= room else (room // 2, room - room // 2)
    )
    return (longer, shorter) if first > second else (shorter, longer)


@dataclass(frozen=True, slots=True)
class ConvertedText(TokenizedText):
    """The tokens of a text by a tokenizer of an imported model, whose tokens may have marks."""

    ids: list[int] = field(default_factory=list)
    """Ids of all tokens, as the model knows them."""

    @property
    def _ids(self) -> list[int]:
        return self.ids

    def _tokens(self) -> Iterator[Token]:
        encoding = self.encoding
        texts, offsets = without_marks(encoding.tokens, self._offsets)
        ids, special = self.ids, encoding.special_tokens_mask
        return (Token(ids[i], texts[i], *offsets[i], bool(special[i])) for i in self.positions)
