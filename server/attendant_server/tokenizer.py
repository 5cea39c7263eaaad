"""Tokenizers: texts to token ids with offsets, and token ids back to text.

The only user of the ``tokenizers`` library. Special tokens in a user's text are read as plain text,
unless a tokenizer is made to read them.
Knows no requests and no models.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

from tokenizers import Encoding, Tokenizer

from attendant_server.streamed_text import complete_words, marks_word_ends, only_appends
from attendant_server.text_normalization import NormalizedText, TextNormalizer
from attendant_server.token_marks import MARKS, TokenTexts
from attendant_server.tokenized_text import ConvertedText, Token, TokenizedText
from attendant_server.tokenizer_rules import TRIED_TEXT, encoding_problem, tokenizer_problem

MAX_REASON_CHARACTERS = 300
_CONTINUATION = re.compile(r"\w|['\u2019]\w?")
"""Text with which a word goes on, see `word_spans`."""
_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")


class TokenizerError(Exception):
    """A tokenizer file is bad, or the library failed on a text."""


class SettledText(NamedTuple):
    """The beginning of a text that further tokens do not change."""

    text: str
    num_tokens: int
    """Number of its tokens, if a character ends with the last of them; otherwise 0."""


class _Input(NamedTuple):
    """A text or a pair for the library."""

    texts: tuple[str, ...]
    normalized: Sequence[NormalizedText | None] = ()
    """The normalized texts, None where nothing changed; empty without normalization."""


class TextTokenizer:
    """One tokenizer of a bundle. Safe to use from several threads."""

    def __init__(
        self,
        definition: str,
        mask_id: int | None = None,
        vocab_size: int | None = None,
        unk_id: int | None = None,
        normalizes: bool = False,
        reads_special_tokens: bool = False,
    ) -> None:
        """``definition`` is the content of tokenizer.json; raises TokenizerError.

        With ``mask_id``, this token is recognized in texts; other special tokens are not, except
        with ``reads_special_tokens``. Ids from
        ``vocab_size`` on, which the model does not have, become ``unk_id``. ``normalizes``: whether
        texts are normalized unless a caller says otherwise.
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
            self._tokenizer.encode_special_tokens = not reads_special_tokens
            self._only_appends = only_appends(content.get("decoder"))
            self.marks_word_ends = marks_word_ends(content.get("decoder"))
            """Whether tokens that end words are marked, instead of those that begin or go on."""
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
        self.vocab_size = num_tokens if vocab_size is None or unk_id is None else vocab_size
        """Number of tokens that both the tokenizer and the model have."""
        self.unk_id = unk_id
        """The token that stands for text that the vocabulary lacks, if there is one."""
        self.normalizes = normalizes
        """Whether texts are normalized unless a caller says otherwise."""
        self._normalizer = TextNormalizer(self._is_known)
        self._is_converted = bool(MARKS.search(definition)) or num_tokens > self.vocab_size
        self._continuation_mark: str = prefix or ""
        self._token_texts = TokenTexts(self._tokenizer.id_to_token)
        for pair in (None, TRIED_TEXT):  # some faults show in use only
            tokens = self.encode(TRIED_TEXT, pair, normalizes=False)
            self.decode(tokens.token_ids)
            if problem := encoding_problem(tokens.encoding, tokens.token_ids, vocab_size):
                raise TokenizerError(problem)

    def encode(
        self, text: str, pair: str | None = None, normalizes: bool | None = None
    ) -> TokenizedText:
        """Tokenize a text, or a pair of texts, and add special tokens; raises TokenizerError.

        ``normalizes``: whether to normalize them first; by default that of the tokenizer.
        """
        source = self._input((text,) if pair is None else (text, pair), normalizes)
        return self._tokenized(self._encode(*source.texts), source)

    def plain_ids(self, text: str, normalizes: bool | None = None) -> tuple[int, ...]:
        """The ids of the tokens of a text, without special tokens; otherwise like `encode`."""
        tokens = self.encode(text, normalizes=normalizes)
        return tuple(token.id for token in tokens if not token.is_special)

    def encode_all(
        self, texts: Sequence[str | tuple[str, str]], normalizes: bool | None = None
    ) -> list[TokenizedText | TokenizerError]:
        """Tokenize texts or pairs like `encode`; a text that fails has its error instead.

        Other threads run meanwhile: unlike for one text, the library releases the interpreter lock.
        """
        normalized = [
            self._input((text,) if isinstance(text, str) else text, normalizes) for text in texts
        ]
        inputs = [each.texts if len(each.texts) > 1 else each.texts[0] for each in normalized]
        try:
            encodings = self._tokenizer.encode_batch(inputs)
        except BaseException as error:
            if not isinstance(translated := _translated(error), TokenizerError):
                raise translated from error
            return [self.encode_or_error(text, normalizes) for text in texts]
        return list(map(self._tokenized, encodings, normalized))

    def encode_or_error(
        self, text: str | tuple[str, str], normalizes: bool | None = None
    ) -> TokenizedText | TokenizerError:
        """Tokenize a text or a pair like `encode`; returns the error of a text that fails."""
        first, second = (text, None) if isinstance(text, str) else text
        try:
            return self.encode(first, second, normalizes)
        except TokenizerError as error:
            return error

    def can_read(self, text: str) -> bool:
        """Whether the vocabulary has all characters of a normalized text."""
        return self._normalizer.can_read(text)

    def num_unknown(self, token_ids: Sequence[int]) -> int:
        """Number of tokens that stand for text that the vocabulary lacks."""
        return 0 if self.unk_id is None else token_ids.count(self.unk_id)

    def _input(self, sides: tuple[str, ...], normalizes: bool | None) -> _Input:
        """A text or a pair, normalized if it has to be."""
        if not (self.normalizes if normalizes is None else normalizes):
            return _Input(sides)
        new = tuple(map(self._normalizer.normalize, sides))
        if not any(new):
            return _Input(sides, new)
        kept = zip(sides, new, strict=True)
        return _Input(tuple(old if n is None else n.text for old, n in kept), new)

    def _tokenized(self, encoding: Encoding, source: _Input) -> TokenizedText:
        positions = range(len(encoding))
        if not self._is_converted:
            return TokenizedText(encoding, positions, normalized=source.normalized)
        ids = [i if i < self.vocab_size else self.unk_id or 0 for i in encoding.ids]
        return ConvertedText(encoding, positions, normalized=source.normalized, ids=ids)

    def _encode(self, text: str, pair: str | None = None) -> Encoding:
        try:
            return self._tokenizer.encode(text, pair)
        except BaseException as error:
            raise _translated(error) from error

    def _is_known(self, character: str) -> bool:
        return not self.num_unknown(self._encode(character).ids)

    def tokens_of(self, text: str) -> Sequence[int]:
        """The tokens, except special ones, that write exactly this text; its case counts.

        The first call takes a few microseconds for each token of the vocabulary.
        """
        return self._tokens_by_text.get(text, ())

    @cached_property
    def _tokens_by_text(self) -> Mapping[str, Sequence[int]]:
        found: dict[str, list[int]] = {}
        for token_id in filter(self.is_plain, range(self.vocab_size)):
            found.setdefault(self.readable_token(token_id), []).append(token_id)
        # Neither marks alone nor parts of a character write a text.
        return {text: ids for text, ids in found.items() if text and "\ufffd" not in text}

    @cached_property
    def word_continuations(self) -> tuple[int, ...]:
        """The tokens that would continue a word which the tokens before them have ended.

        The first use takes a few microseconds for each token of the vocabulary.
        """
        plain = list(filter(self.is_plain, range(self.vocab_size)))
        word = next((i for i in plain if self.readable_token(i).isalpha()), None)
        if word is None:
            return ()
        before = self.decode([word])
        following = ((i, self.decode([word, i])) for i in plain)
        return tuple(
            i
            for i, text in following
            if text.startswith(before) and _CONTINUATION.match(text, len(before))
        )

    def is_plain(self, token_id: int) -> bool:
        """Whether the vocabulary has this token and it is not special."""
        return token_id not in self._special_ids and bool(self._token_texts[token_id])

    def decode(self, token_ids: Sequence[int]) -> str:
        """The decoded text of the tokens; special tokens are skipped. Raises TokenizerError."""
        return self._decoded(token_ids, skip_special_tokens=True)

    def decode_all(self, token_ids: Sequence[int], skips_special: bool) -> str:
        """Like `decode`, but with special tokens unless they are skipped."""
        return self._decoded(token_ids, skips_special)

    def decode_with_unknown(self, token_ids: Sequence[int]) -> str:
        """Like `decode`, but with unknown tokens as the vocabulary writes them."""
        kept = [i for i in token_ids if i == self.unk_id or i not in self._special_ids]
        return self._decoded(kept, skip_special_tokens=False)

    def decode_words(self, token_ids: Sequence[int]) -> str:
        """The complete words of a text whose first tokens are ``token_ids``.

        Later tokens cannot change them: the whole text begins with them. Raises TokenizerError.
        """
        return complete_words(self.decode_settled(token_ids).text)

    def decode_settled(self, token_ids: Sequence[int]) -> SettledText:
        """Like `decode_words`, but up to the last complete character."""
        if not self._only_appends:
            return SettledText("", 0)
        known = len(token_ids)
        while known and self._is_open(token_ids[known - 1]):
            known -= 1
        # At the end, U+FFFD stands for bytes whose character is not complete yet.
        text = (whole := self.decode(token_ids[:known])).rstrip("\ufffd")
        return SettledText(text, known if text == whole else 0)

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
        """The token without markers of word boundaries; raises TokenizerError."""
        text = self._decoded([token_id], skip_special_tokens=False)
        text = text.removeprefix(self._continuation_mark)
        # A byte-level tokenizer marks the beginning of a word with a space.
        return text.removeprefix(" ") or text

    def _decoded(self, token_ids: Sequence[int], skip_special_tokens: bool) -> str:
        try:
            return str(self._tokenizer.decode(list(token_ids), skip_special_tokens))
        except BaseException as error:
            raise _translated(error) from error


def _translated(error: BaseException) -> BaseException:
    """An error of the library, or a panic of its Rust code, as a TokenizerError.

    Panics have a class that derives from BaseException and cannot be imported.
    """
    if isinstance(error, Exception) or type(error).__name__ == "PanicException":
        # The message may repeat parts of the file, with line breaks and of any length.
        words = " ".join(str(error).split())[:MAX_REASON_CHARACTERS]
        return TokenizerError(f"{type(error).__name__}: {words}" if words else type(error).__name__)
    return error
