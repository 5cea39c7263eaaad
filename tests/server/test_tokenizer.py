import json
import sys
import threading
import time
from typing import Any

import pytest
from attendant_export.data.tokenizer import train_bert_tokenizer, train_translation_tokenizer
from attendant_server.tokenized_text import TokenizedText
from attendant_server.tokenizer import TextTokenizer, TokenizerError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

TEXTS = ["The dog is barking.", "Der Hund bellt.", "Ein Mann läuft im Park, oder?"] * 20
ANY_TEXT = st.text(max_size=40)


@pytest.fixture(scope="module")
def bpe() -> TextTokenizer:
    return TextTokenizer(train_translation_tokenizer(TEXTS, 150).to_str())


@pytest.fixture(scope="module")
def word_piece() -> str:
    return train_bert_tokenizer(TEXTS, 150).to_str()


def test_places_count_code_points_of_the_text_as_sent(bpe: TextTokenizer):
    text = "Park 🐶  The dog\nla\u0308uft"
    pieces = [text[t.start : t.end].strip() for t in bpe.encode(text) if not t.is_special]
    assert "".join(pieces) == "Park🐶Thedogla\u0308uft"


def test_tokens_that_the_tokenizer_adds_are_special_and_have_no_width(bpe: TextTokenizer):
    *words, end = bpe.encode("The dog")
    assert end.text == "</s>"
    assert end.is_special
    assert end.start == end.end
    assert not any(token.is_special for token in words)


@pytest.mark.parametrize("text", ["</s>", "<s>", "<pad>", "a</s>b", "[CLS]", "[MASK]", "[SEP]"])
def test_special_tokens_in_a_text_are_plain_text(bpe: TextTokenizer, word_piece: str, text: str):
    for tokenizer in (bpe, TextTokenizer(word_piece)):
        added = [token.id for token in tokenizer.encode("dog") if token.is_special]
        special = set(added) | {0}
        ids = [token.id for token in tokenizer.encode(text) if token.id in special]
        assert ids == added


def test_the_tokens_of_a_text_write_it_with_or_without_a_mark(bpe: TextTokenizer, word_piece: str):
    pieces = TextTokenizer(word_piece)
    for tokenizer, marked in ((bpe, "\u2581b"), (pieces, "##n")):
        written = {text for i in tokenizer.tokens_of(marked[-1]) for text in tokenizer.tokens([i])}
        assert written == {marked, marked[-1]}
        for text in ("", "</s>", "[CLS]", "The dog", "\ufffd"):
            assert not tokenizer.tokens_of(text)
        for token_id in filter(tokenizer.is_plain, range(tokenizer.vocab_size)):
            if text := tokenizer.decode([token_id]).strip().removeprefix("##"):
                assert token_id in tokenizer.tokens_of(text)


def test_only_a_tokenizer_that_knows_the_mask_recognizes_it(word_piece: str):
    text = "[CLS] The [MASK]."
    plain = TextTokenizer(word_piece)
    mask_id = plain.tokens(range(10)).index("[MASK]")
    masks = [t for t in TextTokenizer(word_piece, mask_id).encode(text) if t.id == mask_id]
    assert [text[mask.start : mask.end] for mask in masks] == ["[MASK]"]
    assert mask_id not in plain.encode(text).token_ids
    assert TextTokenizer(word_piece, mask_id).encode(text).token_ids.count(2) == 1


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\u00a0"])
def test_a_text_of_white_space_is_empty(bpe: TextTokenizer, word_piece: str, text: str):
    assert bpe.encode(text).is_empty
    assert TextTokenizer(word_piece).encode(text).is_empty


def test_cutting_keeps_special_tokens_and_one_side(word_piece: str):
    tokenizer = TextTokenizer(word_piece)
    whole = tokenizer.encode("The dog is barking .")
    end, beginning = whole.cut_end(4), whole.cut_beginning(4)
    assert end.token_ids == [*whole.token_ids[:3], whole.token_ids[-1]]
    assert beginning.token_ids == [whole.token_ids[0], *whole.token_ids[-3:]]
    assert len(end) == len(list(end)) == 4
    assert end.num_original_tokens == len(whole)
    assert [t.text for t in beginning][-2] == "."


