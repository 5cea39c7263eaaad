"""Tokenizers made of SentencePiece models give the token ids of the models."""

import random
from itertools import islice

import pytest
from attendant_export.bundle.importing import sample_texts
from attendant_export.importers.character_map import read_rules
from attendant_export.importers.checkpoint import CheckpointError
from attendant_export.importers.sentencepiece_model import read_sentencepiece
from attendant_export.importers.sentencepiece_tokenizer import Vocabulary, sentencepiece_tokenizer
from tokenizers import Tokenizer

from tests.support.sentencepiece_files import (
    BYTE,
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

ENGLISH = [text for text in sample_texts() if text.isascii()]
EMOJI = "\U0001f600\U0001f633\u2764\ufe0f\U0001f44d\U0001f3ff\u200d\U0001f1e9\U0001f1ea"


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


def read_plainly(tokenizer):
    """The tokenizer as a bundle has it and the server uses it."""
    read = Tokenizer.from_str(tokenizer.to_str())
    read.encode_special_tokens = True
    return read


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


def drawn_texts():
    """Endless strings: words, marks in odd places, emoji, other scripts, and spaces."""
    draw = random.Random(5)
    words = " ".join(ENGLISH).split()
    odd = [*TINY_RULES, *EMOJI, "\u0301", "\u0308", "\u0323", SPACE, "  ", "\u00fc\u00df", "zebra"]
    while True:
        text = list(" ".join(draw.choices(words, k=draw.randint(0, 8))))
        for _ in range(draw.randint(0, 6)):
            text.insert(draw.randint(0, len(text)), draw.choice(odd))
        if draw.random() < 0.3:
            first = draw.choice((0x20, 0x300, 0x590, 0x900, 0x1100, 0x3040, 0xFF00, 0x1F600))
            text += [chr(first + draw.randrange(128)) for _ in range(draw.randint(1, 12))]
        if draw.random() < 0.1:
            text.insert(0, draw.choice((">>fra<<", ">>pt_BR<< ", ">>xx<<", ">>", ">> a << ")))
        yield "".join(text)


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


BYTES = tuple((f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256))
SYMBOL = "__start__"


@pytest.fixture(scope="module")
def own(pieces, tmp_path_factory):
    """A model with bytes and a user-defined symbol, and the tokenizer of its own ids."""
    path = tmp_path_factory.mktemp("own") / "vocab.spm"
    special = (*SPECIAL, (SYMBOL, 0.0, USER_DEFINED), *BYTES)
    write_sentencepiece(path, pieces, trainer=option(35, 1), special=special)
    model = read_sentencepiece(path)
    ids = {piece: i for i, piece in enumerate((*model.pieces, "<pad>"))}
    vocabulary = Vocabulary(ids, model.unknown, "</s>", "<pad>", has_codes=False)
    return path, ids, read_plainly(sentencepiece_tokenizer(model, vocabulary))


def test_unknown_characters_become_the_pieces_of_their_bytes(own):
    _, ids, tokenizer = own
    encoding = tokenizer.encode("a \U0001f633\u4e00")
    bytes_ = "\U0001f633\u4e00".encode()
    assert encoding.tokens[-len(bytes_) - 1 : -1] == [f"<0x{byte:02X}>" for byte in bytes_]
    assert tokenizer.decode(encoding.ids) == "a \U0001f633\u4e00"
    assert ids["<unk>"] not in encoding.ids


def test_texts_that_spell_a_byte_do_not_become_its_piece(own):
    _, ids, tokenizer = own
    assert "<" not in ids
    encoding = tokenizer.encode("<0x41>A<")
    assert ids["<0x41>"] not in encoding.ids
    assert encoding.ids.count(ids["<0x3C>"]) == 2
    assert tokenizer.decode(encoding.ids) == "<0x41>A<"
    assert encoding.offsets[-2] == (7, 8)


def test_user_defined_symbols_are_one_token_anywhere(own):
    _, ids, tokenizer = own
    found = tokenizer.encode(f"The train{SYMBOL}is {SYMBOL} late {SYMBOL}{SYMBOL}").ids
    assert found.count(ids[SYMBOL]) == 4


def test_a_vocabulary_without_codes_reads_them_as_plain_text(own):
    _, ids, tokenizer = own
    found = tokenizer.encode(">>fra<< The train")
    assert found.ids[-1] == ids["</s>"]
    assert tokenizer.decode(found.ids) == ">>fra<< The train"


def test_the_ids_of_bytes_and_symbols_are_those_of_sentencepiece(own):
    library = pytest.importorskip("sentencepiece")
    path, ids, tokenizer = own
    processor = library.SentencePieceProcessor(model_file=str(path))
    draw = random.Random(3)
    for text in islice(drawn_texts(), 3000):
        at = draw.randint(0, len(text))
        text = text[:at] + SYMBOL * (draw.random() < 0.2) + text[at:]
        text += "<0x41>" * (draw.random() < 0.1)
        expected = [*processor.encode(text), ids["</s>"]]
        assert tokenizer.encode(text).ids == expected, ascii(text)


CODES = (("<2de>", 0.0, USER_DEFINED), ("<2zh_Hant>", 0.0, USER_DEFINED))


@pytest.mark.parametrize(
    ("characters", "codes"), [("<>0123456789ABCDEFx_", CODES), ("<", ()), (">", ()), ("", ())]
)
def test_tokens_of_languages_and_bytes_have_the_ids_of_sentencepiece(
    characters, codes, pieces, tmp_path
):
    library = pytest.importorskip("sentencepiece")
    missing = [each for each in characters if each not in pieces.scores]
    scores = dict(pieces.scores) | dict.fromkeys(missing, -12.0)
    special, changed = (*SPECIAL, *codes, *BYTES), Pieces(scores, RULES)
    path = tmp_path / "m.spm"
    write_sentencepiece(path, changed, trainer=option(35, 1), special=special)
    processor = library.SentencePieceProcessor(model_file=str(path))
    model = read_sentencepiece(path)
    ids = {piece: i for i, piece in enumerate(model.pieces)}
    vocabulary = Vocabulary(ids, unk="<unk>", eos="</s>", pad="<s>", has_codes=False)
    tokenizer = read_plainly(sentencepiece_tokenizer(model, vocabulary))
    # The tiny rules compose no Hangul, other than those of real models.
    texts = (text for text in drawn_texts() if not any("\u1100" <= c < "\u1200" for c in text))
    first = ("<2de> ", "a<2zh_Hant>", "<0x41>", ">>fra<< ", "<0x3C>", "<0x3E>")
    for i, text in enumerate(islice(texts, 300)):
        for drawn in (text, first[i % len(first)] + text):
            found = tokenizer.encode(drawn)
            assert found.ids == [*processor.encode(drawn), ids["</s>"]], ascii(drawn)
            assert tokenizer.decode(found.ids) == processor.decode(found.ids), ascii(drawn)


def test_bytes_that_texts_could_spell_are_refused(pieces, tmp_path):
    special = (*SPECIAL, *CODES, *BYTES)
    path = tmp_path / "m.spm"
    write_sentencepiece(path, pieces, trainer=option(35, 1), special=special)
    model = read_sentencepiece(path)
    ids = {piece: i for i, piece in enumerate(model.pieces)}
    with pytest.raises(CheckpointError, match="'<' is no piece; this is not supported with bytes"):
        sentencepiece_tokenizer(model, Vocabulary(ids, unk="<unk>", eos="</s>", pad="<s>"))
