"""Chunks of texts: sentences, and groups of sentences within a number of tokens."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from attendant_server.application.chunking import ChunkedText, ChunkReader
from attendant_server.application.tokenization_options import TokenizationOptions
from attendant_server.errors import InvalidRequest
from attendant_server.tokenizer import TextTokenizer
from hypothesis import given
from hypothesis import strategies as st

BUNDLE = Path(__file__).parents[1] / "recorded/bundles/tiny-bert/1"
DEFINITION = (BUNDLE / "tokenizer.json").read_text(encoding="utf-8")
UNKNOWN_ID = json.loads(DEFINITION)["model"]["vocab"]["[UNK]"]
TOKENIZER = TextTokenizer(DEFINITION, unk_id=UNKNOWN_ID)
SENTENCES = [
    "The dog sees the king.",
    "Der kleine Mann ruft den Lehrer!",
    "The baker, who is old; sees the small dog of the king, and the king sees the baker.",
    "No?",
]
TEXTS = st.lists(st.sampled_from([*SENTENCES, "\n", "\n\n", "  ", "😀"]), max_size=12).map(" ".join)


def read(text, max_tokens=64, groups=False, prompt="", normalizes=False):
    options = TokenizationOptions(
        TOKENIZER, max_tokens, 10_000, prompt_length=len(prompt), normalizes=normalizes
    )
    [found] = ChunkReader(prompt, "", groups)(options, "texts[{}]", [text], 0, True)
    return found


def parts(text, **options):
    return [text[slice(*chunk.span)] for chunk in read(text, **options).chunks]


def test_each_sentence_is_a_chunk():
    assert parts(" ".join(SENTENCES)) == SENTENCES
    assert parts("The dog\nthe king") == ["The dog", "the king"]


@given(TEXTS, st.integers(12, 64), st.booleans(), st.sampled_from(["", "the king: "]))
def test_chunks_are_in_order_and_hold_all_of_the_text_but_white_space(
    text, max_tokens, groups, prompt
):
    found = read(text, max_tokens, groups, prompt)
    if isinstance(found, InvalidRequest):
        assert not text.strip()
        return
    for before, after in pairwise(found.chunks):
        assert not text[before.span[1] : after.span[0]].strip()
    assert not text[: found.chunks[0].span[0]].strip()
    assert not text[found.chunks[-1].span[1] :].strip()
    for chunk in found.chunks:
        content = prompt + text[slice(*chunk.span)]
        assert chunk.token_ids == TOKENIZER.encode(content).token_ids
        assert len(chunk.token_ids) <= max_tokens
    assert len(found) == sum(len(chunk.token_ids) for chunk in found.chunks)


@given(st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=12), st.integers(30, 64))
def test_a_group_ends_only_where_the_next_sentence_does_not_fit(sentences, max_tokens):
    text = " ".join(sentences)
    if any(len(TOKENIZER.encode(each)) > max_tokens for each in sentences):
        return
    chunks = read(text, max_tokens, groups=True).chunks
    alone = {chunk.span[0]: chunk.span for chunk in read(text, max_tokens).chunks}
    for before, after in pairwise(chunks):
        extended = text[before.span[0] : alone[after.span[0]][1]]
        assert len(TOKENIZER.encode(extended)) > max_tokens


def test_a_sentence_that_is_too_long_is_split_at_its_clauses():
    found = parts(SENTENCES[2], max_tokens=24)
    assert " ".join(found) == SENTENCES[2]
    assert all(each.endswith((",", ";", ".")) for each in found)


@pytest.mark.parametrize("prompt", ["", "the king sees the dog: "])
def test_a_text_of_which_no_word_fits_is_refused(prompt):
    found = read("Donaudampfschifffahrt", max_tokens=2, prompt=prompt)
    assert isinstance(found, InvalidRequest)
    assert found.problem.startswith("at most 2 tokens, got ")


def test_parts_that_the_vocabulary_does_not_know_are_left_out_of_normalized_texts():
    text = "The dog sees the king.\n汉字汉字\nThe baker."
    assert len(parts(text)) == 3
    assert parts(text, normalizes=True) == ["The dog sees the king.", "The baker."]
    assert isinstance(read("汉字汉字", normalizes=True), InvalidRequest)
    assert isinstance(read(text), ChunkedText)
