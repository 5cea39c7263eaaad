"""The pieces of a streamed text: each is a prefix of the rest, and is sent as early as possible."""

import json
import random
from typing import Any

import pytest
from attendant_server.streamed_text import complete_words, only_appends
from attendant_server.tokenizer import TextTokenizer
from tokenizers import Regex, Tokenizer, decoders, models

SPACE = decoders.Replace("▁", " ")
TOKENS = (
    *("<unk>", "<pad>", "<0xC3>", "<0xA9>", "<0xE4>", "<0xBD>", "<0xA0>", "<0xFF>"),
    *("▁", "▁a", "b</w>", "##c", "d", "▁▁", ".", "▁.", "|", "e |", "'s", "▁n't", "'", "s"),
    *("Ã", "©", "ä", "½", "ł", "Ġ", "Ġf", "你", "好", "。", "か", "\u3099", "เ", "ก", "\u0e33"),
    *("👩", "\u200d", "👧", "\ufe0f", "\ufffd", " ", "\n"),
)
DECODERS: dict[str, tuple[Any, bool]] = {
    "none": (None, True),
    "metaspace": (decoders.Metaspace(), True),
    "metaspace without prefix": (decoders.Metaspace(prepend_scheme="never"), True),
    "word pieces": (decoders.WordPiece("##", cleanup=True), True),
    "suffixes": (decoders.BPEDecoder("</w>"), True),
    "bytes": (decoders.ByteLevel(), True),
    "time steps": (decoders.CTC("<pad>", "|", cleanup=True), True),
    "byte tokens": (decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()]), True),
    "Llama's": (
        decoders.Sequence(
            [SPACE, decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        ),
        True,
    ),
    "spaces after joining": (decoders.Sequence([decoders.Fuse(), SPACE]), True),
    "patterns in tokens": (decoders.Replace(Regex("▁+"), " "), True),
    "sequences in sequences": (
        decoders.Sequence([decoders.Sequence([SPACE, decoders.Fuse()]), decoders.Fuse()]),
        True,
    ),
    "punctuation after joining": (
        decoders.Sequence([SPACE, decoders.Fuse(), decoders.Replace(" .", ".")]),
        False,
    ),
    "patterns after joining": (
        decoders.Sequence([SPACE, decoders.Fuse(), decoders.Replace(Regex(" +"), " ")]),
        False,
    ),
    "bytes after joining": (decoders.Sequence([decoders.Fuse(), decoders.ByteLevel()]), False),
    "byte tokens after joining": (
        decoders.Sequence([decoders.Fuse(), decoders.ByteFallback()]),
        False,
    ),
    "texts after suffixes": (
        decoders.Sequence([decoders.BPEDecoder("</w>"), decoders.Replace("b ", "x")]),
        False,
    ),
}


def tokenizer_with(decoder: Any, tokens: tuple[str, ...] = TOKENS) -> TextTokenizer:
    """A tokenizer with the given decoder. ``<unk>`` and ``<pad>`` are special."""
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.add_special_tokens(["<unk>", "<pad>"])
    if decoder is not None:
        tokenizer.decoder = decoder
    return TextTokenizer(tokenizer.to_str())


@pytest.mark.parametrize("name", DECODERS)
def test_what_is_sent_always_begins_the_whole_text_whatever_tokens_follow(name: str):
    decoder, _ = DECODERS[name]
    tokenizer = tokenizer_with(decoder)
    rng = random.Random(name)
    for _ in range(300):
        ids = [rng.randrange(len(TOKENS)) for _ in range(12)]
        sent = ""
        for num_tokens in range(len(ids) + 1):
            words = tokenizer.decode_words(ids[:num_tokens])
            assert words.startswith(sent)
            sent = words
            assert tokenizer.decode(ids).startswith(words)


@pytest.mark.parametrize("name", DECODERS)
def test_decoders_that_only_append_are_known(name: str):
    decoder, expected = DECODERS[name]
    definition = None if decoder is None else json.loads(decoder.__getstate__())
    assert only_appends(definition) is expected


def test_a_decoder_that_is_not_known_is_not_trusted():
    assert not only_appends({"type": "Strip", "content": " ", "start": 0, "stop": 1})
    assert not only_appends({"type": "Oracle"})
    assert not only_appends({})
    assert not only_appends({"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "New"}]})


@pytest.mark.parametrize("name", DECODERS)
def test_words_are_sent_before_the_end_where_earlier_text_stays(name: str):
    decoder, is_streamed = DECODERS[name]
    tokenizer = tokenizer_with(decoder)
    ids = [TOKENS.index(token) for token in ("你", "好", "。", "你", "好")]
    if name == "bytes":  # its vocabulary has one character per byte
        ids = [TOKENS.index(token) for token in ("d", "Ġf", "Ġf", "Ġf")]
    assert bool(tokenizer.decode_words(ids)) is is_streamed


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ""),
        ("Hund", ""),
        ("Der Hund", "Der"),
        ("Der Hund ", "Der Hund"),
        ("Der\nHund", "Der"),
        ("Bonjour\u00a0!", "Bonjour"),
        ("你好。", "你好"),
        ("你", ""),
        ("日本語のテキスト", "日本語のテキス"),
        ("GPU上", "GPU"),
        ("上GPU", "上"),
        ("上GP", "上"),
        ("你 好", "你"),
        ("안녕하세요", ""),
        ("안녕하세요 여러분", "안녕하세요"),
        ("か\u3099", ""),  # a combining mark that changes the sound
        ("か\u3099か", "か\u3099"),
        ("ｶﾞ", ""),
        ("สวัสดี", "สวัส"),
        ("น้ำ", ""),  # one syllable: letter, tone and vowel
        ("ក្ក", ""),  # a letter and a subscript letter
        ("ក្កក", "ក្ក"),
        ("葛\U000e0100", ""),  # a variation selector
        ("好👩\u200d👧", "好"),
    ],
)
def test_a_word_is_complete_when_the_next_one_begins(text: str, words: str):
    assert complete_words(text) == words
