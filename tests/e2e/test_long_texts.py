"""Texts of several sentences, and longer than the model reads, translated by a real server."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from attendant.v1 import text_pb2
from attendant.v1.translation_pb2 import StreamTranslateRequest, TranslateOptions, TranslateRequest
from attendant_client import Client
from google.rpc import code_pb2

from tests.support.bundles import sentence_pairs
from tests.support.serving import Running

SENTENCES = [english for english, _ in sentence_pairs()[:12]]
SPACES = (" ", "  ", "\n", "\r\n\r\n", "\t", " \n")
NO_NORMALIZATION = text_pb2.TEXT_NORMALIZATION_NONE


def translations(running: Running, *texts: str, **fields: Any) -> list[str]:
    response = running.translation.Translate(TranslateRequest(texts=texts, **fields))
    assert not [each.error for each in response.translations if each.HasField("error")]
    return [each.hypotheses[0].text for each in response.translations]


def test_each_sentence_of_a_text_is_translated_as_alone_and_spaces_are_kept(running: Running):
    alone = dict(zip(SENTENCES, translations(running, *SENTENCES), strict=True))
    draw = random.Random(3)
    for _ in range(10):
        sentences = draw.choices(SENTENCES, k=draw.randint(1, 6))
        spaces = draw.choices(SPACES, k=len(sentences) + 1)
        text, expected = spaces[0], spaces[0]
        for sentence, space in zip(sentences, spaces[1:], strict=True):
            text, expected = text + sentence + space, expected + alone[sentence] + space
        assert translations(running, text) == [expected]


def test_a_stream_of_several_sentences_adds_up_to_their_translation(running: Running):
    text = "\n" + "\n\n".join(SENTENCES[:7]) + "  "
    [whole] = translations(running, text)
    *pieces, last = running.translation.StreamTranslate(StreamTranslateRequest(text=text))
    assert len(pieces) > 7
    assert "".join(piece.delta for piece in [*pieces, last]) == whole
    assert last.translation.hypotheses[0].text == whole


def test_a_text_can_be_translated_by_lines_or_as_a_whole(running: Running):
    text = f"{SENTENCES[0]} {SENTENCES[1]}"
    lines = text_pb2.SPLITTING_LINES
    [whole] = translations(running, text, splitting=text_pb2.SPLITTING_NONE)
    [by_lines] = translations(running, f"{text}\n{SENTENCES[2]}", splitting=lines)
    assert by_lines == f"{whole}\n{translations(running, SENTENCES[2])[0]}"


def test_a_sentence_that_is_longer_than_the_model_reads_is_cut_and_nothing_is_lost(
    running: Running,
):
    words = " ".join(SENTENCES).replace(".", "").lower()
    [longest] = running.translation.Translate(
        TranslateRequest(texts=[f"{words}, {words}"])
    ).translations
    assert not longest.HasField("error")
    assert not longest.HasField("truncation")
    [parts] = translations(running, f"{words}, {words}")
    assert parts == longest.hypotheses[0].text
    refused = TranslateRequest(texts=[words * 3], splitting=text_pb2.SPLITTING_NONE)
    [translation] = running.translation.Translate(refused).translations
    assert translation.error.code == code_pb2.INVALID_ARGUMENT


def test_the_longest_text_is_translated_even_with_a_small_queue(start: Callable[..., Running]):
    running = start(max_queued_texts=260, max_text_characters=8_000)
    sentence = SENTENCES[0] + " "
    text = sentence * (8_000 // len(sentence))
    [whole] = translations(running, text, options=TranslateOptions(max_output_tokens=3))
    [alone] = translations(running, SENTENCES[0], options=TranslateOptions(max_output_tokens=3))
    assert whole == (alone + " ") * (8_000 // len(sentence))


def test_hypotheses_of_a_text_join_those_of_its_sentences(running: Running):
    options = TranslateOptions(beam_size=4, num_hypotheses=3)
    first, second, both = running.translation.Translate(
        TranslateRequest(texts=[*SENTENCES[:2], f"{SENTENCES[0]} {SENTENCES[1]}"], options=options)
    ).translations
    for a, b, joined in zip(first.hypotheses, second.hypotheses, both.hypotheses, strict=True):
        assert joined.text == f"{a.text} {b.text}"


@pytest.mark.parametrize("text", ["😀", "-----", "25", "https://example.com/a?b", "😀 25\n\n-"])
def test_a_text_with_nothing_to_translate_comes_back(running: Running, text: str):
    assert translations(running, text) == [text]
    [last] = running.translation.StreamTranslate(StreamTranslateRequest(text=text))
    assert last.delta == last.translation.hypotheses[0].text == text


def test_parts_that_the_model_cannot_write_are_copied(running: Running):
    [plain] = translations(running, SENTENCES[0])
    text = f"😀 {SENTENCES[0]} https://example.com 👍🏽"
    assert translations(running, text) == [f"😀 {plain} https://example.com 👍🏽"]
    inside = SENTENCES[0].replace(" ", " 😀 ", 1)
    [copied] = translations(running, inside)
    assert copied.replace(" 😀", "") == plain
    *pieces, last = running.translation.StreamTranslate(StreamTranslateRequest(text=inside))
    assert "".join(piece.delta for piece in [*pieces, last]) == copied


def test_invisible_characters_and_curly_quotes_do_not_change_a_translation(running: Running):
    sentence = SENTENCES[0]
    hidden = "\u00ad".join(sentence[:6]) + "\u200b" + sentence[6:]
    assert translations(running, hidden) == translations(running, sentence)
    with_unknown, without = running.translation.Translate(
        TranslateRequest(texts=[hidden, sentence], text_normalization=NO_NORMALIZATION)
    ).translations
    assert with_unknown.num_unknown_tokens == 6
    assert without.num_unknown_tokens == 0


def test_the_places_of_sentences_are_told_on_request(running: Running):
    text = f"  {SENTENCES[0]}\n\n{SENTENCES[1]} 😀 {SENTENCES[2]}"
    request = TranslateRequest(texts=[text], return_sentences=True)
    [hypothesis] = running.translation.Translate(request).translations[0].hypotheses
    pairs = [
        (text[s.source_start : s.source_end], hypothesis.text[s.target_start : s.target_end])
        for s in hypothesis.sentences
    ]
    assert pairs == list(zip(SENTENCES[:3], translations(running, *SENTENCES[:3]), strict=True))
    [plain] = running.translation.Translate(TranslateRequest(texts=[text])).translations
    assert not plain.hypotheses[0].sentences


def test_the_client_passes_the_options_of_texts_on(running: Running):
    text = f"{SENTENCES[0]}  {SENTENCES[1]} 😀"
    with Client(f"localhost:{running.server.port}") as client:
        found = client.translate(text, return_sentences=True)
        whole = client.translate(text, splitting="none", text_normalization="none")
        *_, last = deltas = list(client.stream_translate(text))
    assert "".join(deltas) == found.text
    assert last
    first, second = found.hypotheses[0].sentences
    assert text[second.source_start : second.source_end] == SENTENCES[1]
    assert found.text[first.target_end : second.target_start] == "  "
    assert found.num_unknown_tokens == 0
    assert whole.num_unknown_tokens == 1
    assert not whole.hypotheses[0].sentences
