"""Trained vocabularies with byte fallback read and write every character."""

import pytest
from attendant_export.data.pair_tokenizer import PairTokenizer
from attendant_export.data.tokenizer import (
    BPE,
    BPE_BYTES,
    KINDS,
    UNIGRAM_BYTES,
    train_translation_tokenizer,
    unknown_token_id,
)
from attendant_export.data.translation_data import PairSource, TranslationData, TranslationTexts
from attendant_export.models.shapes import transformer
from attendant_export.runs.models import network_of_run

from tests.support.bundles import sentence_pairs

TEXTS = [text for pair in sentence_pairs() for text in pair]
VOCAB_SIZE = 360
STRANGE = [
    "\U0001f600",
    "The dog \U0001f469\u200d\U0001f680 sees \u0141\u00f3d\u017a\u2026 \u65e5\u672c!",
    "a <0x41> b <0xFF>",
    "no </s> <s> <pad> <unk> tokens",
]


@pytest.fixture(scope="module", params=[BPE_BYTES, UNIGRAM_BYTES])
def tokenizer(request):
    trained = train_translation_tokenizer(TEXTS, VOCAB_SIZE, request.param)
    trained.encode_special_tokens = True  # as the server reads texts
    return trained


@pytest.mark.parametrize("text", [*TEXTS[:2], *STRANGE])
def test_a_text_survives_and_has_no_unknown_token(tokenizer, text):
    encoded = tokenizer.encode(text)
    assert tokenizer.decode(encoded.ids) == text
    assert unknown_token_id(tokenizer) not in encoded.ids
    assert encoded.tokens[-1] == "</s>"


def test_a_text_that_looks_like_a_byte_or_a_special_token_is_read_by_characters(tokenizer):
    tokens = tokenizer.encode("<0x41></s>", add_special_tokens=False).tokens
    assert not {"<0x41>", "</s>"} & set(tokens)


@pytest.mark.parametrize("kind", KINDS)
def test_training_text_that_looks_like_a_special_token_is_encoded_as_text(kind):
    trained = train_translation_tokenizer(TEXTS, VOCAB_SIZE, kind)
    text = "The dog</s> sees <pad>."
    [[source], [target]] = PairTokenizer.of_run(trained).encode([(text, text)])
    assert source == target
    tokens = [trained.id_to_token(i) for i in source]
    assert tokens.index("</s>") == len(tokens) - 1
    assert "<pad>" not in tokens
    assert ("<unk>" in tokens) == (kind == BPE)
    assert trained.encode("a </s> b").tokens.count("</s>") == 2  # as before, for other uses


def test_special_tokens_come_first_and_then_the_bytes(tokenizer):
    first = ["<pad>", "<s>", "</s>", "<unk>", "<0x00>"]
    assert [tokenizer.token_to_id(token) for token in first] == [0, 1, 2, 3, 4]
    assert tokenizer.token_to_id("<0xFF>") == 259
    assert set(tokenizer.get_added_tokens_decoder()) == {0, 1, 2, 3}


def test_rare_characters_have_no_tokens_of_their_own():
    texts = [*TEXTS * 10, "\u65e5"]
    trained = train_translation_tokenizer(texts, VOCAB_SIZE, BPE_BYTES)
    assert trained.token_to_id("\u65e5") is None
    assert trained.token_to_id("\u00fc") is not None


def test_a_vocabulary_without_room_for_the_characters_is_refused():
    with pytest.raises(ValueError, match=r"--vocab-size 280: want at least \d+, for 260 bytes"):
        train_translation_tokenizer(TEXTS, 280, UNIGRAM_BYTES)


def test_separate_vocabularies_know_the_words_of_their_side_only(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"{a}\t{b}\n" for a, b in sentence_pairs()), encoding="utf-8")
    data = TranslationData((PairSource(path),), path, vocab_size=90, separate_vocabularies=True)
    tokenizer = TranslationTexts(data, tmp_path / "cache").train_tokenizer()
    source, target = (side.tokenizer for side in (tokenizer.source, tokenizer.target))
    known = [
        [bool(side.token_to_id(f"\u2581{word}")) for word in ("teacher", "Lehrer")]
        for side in (source, target)
    ]
    assert known == [[True, False], [False, True]]
    [[sources], [targets]] = tokenizer.encode([("The teacher", "Der Lehrer")])
    assert (source.decode(sources), tokenizer.decode(targets)) == ("The teacher", "Der Lehrer")


def test_a_run_with_two_vocabularies_is_not_resumed_with_a_network_that_shares_one(tmp_path):
    (path := tmp_path / "pairs.tsv").write_text("dog\tHund\n", encoding="utf-8")
    data = TranslationData((PairSource(path),), path, vocab_size=90, separate_vocabularies=True)
    TranslationTexts(data, tmp_path).train_tokenizer().save(tmp_path)
    shared = transformer(90, 8, 1, 8, 1, 1)
    with pytest.raises(ValueError, match="has a vocabulary for each side.*--separate-vocab"):
        network_of_run(shared, None, tmp_path)


def test_a_tokenizer_without_any_text_is_refused(tmp_path):
    (path := tmp_path / "empty.tsv").touch()
    data = TranslationData((PairSource(path),), path, tokenizer_kind=UNIGRAM_BYTES)
    with pytest.raises(ValueError, match="there is no text to train on"):
        TranslationTexts(data, tmp_path / "cache").train_tokenizer()
