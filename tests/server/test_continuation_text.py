"""Texts of continuations: after their prompts, before stop texts, and as far as settled."""

import json

import pytest
from attendant_server.application.continuation_text import ContinuationWriter
from attendant_server.application.stop_texts import StopTexts
from attendant_server.tokenizer import TextTokenizer
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tests.support.language_models import tiny_tokenizer


def metaspace() -> Tokenizer:
    """A vocabulary with the marks of SentencePiece and tokens of bytes."""
    words = ["<unk>", "<s>", "</s>", "\u2581", "\u2581a", "a", "b", "\u2581ab", "ab", ".", "\n"]
    words += [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(
        models.BPE({word: i for i, word in enumerate(words)}, [], byte_fallback=True)
    )
    tokenizer.add_special_tokens(words[:3])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer


def with_decoder(decoder) -> Tokenizer:
    """A vocabulary of words and their parts, with another decoder."""
    tokenizer = metaspace()
    words = ["<unk>", "<s>", "</s>", "a", "##b", "##a", "b</w>", "b", "##'", ".", "'s", "|", "ab"]
    words += [f"w{i}" for i in range(260)]
    tokenizer.model = models.WordLevel({word: i for i, word in enumerate(words)}, "<unk>")
    tokenizer.decoder = decoder
    return tokenizer


TOKENIZERS = {
    "bytes": TextTokenizer(tiny_tokenizer().to_str()),
    "metaspace": TextTokenizer(metaspace().to_str()),
    "word pieces": TextTokenizer(with_decoder(decoders.WordPiece()).to_str()),
    "marked ends": TextTokenizer(with_decoder(decoders.BPEDecoder()).to_str()),
    "no repetitions": TextTokenizer(with_decoder(decoders.CTC(pad_token="a")).to_str()),
}
ANY_TOKENIZER = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
tokens = st.lists(st.integers(3, 250), max_size=12)


def writer_of(tokenizer, prompt, stop_texts):
    return ContinuationWriter(tokenizer, prompt, StopTexts(stop_texts))


def plain(tokenizer, token_ids):
    return [i for i in token_ids if tokenizer.is_plain(i)]


def end_of(writer, token_ids):
    """Number of tokens after which a search stops, or of all of them."""
    if writer.stops is None:
        return len(token_ids)
    numbers = range(1, len(token_ids) + 1)
    return next((n for n in numbers if writer.stops(token_ids[:n])), len(token_ids))


@ANY_TOKENIZER
@given(prompt=tokens, token_ids=tokens)
def test_prompt_and_continuation_are_the_whole_text(tokenizer, prompt, token_ids):
    whole, before = tokenizer.decode([*prompt, *token_ids]), tokenizer.decode(prompt)
    text = writer_of(tokenizer, prompt, []).written(token_ids).text
    if whole.startswith(before):  # otherwise the tokens complete a character of the prompt
        assert before + text == whole


@ANY_TOKENIZER
@given(data=st.data(), prompt=tokens, token_ids=tokens)
def test_a_search_stops_at_the_token_that_completes_a_stop_text(tokenizer, data, prompt, token_ids):
    text = writer_of(tokenizer, prompt, []).written(token_ids).text
    spans = st.tuples(st.integers(0, len(text)), st.integers(1, 6))
    parts = [text[start : start + n] for start, n in data.draw(st.lists(spans, max_size=3))]
    stop_texts = [part for part in parts if part and "\ufffd" not in part]
    writer = writer_of(tokenizer, prompt, stop_texts)
    end = end_of(writer, token_ids)
    found = writer.written(token_ids[:end])
    assert found == writer.written(token_ids)
    assert bool(found.stop_text) == bool(stop_texts)
    assert not any(stop in found.text for stop in stop_texts)
    if stop_texts:
        assert text.startswith(found.text + found.stop_text)
        assert not any(s in writer._decoded(token_ids[: end - 1]) for s in stop_texts)


def settled_at_once(tokenizer, prompt, stop_texts, token_ids):
    """The settled text of a continuation, all of whose tokens are decoded."""
    context = plain(tokenizer, prompt)[-4:]
    before = tokenizer.decode(context)
    text = tokenizer.decode_settled([*context, *token_ids]).text
    if len(text) < len(before):
        return ""
    if text.startswith(before):
        text = text[len(before) :]
    else:
        text = tokenizer.decode_settled(token_ids).text
    stops = StopTexts(stop_texts)
    return stops.settled(text)


@ANY_TOKENIZER
@given(data=st.data(), prompt=tokens, token_ids=st.lists(st.integers(0, 270), max_size=40))
def test_the_parts_of_a_growing_continuation_are_those_of_decoding_it_all(
    tokenizer, data, prompt, token_ids
):
    whole = writer_of(tokenizer, prompt, []).written(token_ids).text
    starts = data.draw(st.lists(st.integers(0, len(whole)), max_size=2))
    stop_texts = [part for start in starts if (part := whole[start : start + 3])]
    growing, sent, end = writer_of(tokenizer, prompt, stop_texts).growing(), "", 0
    while end < len(token_ids):
        end = data.draw(st.integers(end + 1, len(token_ids)))
        sent += growing.appended(token_ids[:end])
        assert sent == settled_at_once(tokenizer, prompt, stop_texts, token_ids[:end])


@ANY_TOKENIZER
@given(data=st.data(), prompt=tokens, token_ids=tokens)
def test_settled_texts_grow_and_never_have_the_beginning_of_a_stop_text(
    tokenizer, data, prompt, token_ids
):
    text = writer_of(tokenizer, prompt, []).written(token_ids).text
    start = data.draw(st.integers(0, len(text)))
    stop_texts = [part] if (part := text[start : start + 4].strip("\ufffd")) else []
    writer = writer_of(tokenizer, prompt, stop_texts)
    end = end_of(writer, token_ids)
    final, sent, growing = writer.written(token_ids[:end]).text, "", writer.growing()
    for number in range(end + 1):
        sent += growing.appended(token_ids[:number])
        assert sent == settled_at_once(tokenizer, prompt, stop_texts, token_ids[:number])
    assert final.startswith(sent)
    # All but an incomplete character at the end, and what a stop text could begin with.
    if not stop_texts and "\ufffd" not in final and tokenizer is TOKENIZERS["bytes"]:
        assert sent == final


def test_the_stop_text_that_is_complete_first_ends_a_continuation():
    stop_texts = StopTexts(["abcd", "bc"])
    assert stop_texts.cut("xabcd") == ("xa", "bc")
    assert StopTexts(["bc", "abc"]).cut("xabcx") == ("x", "abc")
    assert StopTexts(["bc"]).cut("xbx") == ("xbx", "")


def test_an_end_that_could_begin_a_stop_text_is_held_back():
    stop_texts = StopTexts(["\n\nUser:", "###"])
    assert stop_texts.settled("Yes.\n\nUs") == "Yes."
    assert stop_texts.settled("Yes.\n\nUse") == "Yes."
    assert stop_texts.settled("Yes.\n\nUsing") == "Yes.\n\nUsing"
    assert stop_texts.settled("Yes #") == "Yes "
    assert stop_texts.settled("Yes ### a") == "Yes "


def test_special_tokens_are_read_by_a_tokenizer_that_was_made_for_it():
    definition = tiny_tokenizer().to_str()
    special = next(t for t in json.loads(definition)["added_tokens"] if t["id"] == 1)["content"]
    text = f"a{special}b"
    plain_ids = TextTokenizer(definition).encode(text).token_ids
    assert 1 not in plain_ids
    read = TextTokenizer(definition, reads_special_tokens=True).encode(text)
    assert read.token_ids[1] == 1
    assert [(token.start, token.end) for token in read][1] == (1, 1 + len(special))


@ANY_TOKENIZER
def test_a_growing_continuation_decodes_each_token_a_few_times(tokenizer, monkeypatch):
    growing, decoded = writer_of(tokenizer, [60, 61], ["w9w9"]).growing(), []
    decode = TextTokenizer.decode

    def counted(self, token_ids):
        decoded.append(len(token_ids))
        return decode(self, token_ids)

    monkeypatch.setattr(TextTokenizer, "decode", counted)
    token_ids = [60 + i % 7 for i in range(1000)]
    for number in range(1, 1001):
        growing.appended(token_ids[:number])
    assert sum(decoded) < 8 * 1000