def test_cutting_to_the_special_tokens_leaves_nothing(word_piece: str):
    whole = TextTokenizer(word_piece).encode("The dog")
    assert whole.cut_end(2).is_empty
    assert whole.cut_beginning(2).is_empty


def test_cutting_the_beginning_keeps_the_prompt_and_no_word_of_the_text():
    # The offsets of a word include the space before it, which belongs to the prompt.
    library = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    library.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_next")
    whole = TextTokenizer(library.to_str()).encode("query: one two three four")
    assert [(token.start, token.end) for token in whole][:3] == [(0, 6), (6, 10), (10, 14)]
    kept = whole.cut_beginning(3, prompt_length=len("query: "))
    assert [(token.start, token.end) for token in kept] == [(0, 6), (14, 20), (20, 25)]
    assert not whole.is_empty_after(len("query: "))


@pytest.mark.parametrize("cut", [TokenizedText.cut_end, TokenizedText.cut_beginning])
def test_tokens_around_a_text_are_kept_even_if_there_is_no_room_for_it(cut, word_piece: str):
    tokenizer = TextTokenizer(word_piece)
    around = tokenizer.special_tokens([1, 2])
    found = cut(tokenizer.encode("The dog is barking .").between(around, around), 3)
    assert (found.is_empty, len(found)) == (True, 6)


def test_decoding_gives_the_text_back(bpe: TextTokenizer):
    text = "Der Hund bellt."
    assert bpe.decode(bpe.encode(text).token_ids) == text


def test_complete_words_are_the_beginning_of_the_whole_text(bpe: TextTokenizer):
    text = "Ein Mann läuft im Park, oder?"
    ids = bpe.encode(text).token_ids
    known = [bpe.decode_words(ids[:n]) for n in range(len(ids) + 1)]
    assert known[0] == ""
    assert all(text.startswith(words) for words in known)
    assert known == sorted(known, key=len)
    assert set(known) <= {text.rsplit(" ", n)[0] for n in range(7)} | {""}


def test_a_readable_token_has_no_marks(bpe: TextTokenizer, word_piece: str):
    tokenizer = TextTokenizer(word_piece)
    for token_id in range(5, 100):
        assert not tokenizer.readable_token(token_id).startswith("##")
        assert "▁" not in bpe.readable_token(token_id)


def test_a_readable_token_of_a_byte_level_vocabulary_has_no_space_before_it():
    vocab = {"Ġtrain": 0, "train": 1, "Ġ": 2, "ĠĠ": 3}
    model = {"type": "BPE", "vocab": vocab, "merges": []}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    tokenizer = TextTokenizer(definition(model=model, decoder=byte_level))
    assert [tokenizer.readable_token(i) for i in range(4)] == ["train", "train", " ", " "]


def definition(**changes: Any) -> str:
    content = {
        "version": "1.0",
        "added_tokens": [],
        "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []},
    }
    return json.dumps(content | changes)


def test_a_panic_of_the_library_is_an_error_of_ours():
    split = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated"}
    tokenizer = TextTokenizer(definition(pre_tokenizer=split | {"invert": False}))
    with pytest.raises(TokenizerError, match="PanicException"):
        tokenizer.encode("a" * 40 + "b")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[]",
        definition(model={"type": "None"}),
        definition(model={"type": "BPE", "vocab": {"a": 0, "aa": 1}, "merges": ["a aaaa"]}),
    ],
)
def test_a_bad_definition_is_an_error_of_ours(content: str):
    with pytest.raises(TokenizerError):
        TextTokenizer(content)


def test_an_interrupt_is_not_taken_for_an_error(monkeypatch: pytest.MonkeyPatch):
    def interrupted(_: str) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("attendant_server.tokenizer.json.loads", interrupted)
    with pytest.raises(KeyboardInterrupt):
        TextTokenizer(definition())


