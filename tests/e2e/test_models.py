import grpc
import pytest
from attendant.v1 import bundle_pb2, embedding_pb2, model_pb2, translation_pb2

from tests.support.serving import Running, failure_of


def info(running: Running) -> dict[str, model_pb2.ModelInfo]:
    models = running.models.ListModels(model_pb2.ListModelsRequest()).models
    return {model.name: model for model in models}


def test_all_models_are_listed_by_name_with_what_they_are_for(running: Running):
    models = info(running)
    assert list(models) == ["tiny-bert", "tiny-en-de"]
    assert models["tiny-en-de"].kind == bundle_pb2.MODEL_KIND_TRANSLATION
    assert models["tiny-en-de"].source_language == "en"
    assert models["tiny-en-de"].target_language == "de"
    assert models["tiny-bert"].kind == bundle_pb2.MODEL_KIND_EMBEDDING
    assert list(models["tiny-bert"].languages) == ["en", "de"]
    for model in models.values():
        assert model.state == model_pb2.MODEL_STATE_READY
        assert model.is_default
        assert model.precision == "fp32"


def test_a_model_tells_its_limits_and_the_servers(running: Running):
    model = running.models.GetModel(model_pb2.GetModelRequest(model="tiny-en-de"))
    assert set(model.available_precisions) == {"fp32", "int8", "fp16"}
    assert model.limits.max_source_tokens == 64
    assert model.limits.max_target_tokens == 64
    assert model.request_limits.max_texts == 256
    assert model.request_limits.max_beam_size == 8
    assert model.request_limits.max_top_k == 0
    assert model.translation_sizes.d_model == 32
    assert model.license == "CC0-1.0"
    assert model.parity.precisions


def test_an_embedding_model_tells_its_pooling(running: Running):
    model = running.models.GetModel(model_pb2.GetModelRequest(model="tiny-bert/1"))
    assert model.embedding_sizes.d_model == 32
    assert model.default_pooling != embedding_pb2.POOLING_UNSPECIFIED
    assert model.request_limits.max_beam_size == 0
    assert model.request_limits.max_top_k == 100


def test_a_name_must_be_given_where_there_are_several_models(running: Running):
    failure = failure_of(running.models.GetModel, model_pb2.GetModelRequest())
    assert failure.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert failure.details().startswith("model: ")
    request = model_pb2.TokenizeRequest(texts=["The dog."])
    failure = failure_of(running.models.Tokenize, request)
    assert failure.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "name",
    ["unknown", "tiny-bert/2", "tiny-bert/", "/", "../../etc/passwd", "%00", "a\nb", "x" * 10_000],
)
def test_an_unknown_model_is_not_found_and_its_name_not_repeated(running: Running, name: str):
    failure = failure_of(running.models.GetModel, model_pb2.GetModelRequest(model=name))
    assert failure.code() == grpc.StatusCode.NOT_FOUND
    assert failure.details() == "model: no such model; there are tiny-bert/1, tiny-en-de/1"


def test_a_model_of_another_kind_is_refused(running: Running):
    to_translate = translation_pb2.TranslateRequest(model="tiny-bert", texts=["The dog."])
    failure = failure_of(running.translation.Translate, to_translate)
    assert failure.code() == grpc.StatusCode.INVALID_ARGUMENT
    wanted = "model: tiny-bert/1 is no translation model"
    assert failure.details() == wanted
    to_embed = embedding_pb2.EmbedRequest(model="tiny-en-de/1", texts=["The dog."])
    failure = failure_of(running.embedding.Embed, to_embed)
    assert failure.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_text_is_cut_into_the_tokens_that_the_model_reads(running: Running):
    text = "The  old dog."
    for model in ("tiny-en-de", "tiny-bert"):
        request = model_pb2.TokenizeRequest(model=model, texts=[text, ""])
        whole, empty = running.models.Tokenize(request).results
        assert any(token.special for token in whole.tokens)
        assert "old" in [text[t.start : t.end].strip() for t in whole.tokens]
        assert empty.tokens
        assert all(token.special for token in empty.tokens)


def test_a_text_longer_than_the_model_reads_is_cut_into_all_its_tokens(running: Running):
    request = model_pb2.TokenizeRequest(model="tiny-bert", texts=["dog " * 1000])
    [result] = running.models.Tokenize(request).results
    assert len(result.tokens) == 1002


def test_only_translation_models_have_a_target_side(running: Running):
    request = model_pb2.TokenizeRequest(
        model="tiny-en-de", texts=["Der Hund."], side=model_pb2.TEXT_SIDE_TARGET
    )
    assert running.models.Tokenize(request).results[0].tokens
    request.model = "tiny-bert"
    failure = failure_of(running.models.Tokenize, request)
    assert failure.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert failure.details().startswith("side: ")
