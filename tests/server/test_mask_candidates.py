"""The tokens of candidates in the places of masks, for tokenizers that mark words differently."""

import pytest
from attendant_server.application.mask_candidates import CandidateReader
from attendant_server.errors import InvalidRequest
from attendant_server.tokenizer import TextTokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

MASK = "[MASK]"
WORDS = ["dog", "dogs", "un", "able", "unable", "paris", ".", "the", "é"]


def tokenizer_of(vocabulary, model, mask_lstrip=False, **parts):
    tokenizer = Tokenizer(model({token: i for i, token in enumerate(vocabulary)}))
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    tokenizer.add_special_tokens([AddedToken(MASK, special=True, lstrip=mask_lstrip)])
    mask_id = vocabulary.index(MASK)
    return TextTokenizer(tokenizer.to_str(), mask_id=mask_id, unk_id=0), mask_id


def word_piece():
    return tokenizer_of(
        ["[UNK]", MASK, *WORDS, "##s", "##able"],
        lambda vocabulary: models.WordPiece(vocabulary, unk_token="[UNK]"),
        normalizer=normalizers.Lowercase(),
        pre_tokenizer=pre_tokenizers.BertPreTokenizer(),
        decoder=decoders.WordPiece(),
    )


def byte_level():
    letters = sorted({letter for word in WORDS for letter in word if letter.isascii()})
    merged = {"do", "dog", "Ġdog", "th", "the", "Ġthe"}
    merges = [("d", "o"), ("do", "g"), ("Ġ", "dog"), ("t", "h"), ("th", "e"), ("Ġ", "the")]
    vocabulary = ["[UNK]", MASK, *letters, "Ġ", *sorted(merged)]
    return tokenizer_of(
        vocabulary,
        lambda ids: models.BPE(ids, merges, unk_token="[UNK]"),
        mask_lstrip=True,
        pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoder=decoders.ByteLevel(),
    )


def ids_of(made, text, candidates):
    tokenizer, mask_id = made
    reader = CandidateReader(tokenizer, False, mask_id, 9)
    places = [(i, i + len(MASK)) for i in range(len(text)) if text.startswith(MASK, i)]
    found = reader.read(0, text, places, [candidates])
    return [tokenizer.tokens(each.token_ids) for each in found]


@pytest.mark.parametrize(
    ("text", "candidates", "expected"),
    [
        ("the [MASK].", ["dog", "Dog", "paris"], [["dog", "dog", "paris"]]),
        ("[MASK] the\n[MASK]", ["dog"], [["dog"], ["dog"]]),
        ("[MASK][MASK]", ["dog"], [["dog"], ["dog"]]),
        # In its place, it would be a part of another word.
        ("un[MASK]", ["able"], [["able"]]),
        ("x" * 99 + "[MASK]", ["dog"], [["dog"]]),
    ],
)
def test_candidates_of_word_pieces_are_words_in_any_case(text, candidates, expected):
    assert ids_of(word_piece(), text, candidates) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[MASK] dog", [["the"]]),
        ("the [MASK]", [["Ġthe"]]),
        ("the\n[MASK].", [["the"]]),
        ("the[MASK]", [["the"]]),
    ],
)
def test_candidates_have_the_mark_of_a_word_where_a_word_begins(text, expected):
    assert ids_of(byte_level(), text, ["the"]) == expected


@pytest.mark.parametrize("candidate", ["dog dog", "xyz", "[MASK]", "", " ", "the dog"])
@pytest.mark.parametrize("made", [word_piece, byte_level])
def test_a_candidate_that_is_no_single_token_is_refused(made, candidate):
    with pytest.raises(InvalidRequest, match=r"candidates\[0\].masks\[0\].texts\[1\]: must be"):
        ids_of(made(), "the [MASK].", ["dog", candidate])