def test_tokenizers_without_marks_pay_nothing_for_marks(bpe: TextTokenizer, word_piece: str):
    for tokenizer in (bpe, TextTokenizer(word_piece, vocab_size=150, unk_id=1)):
        assert type(tokenizer.encode("The dog")) is TokenizedText


def pair_of(tokenizer: TextTokenizer, first: int, second: int) -> TokenizedText:
    """A pair of texts with these numbers of tokens between [CLS], [SEP] and [SEP]."""
    return tokenizer.encode(" ".join(["The"] * first), " ".join(["dog"] * second))


def test_the_tokens_of_the_second_text_of_a_pair_are_of_type_1(word_piece: str):
    pair = pair_of(TextTokenizer(word_piece), 3, 2)
    assert (len(pair), pair.first_length) == (8, 5)
    assert pair.has_text(0)
    assert not pair_of(TextTokenizer(word_piece), 3, 0).has_text(1)


@pytest.mark.parametrize(
    ("first", "second", "max_tokens", "kept"),
    [
        (9, 2, 9, (4, 2)),  # the longer text alone is cut
        (2, 9, 9, (2, 4)),
        (9, 8, 9, (3, 3)),  # both are
        (9, 8, 8, (3, 2)),  # an odd token stays in the longer text
        (8, 9, 8, (2, 3)),
        (9, 9, 8, (2, 3)),
        (9, 9, 2, (0, 0)),
    ],
)
@pytest.mark.parametrize("keeps_end", [False, True])
def test_a_pair_is_cut_at_its_longer_text_first(
    word_piece: str,
    first: int,
    second: int,
    max_tokens: int,
    kept: tuple[int, int],
    keeps_end: bool,
):
    pair = pair_of(TextTokenizer(word_piece), first, second)
    cut = pair.cut_pair(max_tokens, keeps_end)
    plain = [token for token in cut if not token.is_special]
    texts = [cut.encoding.sequence_ids[i] for i in cut.positions]
    assert (texts.count(0), texts.count(1)) == kept
    assert len(cut) == max(sum(kept) + 3, 3)
    assert cut.first_length == kept[0] + 2
    if kept[0]:
        assert (plain[0].start == 0) == (first == kept[0] or not keeps_end)


@given(st.lists(ANY_TEXT | st.tuples(ANY_TEXT, ANY_TEXT), max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_texts_have_the_same_tokens_together_as_alone(word_piece, texts):
    tokenizer = TextTokenizer(word_piece)
    together = tokenizer.encode_all(texts)
    assert [list(each) for each in together if not isinstance(each, TokenizerError)] == [
        list(tokenizer.encode(text) if isinstance(text, str) else tokenizer.encode(*text))
        for text in texts
    ]


def test_a_text_that_the_library_cannot_read_fails_alone():
    split = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated"}
    tokenizer = TextTokenizer(definition(pre_tokenizer=split | {"invert": False}))
    first, bad, last = tokenizer.encode_all(["a", "a" * 40 + "b", "aa"])
    assert isinstance(bad, TokenizerError)
    assert not isinstance(first, TokenizerError)
    assert not isinstance(last, TokenizerError)
    assert list(first) == list(tokenizer.encode("a"))
    assert list(last) == list(tokenizer.encode("aa"))


def test_other_threads_run_while_texts_are_tokenized(word_piece):
    tokenizer, events = TextTokenizer(word_piece), list[str]()
    interval = sys.getswitchinterval()

    def tokenize():
        events.append("begin")
        tokenizer.encode_all(["The dog " * 50_000])
        events.append("end")

    thread = threading.Thread(target=tokenize)
    sys.setswitchinterval(60)  # a thread goes on until it releases the lock itself
    try:
        thread.start()
        while "end" not in events:
            events.append("other")
            time.sleep(0.001)
    finally:
        sys.setswitchinterval(interval)
    thread.join()
    assert "other" in events[events.index("begin") : events.index("end")]
