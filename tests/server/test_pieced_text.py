"""Texts are split into pieces that the model can read, and joined again without a loss."""

import pytest
from attendant_export.data.tokenizer import train_translation_tokenizer
from attendant_server.application.descriptions import Splitting
from attendant_server.application.pieced_text import PiecedText, PieceReader
from attendant_server.application.tokenization_options import TokenizationOptions, Truncation
from attendant_server.errors import InvalidRequest
from attendant_server.tokenizer import TextTokenizer
from hypothesis import given
from hypothesis import strategies as st

WORDS = ("the", "dog", "sees", "a", "king", "and", "Dogs", "sing", "well")
UNK_ID = 3
TOKENIZER = TextTokenizer(
    train_translation_tokenizer([" ".join(WORDS) + ".,;:!?-'\"()/ 0123456789"] * 5, 120).to_str(),
    unk_id=UNK_ID,
    normalizes=True,
)
TEXTS = st.lists(
    st.sampled_from(
        (
            *WORDS,
            " ",
            " ",
            " ",
            "  ",
            "\n",
            ". ",
            ", ",
            "; ",
            "!",
            "? ",
            "(",
            ")",
            "😀",
            "https://a.bc/d",
        )
    ),
    max_size=60,
).map("".join)


def read(
    text: str,
    splitting: Splitting = Splitting.SENTENCES,
    max_tokens: int = 40,
    normalizes: bool = True,
    truncation: Truncation = Truncation.REFUSE,
    language: str = "en",
) -> PiecedText | InvalidRequest:
    options = TokenizationOptions(
        TOKENIZER, max_tokens, 10_000, truncation=truncation, normalizes=normalizes
    )
    reader = PieceReader(splitting, language)
    for one_by_one in (True, False):
        [found] = reader(options, "texts[{}]", [text], 7, one_by_one)
    return found


def pieces(text: str, **options: object) -> PiecedText:
    found = read(text, **options)  # type: ignore[arg-type]
    assert isinstance(found, PiecedText)
    return found


@given(TEXTS, st.sampled_from([Splitting.LINES, Splitting.SENTENCES]), st.integers(12, 40))
def test_every_piece_fits_and_the_pieces_join_to_the_text(
    text: str, splitting: Splitting, max_tokens: int
):
    found = read(text, splitting, max_tokens)
    if isinstance(found, InvalidRequest):
        assert not text.strip()
        return
    assert all(len(token_ids) <= max_tokens for token_ids in found.token_ids)
    contents = [
        each.with_copies(each.text, each.places_of_copies(each.text)) for each in found.pieces
    ]
    joined, places = found.join(contents)
    assert sorted(joined.replace(" ", "")) == sorted(text.replace(" ", ""))
    if not any(each.copies for each in found.pieces):
        assert joined == text
        assert places == [(each.start, each.end) for each in found.pieces]
    assert [joined[start:end] for start, end in places] == contents


@given(TEXTS)
def test_without_normalization_and_splitting_a_text_is_read_as_it_is(text: str):
    found = read(text, Splitting.NONE, 1000, normalizes=False)
    if isinstance(found, InvalidRequest):
        assert not text.strip()
        return
    [token_ids] = found.token_ids
    assert token_ids == TOKENIZER.encode(text, normalizes=False).token_ids
    assert found.join(["The translation"])[0] == "The translation"


def test_a_text_that_is_not_split_is_refused_or_truncated_if_it_is_too_long():
    text = "the dog sees a king. " * 20
    refused = read(text, Splitting.NONE)
    assert isinstance(refused, InvalidRequest)
    assert str(refused).startswith("texts[7]: at most 40 tokens, got ")
    cut = pieces(text, splitting=Splitting.NONE, truncation=Truncation.RIGHT)
    assert len(cut) == 40 < cut.num_original_tokens


def test_a_word_that_is_longer_than_the_model_reads_is_cut():
    found = pieces("dog" * 100, max_tokens=12)
    assert len(found.pieces) > 1
    assert "".join(each.text for each in found.pieces) == "dog" * 100


def test_a_limit_without_room_for_any_text_is_a_fault_of_the_text():
    refused = read("the dog", max_tokens=1)
    assert isinstance(refused, InvalidRequest)
    assert str(refused) == "texts[7]: at most 1 tokens, got 2"


@pytest.mark.parametrize(
    ("last", "following", "gap"), [("Yes.", "No.", " "), ("好。", "不。", ""), ("Yes.", "不。", "")]
)
def test_translations_of_adjacent_sentences_get_a_space_if_their_script_has_spaces(
    last: str, following: str, gap: str
):
    found = pieces("你好。好！", language="zh", normalizes=False)
    joined, _ = found.join([last, following])
    assert len(found.pieces) == 2
    assert joined == f"{last}{gap}{following}"


def test_a_text_of_nothing_but_copies_has_no_pieces_but_one_of_spaces_is_a_fault():
    assert pieces("😀 25").pieces == []
    for text, normalizes in ((" \n", True), ("", True), ("", False)):
        fault = read(text, normalizes=normalizes)
        assert isinstance(fault, InvalidRequest)
        assert fault.field == "texts[7]"
