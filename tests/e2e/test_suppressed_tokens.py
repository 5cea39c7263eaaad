"""Tokens that a call forbids: by id, by text, the unknown token, and repeated n-grams."""

import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from attendant.v1.model_pb2 import TEXT_SIDE_TARGET, TokenizeRequest
from attendant.v1.translation_pb2 import Hypothesis, TranslateOptions, TranslateRequest

from tests.support.bundles import sentence_pairs
from tests.support.serving import Running, failure_of

SENTENCES = [english for english, _ in sentence_pairs()[:12]]
EVERY_SEARCH = pytest.mark.parametrize("beam_size", [1, 4])


def translate(running: Running, **options: Any) -> list[Hypothesis]:
    request = TranslateRequest(
        texts=SENTENCES, options=TranslateOptions(return_tokens=True, **options)
    )
    return [each.hypotheses[0] for each in running.translation.Translate(request).translations]


def ids(hypothesis: Hypothesis) -> list[int]:
    return [token.id for token in hypothesis.tokens]


@EVERY_SEARCH
def test_tokens_are_suppressed_by_their_ids(running: Running, beam_size: int):
    plain = translate(running, beam_size=beam_size)
    firsts = {ids(hypothesis)[0] for hypothesis in plain}
    found = translate(running, beam_size=beam_size, suppressed_token_ids=firsts)
    assert not firsts & {token for hypothesis in found for token in ids(hypothesis)}
    assert [h.text for h in translate(running, beam_size=beam_size)] == [h.text for h in plain]


@EVERY_SEARCH
def test_a_text_suppresses_the_tokens_that_write_it(running: Running, beam_size: int):
    plain = translate(running, beam_size=beam_size)
    marked = {t.text for h in plain for t in h.tokens if t.text.startswith("\u2581")} - {"\u2581"}
    texts = {text.removeprefix("\u2581") for text in marked}
    found = translate(running, beam_size=beam_size, suppressed_texts=texts)
    written = {token.text.removeprefix("\u2581") for h in found for token in h.tokens}
    assert marked
    assert not texts & written


@EVERY_SEARCH
def test_the_unknown_token_is_suppressed_on_request(
    running: Running, translation_bundle: Path, beam_size: int
):
    tokenizer = json.loads((translation_bundle / "tokenizer.json").read_text())
    request = TokenizeRequest(model="tiny-en-de", texts=["犬"], side=TEXT_SIDE_TARGET)
    tokens = [t for t in running.models.Tokenize(request).results[0].tokens if not t.special]
    unknown = tokens[-1].id
    *every_other, spared = set(tokenizer["model"]["vocab"].values()) - {unknown}
    options = {"beam_size": beam_size, "max_output_tokens": 6, "min_output_tokens": 6}
    likely = translate(running, suppressed_token_ids=every_other, **options)
    assert any(unknown in ids(hypothesis) for hypothesis in likely)
    found = translate(running, suppressed_token_ids=every_other, allow_unknown=False, **options)
    assert all(ids(hypothesis) == [spared] * 6 for hypothesis in found)


@EVERY_SEARCH
def test_no_ngram_repeats_if_a_call_forbids_it(running: Running, beam_size: int):
    options = {"beam_size": beam_size, "min_output_tokens": 30, "max_output_tokens": 30}
    plain = translate(running, **options)
    found = translate(running, no_repeat_ngram_size=2, **options)
    for hypotheses, may_repeat in ((plain, True), (found, False)):
        pairs = [list(zip(ids(h), ids(h)[1:], strict=False)) for h in hypotheses]
        assert any(len(set(each)) < len(each) for each in pairs) is may_repeat
    assert translate(running, no_repeat_ngram_size=0, **options) == plain


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"no_repeat_ngram_size": 65}, "options.no_repeat_ngram_size: must be between 0 and 64"),
        ({"suppressed_token_ids": [3, 2**32 - 1]}, "options.suppressed_token_ids[1]: tiny-en-de/1"),
        ({"suppressed_token_ids": [3] * 257}, "options.suppressed_token_ids: at most 256, got 257"),
        ({"suppressed_texts": ["d", ""]}, "options.suppressed_texts[1]: tiny-en-de/1 has no token"),
        ({"suppressed_texts": ["two words"]}, "options.suppressed_texts[0]: tiny-en-de/1"),
        ({"suppressed_texts": ["d"] * 257}, "options.suppressed_texts: at most 256, got 257"),
        ({"repetition_penalty": 1.2}, "options.repetition_penalty: the graphs of tiny-en-de/1"),
        ({"repetition_penalty": 0}, "options.repetition_penalty: must be between 0.01 and 100"),
    ],
)
def test_bad_values_name_their_field(running: Running, options: dict[str, Any], message: str):
    request = TranslateRequest(texts=SENTENCES, options=TranslateOptions(**options))
    failure = failure_of(running.translation.Translate, request)
    assert failure.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert failure.details().startswith(message)
