"""The application without a transport: plain requests and plain answers."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import Any

import numpy as np
import pytest
from attendant.v1 import bundle_pb2, embedding_pb2, model_pb2, text_pb2, translation_pb2
from attendant_server.application import streaming
from attendant_server.application.application import Application
from attendant_server.application.descriptions import ModelKind, Pooling
from attendant_server.application.embedding import EmbeddingRequest
from attendant_server.application.mask_filling import MaskFillingRequest
from attendant_server.application.models import TextSide, TokenizationRequest
from attendant_server.application.scoring import ScoringRequest
from attendant_server.application.token_embedding import TokenEmbeddingRequest
from attendant_server.application.tokenization_options import (
    Truncation,
)
from attendant_server.application.translation import StreamRequest, TranslationRequest
from attendant_server.application.translation_options import TranslationOptions
from attendant_server.engine.calls import TranslateCall
from attendant_server.errors import DeadlineExceeded, InvalidRequest, ModelNotFound
from attendant_server.tokenizer import TextTokenizer

from tests.support.application import request_limits, running_application
from tests.support.serving import wait_until

TEXT = "The dog sees the king."


@pytest.fixture(scope="module")
def application() -> Iterator[Application]:
    with running_application(request_limits()) as application:
        yield application


def translate(application: Application, *texts: str, **options: Any) -> Any:
    request = TranslationRequest(texts, options=TranslationOptions(**options))
    return asyncio.run(application.translator.translate(request, None))


def test_the_application_is_imported_without_grpc_and_protobuf():
    code = (
        "import sys, attendant_server.application.application; "
        "print({'grpc', 'google.protobuf', 'attendant'} & {*sys.modules})"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "set()"


def test_texts_are_translated_and_a_fault_is_the_result_of_its_text_alone(application: Application):
    answer = translate(application, TEXT, " ", TEXT, return_tokens=True)
    first, fault, last = answer.translations
    assert first == last
    assert isinstance(fault, InvalidRequest)
    assert fault.field == "texts[1]"
    [hypothesis] = first.hypotheses
    assert 0 < len(hypothesis.token_ids) == len(hypothesis.token_texts)
    assert len(hypothesis.token_ids) == len(hypothesis.log_probabilities)
    assert answer.model == "tiny-en-de/1"
    assert answer.num_input_tokens == 2 * first.num_source_tokens
    assert answer.num_output_tokens == 2 * len(hypothesis.token_ids)


def test_a_stream_adds_up_to_the_whole_translation_and_ends_with_it(application: Application):
    async def stream() -> list[Any]:
        return [piece async for piece in application.translator.stream(StreamRequest(TEXT), None)]

    *pieces, last = asyncio.run(stream())
    whole = translate(application, TEXT)
    assert all(piece.answer is None for piece in pieces)
    assert last.answer.translations == whole.translations
    text = whole.translations[0].hypotheses[0].text
    assert "".join(piece.delta for piece in [*pieces, last]) == text


def test_a_stream_decodes_only_the_newest_of_the_prefixes_that_wait(
    application: Application, monkeypatch: pytest.MonkeyPatch
):
    options = TranslationOptions(min_output_tokens=15)
    calls, decoded = list[TranslateCall](), list[Any]()
    decode_words = TextTokenizer.decode_words

    def new_call(*arguments: Any) -> TranslateCall:
        calls.append(TranslateCall(*arguments))
        return calls[-1]

    def decode(tokenizer: TextTokenizer, token_ids: Any) -> str:
        wait_until(calls[0].future.done)
        decoded.append(token_ids)
        return decode_words(tokenizer, token_ids)

    async def stream() -> str:
        pieces = application.translator.stream(StreamRequest(TEXT, options=options), None)
        return "".join([piece.delta async for piece in pieces])

    monkeypatch.setattr(streaming, "TranslateCall", new_call)
    monkeypatch.setattr(TextTokenizer, "decode_words", decode)
    text = asyncio.run(stream())
    [whole] = translate(application, TEXT, min_output_tokens=15).translations
    assert text == whole.hypotheses[0].text
    assert len(decoded) <= 2  # the first and the newest


def test_a_stream_that_is_closed_early_leaves_nothing_running(application: Application):
    async def stream() -> int:
        pieces = application.translator.stream(StreamRequest(TEXT), None)
        await anext(pieces)
        await pieces.aclose()
        await asyncio.sleep(0)
        return len(asyncio.all_tasks())

    assert asyncio.run(stream()) == 1


def test_the_fault_of_a_stream_is_raised(application: Application):
    with pytest.raises(InvalidRequest, match="^text: is empty"):
        asyncio.run(anext(application.translator.stream(StreamRequest(" "), None)))


def test_pairs_are_scored_with_the_tokens_of_their_targets(application: Application):
    request = ScoringRequest(
        [TEXT, ""], ["Der Hund sieht den König.", "Der"], length_penalty=0.0, return_tokens=True
    )
    answer = asyncio.run(application.scorer.score(request, None))
    score, fault = answer.scores
    assert not isinstance(score, InvalidRequest)
    assert score.target is not None
    assert len(score.log_probabilities) == len(score.target)
    assert score.score == score.log_probability
    assert isinstance(fault, InvalidRequest)
    assert fault.field == "pairs[1].source"


def test_vectors_have_the_length_that_was_asked_for_and_zeros_for_faults(application: Application):
    request = EmbeddingRequest([TEXT, " "], normalize=True, pooling=Pooling.CLS)
    answer = asyncio.run(application.embedder.embed(request, None))
    assert np.linalg.norm(answer.vectors.numbers, axis=1) == pytest.approx([1.0, 0.0])
    assert [isinstance(text, InvalidRequest) for text in answer.texts] == [False, True]


def test_tokens_have_a_vector_from_each_layer(application: Application):
    request = TokenEmbeddingRequest([TEXT], layers=[0, -1])
    [text] = asyncio.run(application.token_embedder.embed(request, None)).texts
    assert not isinstance(text, InvalidRequest)
    assert text.vectors.numbers.shape[:2] == (2, len(text.tokens))


def test_masks_are_filled_with_the_likeliest_tokens_first(application: Application):
    request = MaskFillingRequest(["The [MASK] sees.", "no masks"], top_k=3)
    filled, fault = asyncio.run(application.mask_filler.fill(request, None)).texts
    assert not isinstance(filled, InvalidRequest)
    [mask] = filled.masks
    assert "The [MASK] sees."[mask.start : mask.end] == "[MASK]"
    assert len(mask.token_ids) == len(mask.token_texts) == 3
    assert sorted(mask.probabilities, reverse=True) == mask.probabilities
    assert str(fault) == "texts[1]: has no mask"


def test_tokens_are_shown_as_either_side_reads_them(application: Application):
    request = TokenizationRequest([TEXT], "tiny-en-de", TextSide.TARGET)
    answer = asyncio.run(application.models.tokenize(request))
    [text] = answer.texts
    assert not isinstance(text, InvalidRequest)
    assert answer.size == len(text)
    bert = TokenizationRequest([TEXT], "tiny-bert", TextSide.TARGET)
    with pytest.raises(InvalidRequest, match="^side: tiny-bert/1 has no target side$"):
        asyncio.run(application.models.tokenize(bert))


def test_models_are_described_in_plain_values(application: Application):
    assert [model.description.key for model in application.models.list()] == [
        "tiny-bert/1",
        "tiny-en-de/1",
    ]
    model = application.models.get("tiny-en-de")
    assert model.is_ready
    assert model.is_default
    assert model.description.published["translation_sizes"]["vocab_size"] > 0
    with pytest.raises(ModelNotFound):
        application.models.get("nothing")


@pytest.mark.parametrize("field", ["truncation", "pooling"])
def test_a_number_without_a_value_is_refused_with_the_name_of_its_field(
    application: Application, field: str
):
    numbers: dict[str, Any] = {field: 7}
    request = EmbeddingRequest([TEXT], **numbers)
    with pytest.raises(InvalidRequest, match=f"^{field}: has no value 7$"):
        asyncio.run(application.embedder.embed(request, None))


def test_a_call_whose_deadline_has_passed_is_not_answered(application: Application):
    with pytest.raises((DeadlineExceeded, CancelledError)):
        asyncio.run(application.translator.translate(TranslationRequest([TEXT]), 0.0))


@pytest.mark.parametrize(
    ("plain", "contract", "prefix"),
    [
        (Truncation, text_pb2.Truncation, "TRUNCATION_"),
        (Pooling, embedding_pb2.Pooling, "POOLING_"),
        (TextSide, model_pb2.TextSide, "TEXT_SIDE_"),
        (ModelKind, bundle_pb2.ModelKind, "MODEL_KIND_"),
    ],
)
def test_values_are_numbered_as_in_the_contract(plain: Any, contract: Any, prefix: str):
    numbers = {f"{prefix}{value.name}": value.value for value in plain}
    assert numbers | {f"{prefix}UNSPECIFIED": 0} == dict(contract.items())


def test_every_option_of_the_contract_is_one_of_the_application():
    contract = translation_pb2.TranslateOptions.DESCRIPTOR.fields_by_name
    assert set(contract) == set(TranslationOptions.__dataclass_fields__)


def test_token_texts_are_looked_up_only_if_tokens_are_asked_for(
    application: Application, monkeypatch: pytest.MonkeyPatch
):
    asked_for = list[Any]()

    def tokens(_: TextTokenizer, token_ids: Any) -> list[str]:
        asked_for.append(token_ids)
        return ["?"]

    monkeypatch.setattr(TextTokenizer, "tokens", tokens)
    [plain] = translate(application, TEXT).translations
    assert not asked_for
    [whole] = translate(application, TEXT, return_tokens=True).translations
    [hypothesis] = whole.hypotheses
    assert asked_for == [hypothesis.token_ids]
    assert plain.hypotheses[0].text == hypothesis.text
