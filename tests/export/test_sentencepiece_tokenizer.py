"""Tokenizers made of SentencePiece models give the token ids of the models."""

from itertools import islice

import pytest
from attendant_export.importers.character_map import read_rules
from attendant_export.importers.checkpoint import CheckpointError
from attendant_export.importers.sentencepiece_model import read_sentencepiece
from attendant_export.importers.sentencepiece_tokenizer import Vocabulary, sentencepiece_tokenizer

from tests.support.sentencepiece_files import (
    CONTROL,
    RULES,
    SPACE,
    SPECIAL,
    TINY_RULES,
    UNUSED,
    USER_DEFINED,
    Pieces,
    frequent_pieces,
    option,
    precompiled,
    write_sentencepiece,
)
from tests.support.sentencepiece_texts import ENGLISH, drawn_texts, read_plainly


def vocabulary_of(pieces):
    """Special tokens at both ends, most pieces, and tokens that are no pieces."""
    texts = [piece for i, piece in enumerate(pieces.scores) if i % 11]
    own = ["\U0001f633", "\u00fc\u00df", "a\U0001f633", f"{SPACE}zebra", ">>fra<<", ">>pt_BR<<"]
    return Vocabulary(
        {text: i for i, text in enumerate(["</s>", "<unk>", *own, *texts, "<pad>"])},
        unk="<unk>",
        eos="</s>",
        pad="<pad>",
    )


@pytest.fixture(scope="module")
def pieces():
    return frequent_pieces(ENGLISH, 300)


@pytest.fixture(scope="module")
def vocabulary(pieces):
    return vocabulary_of(pieces)


@pytest.fixture(scope="module")
def tokenizer(pieces, vocabulary, tmp_path_factory):
    path = write_sentencepiece(tmp_path_factory.mktemp("model") / "source.spm", pieces)
    made = sentencepiece_tokenizer(read_sentencepiece(path), vocabulary)
    return read_plainly(made)


def token_ids(tokenizer, vocabulary, text):
    """The ids; those after the vocabulary stand for the unknown token."""
    size, unk_id = len(vocabulary.ids), vocabulary.ids["<unk>"]
    return [i if i < size else unk_id for i in tokenizer.encode(text).ids]


def expected_ids(pieces, vocabulary, text):
    code = []
    if text.startswith(">>") and "<<" in text:
        end = text.index("<<") + 2
        code, text = [text[:end]], text[end:]
    ids = vocabulary.ids
    return [ids.get(each, ids["<unk>"]) for each in [*code, *pieces.tokens(text)]] + [ids["</s>"]]


def test_the_ids_are_those_of_the_model(tokenizer, pieces, vocabulary):
    for text in islice(drawn_texts(), 3000):
        expected = expected_ids(pieces, vocabulary, text)
        assert token_ids(tokenizer, vocabulary, text) == expected, ascii(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\t\n",
        "\u200b",
        SPACE,
        f" {SPACE}a {SPACE}",
        "</s> <unk> <pad> <s>",
        "o\u0302\u0301\u0323",
        "\uff76\uff9e\uff9e",
        "\u0301e",
        "\U0001f633\U0001f633",
        "a\U0001f633b",
        "\ufdd0\U0001f633\ufdd0",
        "\ufff0e\u0301\ufff1",
        ">>fra<<",
        ">>fra<<\U0001f633",
        " >>fra<< a",
        "a >>fra<<",
        ">>fra<<>>fra<<",
        "\x00a",
        "x" * 5000,
    ],
)
def test_odd_texts_have_the_ids_of_the_model(tokenizer, pieces, vocabulary, text):
    expected = expected_ids(pieces, vocabulary, text)
    assert token_ids(tokenizer, vocabulary, text) == expected


def test_the_ids_are_those_of_the_library(tokenizer, pieces, vocabulary, tmp_path):
    library = pytest.importorskip("sentencepiece")
    path = write_sentencepiece(tmp_path / "source.spm", pieces)
    processor = library.SentencePieceProcessor(model_file=str(path))
    for text in islice(drawn_texts(), 2000):
        if not text.startswith(">>"):
            assert processor.encode(text, out_type=str) == pieces.tokens(text), ascii(text)


def test_tokens_decode_to_their_text(tokenizer, vocabulary):
    for text in ("a", "his hen", "\U0001f633", ">>fra<<", f"{SPACE}zebra", "\u00fc\u00df"):
        ids = [vocabulary.ids.get(text)] if text in vocabulary.ids else tokenizer.encode(text).ids
        assert tokenizer.decode(ids) == text.replace(SPACE, "").strip()


