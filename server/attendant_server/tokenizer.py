"""Tokenizers: texts to token ids with offsets, and token ids back to text.

The only user of the ``tokenizers`` library. Special tokens in a user's text are read as plain text.
Knows no requests and no models.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import NamedTuple

from tokenizers import Encoding, Tokenizer

from attendant_server.streamed_text import complete_words, only_appends
from attendant_server.token_marks import MARKS, TokenTexts, without_marks
from attendant_server.tokenizer_rules import tokenizer_problem

_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")


class TokenizerError(Exception):
    """A tokenizer file is bad, or the library failed on a text."""


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

    def between(self, before: Sequence[Token], after: Sequence[Token]) -> "TokenizedText":
        """The text with further tokens before and after it, which are never truncated."""
        return replace(self, before=before, after=after)

    @property
    def num_original_tokens(self) -> int:
        """Number of tokens before truncation, including special tokens."""
        return len(self.encoding) + self.num_added

    @property
    def num_added(self) -> int:
        """Number of tokens before and after the text."""
        return len(self.before) + len(self.after)

    @property
    def token_ids(self) -> list[int]:
        """Ids of the kept tokens."""
        ids = self._ids
        if len(self.positions) != len(ids):
            ids = [ids[i] for i in self.positions]
        if self.num_added:
            return [*(token.id for token in self.before), *ids, *(token.id for token in self.after)]
        return ids

    @property
    def first_id(self) -> int:
        """The id of the first token of a text that is not empty."""
        return self._ids[0]

    @property
    def first_end(self) -> int:
        """The end of the first token, in code points."""
        end: int = self.encoding.offsets[0][1]
        return end

    @property
    def is_empty(self) -> bool:
        """Whether the text has only special tokens."""
        return self.is_empty_after(0)

    def is_empty_after(self, prompt_length: int) -> bool:
        """Whether the text has only special tokens after this number of characters."""
        mask = self.encoding.special_tokens_mask
        if not prompt_length:
            return all(mask[i] for i in self.positions)
        offsets = self.encoding.offsets
        return all(mask[i] or offsets[i][1] <= prompt_length for i in self.positions)

    def __len__(self) -> int:
        return len(self.positions) + self.num_added

    def __iter__(self) -> Iterator[Token]:
        return chain(self.before, self._tokens(), self.after)

    @property
    def _ids(self) -> list[int]:
        """Ids of all tokens of the text."""
        return self.encoding.ids

    def _tokens(self) -> Iterator[Token]:
        """The kept tokens of the text."""
        encoding = self.encoding
        ids, texts, offsets = encoding.ids, encoding.tokens, encoding.offsets
        special = encoding.special_tokens_mask
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
            offsets = self.encoding.offsets
            mask = [m or end <= prompt_length for m, (_, end) in zip(mask, offsets, strict=True)]
        return [i for i, m in enumerate(mask) if m], [i for i, m in enumerate(mask) if not m]

    def _keeping(self, special: list[int], plain: list[int]) -> "TokenizedText":
        return replace(self, positions=sorted(special + plain))


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
class _ConvertedText(TokenizedText):
    """The tokens of a text by a tokenizer of an imported model, whose tokens may have marks."""

    ids: list[int] = field(default_factory=list)
    """Ids of all tokens, as the model knows them."""

    @property
    def _ids(self) -> list[int]:
        return self.ids

    def _tokens(self) -> Iterator[Token]:
        encoding = self.encoding
        texts, offsets = without_marks(encoding.tokens, encoding.offsets)
        ids, special = self.ids, encoding.special_tokens_mask
        return (Token(ids[i], texts[i], *offsets[i], bool(special[i])) for i in self.positions)


class TextTokenizer:
    """One tokenizer of a bundle. Safe to use from several threads."""

    def __init__(
        self,
        definition: str,
        mask_id: int | None = None,
        vocab_size: int | None = None,
        unk_id: int | None = None,
    ) -> None:
        """``definition`` is the content of tokenizer.json; raises TokenizerError.

        With ``mask_id``, this token is recognized in texts; other special tokens are not. Ids from
        ``vocab_size`` on, which the model does not have, become ``unk_id``.
        """
        try:
            content = json.loads(definition)
            for token in content.get("added_tokens", ()):
                if token["id"] == mask_id:
                    # The library reads special tokens as plain text (see below), others as tokens.
                    token["special"] = False
            definition = json.dumps(content, ensure_ascii=False)
            self._tokenizer = Tokenizer.from_str(definition)
            self._tokenizer.no_padding()
            self._tokenizer.no_truncation()
            self._tokenizer.encode_special_tokens = True
            self._only_appends = only_appends(content.get("decoder"))
            added = content.get("added_tokens", ())
            self._special_ids = frozenset(token["id"] for token in added if token["special"])
            prefix = content["model"].get("continuing_subword_prefix")
            vocabulary = self._tokenizer.get_vocab()
            problem = tokenizer_problem(content, list(vocabulary))
        except BaseException as error:
            raise _translated(error) from error
        num_tokens = max(vocabulary.values(), default=-1) + 1
        if vocab_size is not None and unk_id is None and num_tokens > vocab_size:
            problem = f"has the token id {num_tokens - 1}, but the network has {vocab_size} tokens"
        if problem:
            raise TokenizerError(problem)
        self._vocab_size = num_tokens if vocab_size is None or unk_id is None else vocab_size
        self._unk_id = unk_id or 0
        self._is_converted = bool(MARKS.search(definition)) or num_tokens > self._vocab_size
        self._continuation_mark: str = prefix or ""
        self._token_texts = TokenTexts(self._tokenizer.id_to_token)

    def encode(self, text: str, pair: str | None = None) -> TokenizedText:
        """Tokenize a text, or a pair of texts, and add special tokens; raises TokenizerError."""
        try:
            return self._tokenized(self._tokenizer.encode(text, pair))
        except BaseException as error:
            raise _translated(error) from error

    def encode_all(
        self, texts: Sequence[str | tuple[str, str]]
    ) -> list[TokenizedText | TokenizerError]:
        """Tokenize texts or pairs like `encode`; a text that fails has its error instead.

        Other threads run meanwhile: unlike for one text, the library releases the interpreter lock.
        """
        try:
            return list(map(self._tokenized, self._tokenizer.encode_batch(texts)))
        except BaseException as error:
            if not isinstance(translated := _translated(error), TokenizerError):
                raise translated from error
        return [self.encode_or_error(text) for text in texts]

    def encode_or_error(self, text: str | tuple[str, str]) -> TokenizedText | TokenizerError:
        """Tokenize a text or a pair like `encode`; returns the error of a text that fails."""
        try:
            return self.encode(text) if isinstance(text, str) else self.encode(*text)
        except TokenizerError as error:
            return error

    def _tokenized(self, encoding: Encoding) -> TokenizedText:
        positions = range(len(encoding))
        if not self._is_converted:
            return TokenizedText(encoding, positions)
        ids = [i if i < self._vocab_size else self._unk_id for i in encoding.ids]
        return _ConvertedText(encoding, positions, ids=ids)

    def is_plain(self, token_id: int) -> bool:
        """Whether the vocabulary has this token and it is not special."""
        return token_id not in self._special_ids and bool(self._token_texts[token_id])

    def decode(self, token_ids: Sequence[int]) -> str:
        """The decoded text of the tokens; special tokens are skipped."""
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def decode_words(self, token_ids: Sequence[int]) -> str:
        """The complete words of a text whose first tokens are ``token_ids``.

        Later tokens cannot change these words: the decoded whole text begins with them.
        """
        if not self._only_appends:
            return ""
        known = len(token_ids)
        while known and self._is_open(token_ids[known - 1]):
            known -= 1
        # At the end, U+FFFD stands for bytes whose character is not complete yet.
        return complete_words(self.decode(token_ids[:known]).rstrip("\ufffd"))

    def _is_open(self, token_id: int) -> bool:
        """Whether a later token may change the decoded text of bytes up to this token."""
        text = self._token_texts[token_id]
        return token_id in self._special_ids or bool(_BYTE_TOKEN.fullmatch(text))

    def special_tokens(self, token_ids: Iterable[int]) -> tuple[Token, ...]:
        """Special tokens that are not in a text, with empty offsets."""
        return tuple(Token(i, self._token_texts[i], 0, 0, True) for i in token_ids)

    def tokens(self, token_ids: Iterable[int]) -> list[str]:
        """The tokens as the vocabulary writes them; empty for ids that the vocabulary lacks."""
        return list(map(self._token_texts.__getitem__, token_ids))

    def readable_token(self, token_id: int) -> str:
        """The token without markers of word boundaries."""
        text = str(self._tokenizer.decode([token_id], skip_special_tokens=False))
        text = text.removeprefix(self._continuation_mark)
        # A byte-level tokenizer marks the beginning of a word with a space.
        return text.removeprefix(" ") or text


def _translated(error: BaseException) -> BaseException:
    """An error of the library, or a panic of its Rust code, as a TokenizerError.

    Panics have a class that derives from BaseException and cannot be imported.
    """
    if isinstance(error, Exception) or type(error).__name__ == "PanicException":
        words = str(error).strip()
        return TokenizerError(f"{type(error).__name__}: {words}" if words else type(error).__name__)
    return error
