import pytest
from attendant_export.data.tokenizer import train_bert_tokenizer, train_translation_tokenizer

TEXTS = [
    "The dog barks at the cat.",
    "Der Hund bellt die Katze an.",
    "Where's the café, Mr. Müller?",
    "Wo ist der Bahnhof, bitte?",
] * 5


@pytest.fixture(scope="module")
def translation_tokenizer():
    return train_translation_tokenizer(TEXTS, 200)


@pytest.fixture(scope="module")
def bert_tokenizer():
    return train_bert_tokenizer(TEXTS, 200)


def test_translation_special_tokens_have_the_first_ids(translation_tokenizer):
    tokens = ["<pad>", "<s>", "</s>", "<unk>"]
    assert [translation_tokenizer.token_to_id(t) for t in tokens] == [0, 1, 2, 3]


def test_a_translation_encoding_ends_with_the_end_token(translation_tokenizer):
    assert translation_tokenizer.encode("The dog").tokens[-1] == "</s>"


@pytest.mark.parametrize("text", TEXTS[:4])
def test_a_translation_text_survives_encoding_and_decoding(translation_tokenizer, text):
    assert translation_tokenizer.decode(translation_tokenizer.encode(text).ids) == text


def test_runs_of_white_space_count_as_one_space(translation_tokenizer):
    spaced = translation_tokenizer.encode("  The \t dog\n barks ").ids
    assert spaced == translation_tokenizer.encode("The dog barks").ids


def test_bert_special_tokens_have_the_first_ids(bert_tokenizer):
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert [bert_tokenizer.token_to_id(t) for t in tokens] == [0, 1, 2, 3, 4]


def test_a_bert_encoding_stands_between_cls_and_sep(bert_tokenizer):
    tokens = bert_tokenizer.encode("The dog").tokens
    assert (tokens[0], tokens[-1]) == ("[CLS]", "[SEP]")


def test_a_pair_has_two_segments(bert_tokenizer):
    encoding = bert_tokenizer.encode("dog", "Hund")
    assert encoding.tokens.count("[SEP]") == 2
    assert encoding.type_ids == sorted(encoding.type_ids)
    assert set(encoding.type_ids) == {0, 1}


def test_the_mask_in_a_text_is_one_token(bert_tokenizer):
    assert bert_tokenizer.encode("The [MASK] barks.").tokens.count("[MASK]") == 1


def test_bert_keeps_case_and_accents(bert_tokenizer):
    tokens = "".join(bert_tokenizer.encode("Müller").tokens)
    assert tokens.replace("##", "") == "[CLS]Müller[SEP]"


def test_offsets_refer_to_the_text_as_given(translation_tokenizer, bert_tokenizer):
    text = "The  café"
    for tokenizer in (translation_tokenizer, bert_tokenizer):
        start, end = tokenizer.encode(text).offsets[-2]
        assert text[start:end].endswith("é")
