"""Source text takes the place of unknown tokens, whatever marks the words of a tokenizer."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from attendant_server.application.descriptions import Splitting
from attendant_server.application.pieced_text import PiecedText, PieceReader
from attendant_server.application.tokenization_options import tokenization_options
from attendant_server.application.unknown_tokens import FilledTranslation, filled
from attendant_server.tokenizer import TextTokenizer
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

UNKNOWN = 0
DECODERS = {
    "words": None,
    "starts of words": decoders.Metaspace(),
    "ends of words": decoders.BPEDecoder(suffix="</w>"),
    "continuations": decoders.WordPiece(),
}


def tokenizer_of(
    tokens: Sequence[str],
    decoder: decoders.Decoder | None = None,
    splitter: pre_tokenizers.PreTokenizer | None = None,
    unknown: str = "<unk>",
) -> TextTokenizer:
    """A tokenizer of these tokens and the unknown one, which has the id 0."""
    ids = {token: number for number, token in enumerate((unknown, *tokens))}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=unknown))
    tokenizer.pre_tokenizer = splitter or pre_tokenizers.WhitespaceSplit()
    if decoder is not None:
        tokenizer.decoder = decoder
    tokenizer.add_special_tokens([unknown])
    return TextTokenizer(tokenizer.to_str(), unk_id=UNKNOWN)


def read(text: str, tokenizer: TextTokenizer) -> PiecedText:
    reader = PieceReader(Splitting.NONE, "", keeps_tokens=True)
    options = tokenization_options(tokenizer, 100, 1000, 0, 0)
    [found] = reader(options, "text", [text], 0, True)
    assert isinstance(found, PiecedText)
    return found


def replaced(
    text: str,
    source: TextTokenizer,
    target: TextTokenizer,
    sources: Mapping[int, int],
    ids: list[int],
) -> FilledTranslation:
    """The translation ``ids``; ``sources`` has the source token of each of its tokens."""
    found = read(text, source)
    weights = np.full((len(ids), len(found.token_ids[0])), 0.01, np.float32)
    for i, j in sources.items():
        weights[i, j] = 0.9
    return filled(target, source.unk_id, found, 0, ids, weights)


WORDS = tokenizer_of(["a", "b", "d"])


@pytest.mark.parametrize(
    ("marks", "tokens"),
    [
        ("words", ["das", "ist"]),
        ("starts of words", ["\u2581das", "\u2581ist"]),
        ("ends of words", ["das</w>", "ist</w>"]),
        ("continuations", ["das", "ist"]),
    ],
)
def test_a_replaced_word_has_spaces_around_it(marks: str, tokens: list[str]):
    target = tokenizer_of(tokens, DECODERS[marks])
    found = replaced("a b Quux d", WORDS, target, {0: 0, 1: 2, 2: 3}, [1, UNKNOWN, 2])
    assert found.text == "das Quux ist"
    assert [found.text[slice(*span)] for span in found.token_spans] == ["das", "Quux", "ist"]
    assert [tuple(each) for each in found.replacements] == [((4, 8), (4, 8))]


def test_a_mark_follows_a_replaced_word_without_a_space():
    target = tokenizer_of(["\u2581das", "."], DECODERS["starts of words"])
    found = replaced("a Quux d", WORDS, target, {0: 0, 1: 1, 2: 2}, [1, UNKNOWN, 2])
    assert found.text == "das Quux."


def test_a_known_word_of_the_source_replaces_an_unknown_token_as_a_whole():
    letters = pre_tokenizers.Split(Regex(r"\s+|[\s\S]"), "isolated")
    source = tokenizer_of(list("abcd "), splitter=letters)
    target = tokenizer_of(["das", "ist"])
    found = replaced("ab cab d", source, target, {0: 0, 1: 4, 2: 7}, [1, UNKNOWN, 2])
    assert found.text == "das cab ist"


def test_within_a_word_only_the_unknown_characters_are_replaced():
    letters = pre_tokenizers.Split(Regex(r"\s+|[\s\S]"), "isolated")
    source = tokenizer_of(list("Dvoak "), splitter=letters)
    target = tokenizer_of(["\u2581Dwo", "ak"], DECODERS["starts of words"])
    found = replaced("a Dvořak", source, target, {0: 4, 1: 5, 2: 6}, [1, UNKNOWN, 2])
    assert found.text == "Dwořak"
    assert [tuple(each) for each in found.replacements] == [((5, 6), (3, 4))]


@pytest.mark.parametrize(
    ("marks", "tokens"),
    [
        ("starts of words", ["\u2581das", "\u2581ist"]),
        ("ends of words", ["das</w>", "ist</w>"]),
        ("continuations", ["das", "ist"]),
    ],
)
@pytest.mark.parametrize("num_unknown", [1, 2, 3])
def test_an_unknown_token_that_has_swallowed_a_space_is_not_part_of_the_word_beside_it(
    marks: str, tokens: list[str], num_unknown: int
):
    letters = pre_tokenizers.Split(Regex(r"\s+|[\s\S]"), "isolated")
    source = tokenizer_of(list("Dvoakd "), splitter=letters)
    target = tokenizer_of(tokens, DECODERS[marks])
    ids = [1, *[UNKNOWN] * num_unknown, 2]
    sources = {0: 0, num_unknown + 1: 9} | dict.fromkeys(range(1, num_unknown + 1), 5)
    assert replaced("a Dvořak d", source, target, sources, ids).text == "das Dvořak ist"


@pytest.mark.parametrize("unknown", ["<unk>", "UNK"])
def test_unknown_tokens_in_a_row_within_a_word_are_replaced_by_unknown_characters(unknown: str):
    letters = pre_tokenizers.Split(Regex(r"\s+|[\s\S]"), "isolated")
    source = tokenizer_of(list("Dvoak "), splitter=letters)
    target = tokenizer_of(["\u2581Dwo", "ak"], DECODERS["starts of words"], unknown=unknown)
    ids = [1, UNKNOWN, UNKNOWN, UNKNOWN, 2]
    sources = {0: 4, 1: 5, 2: 6, 3: 7, 4: 8}
    assert replaced("a Dvořšžak", source, target, sources, ids).text == "Dwořšžak"


def test_unknown_tokens_in_a_row_give_the_same_text_once():
    target = tokenizer_of(["das", "ist"])
    ids = [1, UNKNOWN, UNKNOWN, 2]
    assert replaced("a Quux d", WORDS, target, {1: 1, 2: 1}, ids).text == "das Quux ist"
    two = replaced("a Quux Zyzzy", WORDS, target, {1: 2, 2: 1}, ids)
    assert two.text == "das Zyzzy Quux ist"


def test_touching_unknown_tokens_of_the_source_are_one_text():
    letters = pre_tokenizers.Split(Regex(r"\s+|[\s\S]"), "isolated")
    source = tokenizer_of(["a", " "], splitter=letters)
    target = tokenizer_of(["das"])
    assert replaced("a \u2603\u2603 a", source, target, {0: 0, 1: 3}, [1, UNKNOWN]).text == (
        "das \u2603\u2603"
    )


def test_no_space_is_put_before_text_in_a_script_without_spaces():
    letters = pre_tokenizers.Split(Regex(r"\s+|[\s\S]"), "isolated")
    source = tokenizer_of(["a", " "], splitter=letters)
    target = tokenizer_of(["好"], decoders.Fuse())
    assert replaced("a xy", source, target, {0: 0, 1: 2}, [1, UNKNOWN]).text == "好xy"


def test_a_translation_of_unknown_tokens_alone_is_replaced():
    target = tokenizer_of(["das"])
    found = replaced("Quux", WORDS, target, {0: 0}, [UNKNOWN])
    assert (found.text, found.token_spans) == ("Quux", [(0, 4)])