def test_offsets_are_in_the_text_and_in_order(tokenizer):
    text = "  The\u00a0e\u0301 \U0001f633 \ufb01x\u2026"
    encoding = tokenizer.encode(text)
    starts = [start for start, _ in encoding.offsets[:-1]]
    assert starts == sorted(starts)
    assert max(end for _, end in encoding.offsets) == len(text)


def test_rules_are_read_back():
    assert read_rules(precompiled(RULES)) == RULES


@pytest.mark.parametrize("flags", [(0, 1), (1, 0), (0, 0)])
def test_a_model_may_add_no_space_or_keep_all_spaces(flags, pieces, vocabulary, tmp_path):
    library = pytest.importorskip("sentencepiece")
    adds, removes = flags
    normalizer = option(3, adds) + option(4, removes)
    path = write_sentencepiece(tmp_path / "m.spm", pieces, normalizer=normalizer)
    processor = library.SentencePieceProcessor(model_file=str(path))
    tokenizer = read_plainly(sentencepiece_tokenizer(read_sentencepiece(path), vocabulary))
    ids = vocabulary.ids
    for text in islice(drawn_texts(), 500):
        if not text.startswith(">>"):
            found = [ids.get(each, ids["<unk>"]) for each in processor.encode(text, out_type=str)]
            assert token_ids(tokenizer, vocabulary, text) == [*found, ids["</s>"]], ascii(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainer": option(3, 3)}, "trainer_spec.model_type is WORD, which is not supported"),
        ({"trainer": option(24, 1)}, "trainer_spec.treat_whitespace_as_suffix is True"),
        ({"normalizer": option(5, 0)}, "normalizer_spec.escape_whitespaces is False"),
        ({"kind": UNUSED}, "is UNUSED, which is not supported; supported: NORMAL"),
        ({"special": [("<s>", 0.0, CONTROL)]}, "has not exactly one UNKNOWN piece"),
        (
            {"special": (*SPECIAL, ("a b", 0.0, USER_DEFINED))},
            "the piece 'a b' is USER_DEFINED, which is not supported; supported: NORMAL",
        ),
        (
            {"special": (*SPECIAL, ("ab", 0.0, USER_DEFINED)), "trainer": option(3, 2)},
            "the piece 'ab' is USER_DEFINED, which is not supported; supported: NORMAL",
        ),
    ],
)
def test_an_unsupported_model_is_refused(changes, message, pieces, tmp_path):
    path = write_sentencepiece(tmp_path / "m.spm", pieces, **changes)
    with pytest.raises(CheckpointError, match=message):
        read_sentencepiece(path)


def test_rules_that_change_less_than_normalization_are_refused(pieces, vocabulary, tmp_path):
    path = write_sentencepiece(tmp_path / "m.spm", Pieces(pieces.scores, TINY_RULES))
    with pytest.raises(CheckpointError, match=r"m.spm: its character map makes '.u0340' of '.u03"):
        sentencepiece_tokenizer(read_sentencepiece(path), vocabulary)


@pytest.mark.parametrize("rules", [{}, {"\t": " "}, {**RULES, "ab": "c", "abc": "\u00e9"}])
def test_rules_may_be_none_few_or_others(rules, pieces, vocabulary, tmp_path):
    others = Pieces(pieces.scores, rules)
    path = write_sentencepiece(tmp_path / "m.spm", others)
    tokenizer = read_plainly(sentencepiece_tokenizer(read_sentencepiece(path), vocabulary))
    for text in ["abcab\u0301 ab\tc", *islice(drawn_texts(), 300)]:
        expected = expected_ids(others, vocabulary, text)
        assert token_ids(tokenizer, vocabulary, text) == expected, ascii(text)


def test_a_damaged_file_is_refused(pieces, tmp_path):
    path = write_sentencepiece(tmp_path / "m.spm", pieces)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="is not a SentencePiece model"):
        read_sentencepiece(path)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="it has no pieces"):
        read_sentencepiece(path)


def test_a_damaged_character_map_is_refused(pieces, vocabulary, tmp_path):
    plain, damaged = Pieces(pieces.scores, {}), b"\x12\x03abc"
    path = write_sentencepiece(tmp_path / "m.spm", plain, normalizer=damaged)
    with pytest.raises(CheckpointError, match="its character map is damaged"):
        sentencepiece_tokenizer(read_sentencepiece(path), vocabulary)


def test_a_character_that_is_no_piece_itself_is_refused(pieces, vocabulary, tmp_path):
    scores = {**pieces.scores, "e\u00a7": -9.0}
    path = write_sentencepiece(tmp_path / "m.spm", Pieces(scores, pieces.rules))
    with pytest.raises(CheckpointError, match="have the character '\u00a7', which is no piece"):
        sentencepiece_tokenizer(read_sentencepiece(path), vocabulary)
