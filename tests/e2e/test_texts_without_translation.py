"""Texts whose options forbid every translation."""

from pathlib import Path

import grpc
import pytest
from attendant.v1.translation_pb2 import StreamTranslateRequest, TranslateOptions, TranslateRequest
from attendant_server.application.translation_options import EXTRA_OUTPUT_TOKENS, MAX_OUTPUT_RATIO
from attendant_server.bundles import read_bundle
from attendant_server.engine.calls import SearchOptions
from attendant_server.engine.token_rules import SuppressedTokens, TokenRule
from google.rpc import code_pb2

from tests.support.serving import TRANSLATION_MODEL, Running, failure_of

SHORT, LONG = "The dog.", "The dog sees the king."
PROBLEM = "has no translation with the tokens that its options allow"
GREEDY_AND_BEAM = pytest.mark.parametrize("beam_size", [1, 3])


@pytest.fixture
def nothing_is_allowed_for_long_texts(
    running: Running, translation_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Makes options suppress all tokens for long texts, which no request can do yet."""
    manifest = read_bundle(translation_bundle, "fp32", "cpu").manifest
    everything = SuppressedTokens(tuple(range(manifest.architecture.target_embeddings.vocab_size)))
    [short] = running.translation.Translate(TranslateRequest(texts=[SHORT])).translations
    limit = MAX_OUTPUT_RATIO * short.num_source_tokens + EXTRA_OUTPUT_TOKENS

    def rules_of(options: SearchOptions, start_token_id: int, eos_id: int) -> tuple[TokenRule, ...]:
        return (everything,) if options.max_output_tokens > limit else ()

    monkeypatch.setattr("attendant_server.engine.translation_scheduler.rules_of", rules_of)


@pytest.mark.usefixtures("nothing_is_allowed_for_long_texts")
@GREEDY_AND_BEAM
def test_a_text_without_a_translation_is_a_fault_of_that_text(running: Running, beam_size: int):
    request = TranslateRequest(texts=[SHORT, LONG], options=TranslateOptions(beam_size=beam_size))
    num_invalid = running.metric("attendant_invalid_texts_total", model=TRANSLATION_MODEL)
    short, long = running.translation.Translate(request).translations
    assert short.hypotheses
    assert not short.HasField("error")
    assert not long.hypotheses
    assert long.error.code == code_pb2.INVALID_ARGUMENT
    assert long.error.message == f"texts[1]: {PROBLEM}"
    assert (
        running.metric("attendant_invalid_texts_total", model=TRANSLATION_MODEL) == num_invalid + 1
    )


@pytest.mark.usefixtures("nothing_is_allowed_for_long_texts")
@GREEDY_AND_BEAM
def test_a_stream_without_a_translation_fails_by_its_text(running: Running, beam_size: int):
    request = StreamTranslateRequest(text=LONG, options=TranslateOptions(beam_size=beam_size))
    failure = failure_of(lambda: list(running.translation.StreamTranslate(request)))
    assert failure.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert failure.details() == f"text: {PROBLEM}"
