"""Tokenizers of SentencePiece models with pieces of bytes and user-defined symbols."""

import random
from itertools import islice

import pytest
from attendant_export.importers.checkpoint import CheckpointError
from attendant_export.importers.sentencepiece_model import read_sentencepiece
from attendant_export.importers.sentencepiece_tokenizer import Vocabulary, sentencepiece_tokenizer

from tests.support.sentencepiece_files import (
    BYTE,
    RULES,
    SPACE,
    SPECIAL,
    USER_DEFINED,
    Pieces,
    frequent_pieces,
    option,
    write_sentencepiece,
)
from tests.support.sentencepiece_texts import ENGLISH, drawn_texts, read_plainly

BYTES = tuple((f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256))
SYMBOL = "__start__"


@pytest.fixture(scope="module")
def pieces():
    return frequent_pieces(ENGLISH, 300)


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


@pytest.mark.parametrize("symbol", [f"{SPACE}ab", "ab"])
def test_a_user_defined_symbol_is_preferred_to_likelier_pieces(symbol, tmp_path):
    scores = dict.fromkeys((SPACE, *"ab<>us", f"{SPACE}a"), -0.5)
    special = (*SPECIAL, (symbol, 0.0, USER_DEFINED))
    path = write_sentencepiece(tmp_path / "m.spm", Pieces(scores, {}), special=special)
    model = read_sentencepiece(path)
    ids = {piece: i for i, piece in enumerate(model.pieces)}
    vocabulary = Vocabulary(ids, "<unk>", "</s>", "<s>", has_codes=False)
    tokenizer = read_plainly(sentencepiece_tokenizer(model, vocabulary))
    expected = {f"{SPACE}ab": [f"{SPACE}ab"], "ab": [SPACE, "ab"]}[symbol]
    assert tokenizer.encode("ab").tokens[:-1] == expected


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
