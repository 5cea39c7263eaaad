"""KServe's protocol with Triton's extensions, beside the own protocol of a real server."""

import time
from typing import Any

import numpy as np
import pytest
from attendant.v1.embedding_pb2 import (
    ClassifyRequest,
    EmbedRequest,
    EmbedSparseRequest,
)
from attendant.v1.language_model_pb2 import GenerateOptions, GenerateRequest
from attendant.v1.translation_pb2 import TranslateOptions, TranslateRequest
from attendant_server import __version__
from attendant_vendored.inference import grpc_service_pb2 as messages
from attendant_vendored.inference import grpc_service_pb2_grpc, model_config_pb2

from tests.support.kserve import infer_request, values

TEXTS = ["The dog sees the king.", "The old cat.", "A house"]


def own_request(message: Any, **fields: Any) -> Any:
    """A request of the own protocol; enums may be given by their names."""
    return message(**fields)


def numbers(response):
    """The vectors of an answer to Embed."""
    tensor = response.embeddings
    return np.frombuffer(tensor.data, "<f4").reshape(tensor.shape)


@pytest.mark.parametrize("is_raw", [True, False])
@pytest.mark.parametrize("is_column", [True, False])
def test_translations_are_those_of_translate(running, kserve, is_raw, is_column):
    request = infer_request("tiny-en-de", {"TEXT": TEXTS}, is_raw=is_raw, is_column=is_column)
    response = kserve.ModelInfer(request)
    own = running.translation.Translate(
        own_request(TranslateRequest, model="tiny-en-de", texts=TEXTS)
    )
    best = [each.hypotheses[0] for each in own.translations]
    found = values(response)
    shape = (3, 1) if is_column else (3,)
    assert {name: array.shape for name, array in found.items()} == dict.fromkeys(found, shape)
    assert list(found["TEXT"].flat) == [each.text for each in best]
    np.testing.assert_allclose(found["SCORE"].flat, [each.score for each in best], rtol=1e-6)
    assert set(found["FINISH_REASON"].flat) <= {"FINISH_REASON_STOP", "FINISH_REASON_LENGTH"}
    assert (response.model_name, response.model_version, response.id) == ("tiny-en-de", "1", "42")
    assert bool(response.raw_output_contents) is is_raw
    counts = own.token_counts
    assert response.parameters["num_input_tokens"].int64_param == counts.num_input_tokens
    assert response.parameters["num_output_tokens"].int64_param == counts.num_output_tokens


def test_parameters_are_the_options_of_translate_by_their_names(running, kserve):
    request = infer_request(
        "tiny-en-de",
        {"TEXT": TEXTS},
        outputs=["TEXT", "SCORE"],
        beam_size=4,
        num_hypotheses="2",
        length_penalty=0.5,
        target_language="de",
        splitting="SPLITTING_NONE",
        suppressed_token_ids="[7, 9]",
    )
    options = TranslateOptions(
        beam_size=4, num_hypotheses=2, length_penalty=0.5, suppressed_token_ids=[7, 9]
    )
    own = running.translation.Translate(
        own_request(
            TranslateRequest,
            model="tiny-en-de",
            texts=TEXTS,
            options=options,
            target_language="de",
            splitting="SPLITTING_NONE",
        )
    )
    found = values(kserve.ModelInfer(request))
    assert list(found) == ["TEXT", "SCORE"]
    assert found["TEXT"].tolist() == [[h.text for h in t.hypotheses] for t in own.translations]


def test_samples_are_those_of_their_seed_and_an_answer_states_it(kserve):
    request = infer_request("tiny-en-de", {"TEXT": TEXTS}, temperature=1.5, seed=7)
    first, second = kserve.ModelInfer(request), kserve.ModelInfer(request)
    assert first.outputs == second.outputs
    assert first.raw_output_contents == second.raw_output_contents
    assert first.parameters["seed"].int64_param == 7
    drawn = kserve.ModelInfer(infer_request("tiny-en-de", {"TEXT": TEXTS}, sampling=True))
    assert "seed" in drawn.parameters


def test_hypotheses_that_a_text_lacks_are_empty_with_a_score_of_minus_infinity(kserve):
    request = infer_request(
        "tiny-en-de",
        {"TEXT": ["The old cat.", "The dog."]},
        num_hypotheses=8,
        max_output_tokens=1,
        return_alternatives=True,
    )
    found = values(kserve.ModelInfer(request))
    assert found["TEXT"].shape == found["SCORE"].shape == (2, 8)
    lacking = found["FINISH_REASON"] == ""
    assert np.isneginf(found["SCORE"][lacking]).all()
    assert np.isfinite(found["SCORE"][~lacking]).all()


def test_continuations_are_those_of_generate(running, kserve):
    prompts = ["The dog", "A"]
    request = infer_request("tiny-lm", {"TEXT": prompts}, max_output_tokens=6)
    options = GenerateOptions(max_output_tokens=6)
    own = running.language.Generate(
        own_request(GenerateRequest, model="tiny-lm", prompts=prompts, options=options)
    )
    found = values(kserve.ModelInfer(request))["TEXT"]
    assert found.tolist() == [each.hypotheses[0].text for each in own.generations]


@pytest.mark.parametrize("is_raw", [True, False])
def test_embeddings_are_those_of_embed(running, kserve, is_raw):
    request = infer_request("tiny-bert", {"TEXT": TEXTS}, is_raw=is_raw, pooling="POOLING_CLS")
    own = running.embedding.Embed(
        own_request(EmbedRequest, model="tiny-bert", texts=TEXTS, pooling=2)
    )
    found = values(kserve.ModelInfer(request))
    np.testing.assert_array_equal(found["EMBEDDING"], numbers(own))
    assert list(found) == ["EMBEDDING"]


def test_number_formats_of_vectors_are_data_types_and_scales_an_output(running, kserve):
    formats = {"FLOAT16": "FP16", "INT8": "INT8", "UINT8": "UINT8", "BINARY": "UINT8"}
    for name, datatype in formats.items():
        request = infer_request(
            "tiny-bert", {"TEXT": TEXTS}, is_raw=False, data_type=f"DATA_TYPE_{name}"
        )
        response = kserve.ModelInfer(request)
        own = running.embedding.Embed(
            own_request(EmbedRequest, model="tiny-bert", texts=TEXTS, data_type=f"DATA_TYPE_{name}")
        ).embeddings
        found = values(response)
        assert response.outputs[0].datatype == datatype
        assert found["EMBEDDING"].astype(found["EMBEDDING"].dtype.str).tobytes() == own.data
        assert ("SCALE" in found) == bool(own.scales)
        if own.scales:
            np.testing.assert_array_equal(found["SCALE"], np.float32(own.scales))


def test_chunks_of_a_text_are_averaged_or_refused(running, kserve):
    long = " ".join(TEXTS * 6)
    chunked: dict[str, Any] = {"chunking": "CHUNKING_TOKENS", "max_chunk_tokens": 16}
    request = infer_request("tiny-bert", {"TEXT": [long]}, average_chunks=True, **chunked)
    own = running.embedding.Embed(
        own_request(EmbedRequest, model="tiny-bert", texts=[long], average_chunks=True, **chunked)
    )
    np.testing.assert_array_equal(values(kserve.ModelInfer(request))["EMBEDDING"], numbers(own))


def test_labels_are_those_of_classify(running, kserve):
    inputs = {"TEXT": TEXTS, "TEXT_PAIR": TEXTS[::-1]}
    for given, pairs in ((inputs, TEXTS[::-1]), ({"TEXT": TEXTS}, [])):
        found = values(kserve.ModelInfer(infer_request("tiny-classifier", given)))
        own = running.embedding.Classify(
            ClassifyRequest(model="tiny-classifier", texts=TEXTS, text_pairs=pairs)
        )
        rows = [each.labels for each in own.results]
        assert found["LABEL"].tolist() == [[label.label for label in row] for row in rows]
        scores = [[label.score for label in row] for row in rows]
        np.testing.assert_allclose(found["SCORE"], scores, rtol=1e-6)
    [label] = values(
        kserve.ModelInfer(infer_request("tiny-classifier", {"TEXT": TEXTS[:1]}, top_k=1))
    )["LABEL"]
    assert label.tolist() == [rows[0][0].label]


def test_other_outputs_of_a_model_are_chosen_by_their_names(running, kserve):
    own = running.embedding.Embed(own_request(EmbedRequest, model="tiny-classifier", texts=TEXTS))
    request = infer_request("tiny-classifier", {"TEXT": TEXTS}, outputs=["EMBEDDING"])
    np.testing.assert_array_equal(values(kserve.ModelInfer(request))["EMBEDDING"], numbers(own))


def test_sparse_vectors_are_padded_with_zeros(running, kserve):
    found = values(kserve.ModelInfer(infer_request("tiny-splade", {"TEXT": TEXTS})))
    own = running.embedding.EmbedSparse(EmbedSparseRequest(model="tiny-splade", texts=TEXTS))
    for ids, weights, each in zip(found["TOKEN_ID"], found["WEIGHT"], own.results, strict=True):
        length = len(each.weights)
        assert ids[:length].tolist() == list(each.token_ids)
        np.testing.assert_array_equal(weights[:length], np.float32(each.weights))
        assert not weights[length:].any()


def test_the_server_and_its_models_are_live_and_ready(kserve):
    assert kserve.ServerLive(messages.ServerLiveRequest()).live
    assert kserve.ServerReady(messages.ServerReadyRequest()).ready
    assert kserve.ModelReady(messages.ModelReadyRequest(name="tiny-bert")).ready
    assert kserve.ModelReady(messages.ModelReadyRequest(name="tiny-bert", version="1")).ready
    assert not kserve.ModelReady(messages.ModelReadyRequest(name="tiny-bert", version="2")).ready
    assert not kserve.ModelReady(messages.ModelReadyRequest(name="none")).ready
    metadata = kserve.ServerMetadata(messages.ServerMetadataRequest())
    assert (metadata.name, metadata.version) == ("attendant", __version__)


def test_metadata_and_configuration_describe_what_a_model_takes_and_gives(kserve):
    metadata = kserve.ModelMetadata(messages.ModelMetadataRequest(name="tiny-bert"))
    assert list(metadata.versions) == ["1"]
    [text] = metadata.inputs
    assert (text.name, text.datatype, list(text.shape)) == ("TEXT", "BYTES", [-1, 1])
    [vector] = metadata.outputs
    response = kserve.ModelInfer(infer_request("tiny-bert", {"TEXT": TEXTS}, is_column=True))
    assert vector.datatype == response.outputs[0].datatype
    assert list(vector.shape) == [-1, response.outputs[0].shape[1]]
    config = kserve.ModelConfig(messages.ModelConfigRequest(name="tiny-bert")).config
    assert (config.name, config.backend, config.max_batch_size) == ("tiny-bert", "attendant", 256)
    assert config.input[0].data_type == model_config_pb2.TYPE_STRING
    assert list(config.output[0].dims) == [vector.shape[1]]
    assert config.HasField("dynamic_batching")
    assert not config.model_transaction_policy.decoupled


@pytest.mark.parametrize(
    "name", ["tiny-en-de", "tiny-lm", "tiny-bert", "tiny-classifier", "tiny-splade"]
)
def test_all_outputs_of_the_metadata_can_be_requested_together(kserve, name):
    metadata = kserve.ModelMetadata(messages.ModelMetadataRequest(name=name))
    outputs = [output.name for output in metadata.outputs]
    request = infer_request(name, {"TEXT": TEXTS[:1]}, outputs=outputs)
    response = kserve.ModelInfer(request)
    for told, found in zip(metadata.outputs, response.outputs, strict=True):
        assert (told.name, told.datatype) == (found.name, found.datatype)


def test_the_index_lists_the_models_with_their_states(kserve):
    index = kserve.RepositoryIndex(messages.RepositoryIndexRequest(ready=True)).models
    names = [(each.name, each.version, each.state) for each in index]
    assert names == [
        (name, "1", "READY")
        for name in ("tiny-bert", "tiny-classifier", "tiny-en-de", "tiny-lm", "tiny-splade")
    ]


def test_statistics_count_texts_batches_and_times(start):
    kserve = grpc_service_pb2_grpc.GRPCInferenceServiceStub(start().channel)
    request = messages.ModelStatisticsRequest(name="tiny-bert")
    [before] = kserve.ModelStatistics(request).model_stats
    assert (before.inference_count, before.execution_count, before.last_inference) == (0, 0, 0)
    for _ in range(2):
        kserve.ModelInfer(infer_request("tiny-bert", {"TEXT": TEXTS}))
    bad = infer_request("tiny-bert", {"TEXT": TEXTS}, dimensions=10**6)
    with pytest.raises(Exception, match="dimensions"):
        kserve.ModelInfer(bad)
    [after] = kserve.ModelStatistics(request).model_stats
    assert after.inference_count == 2 * len(TEXTS)
    assert 2 <= after.execution_count <= 2 * len(TEXTS)
    assert abs(after.last_inference / 1000 - time.time()) < 3600
    stats = after.inference_stats
    assert stats.success.count == stats.queue.count == stats.compute_infer.count == 2
    parts = (stats.queue, stats.compute_input, stats.compute_infer, stats.compute_output)
    assert 0 < sum(part.ns for part in parts) <= stats.success.ns
    every = kserve.ModelStatistics(messages.ModelStatisticsRequest()).model_stats
    assert [each.name for each in every if each.inference_count] == ["tiny-bert"]


def test_models_are_loaded_and_unloaded_if_the_server_allows_it(start):
    server = start(model_control="on", try_bundles="never")
    kserve = grpc_service_pb2_grpc.GRPCInferenceServiceStub(server.channel)
    unload = messages.RepositoryModelUnloadRequest(model_name="tiny-lm")
    unload.parameters["unload_dependents"].bool_param = False
    kserve.RepositoryModelUnload(unload)
    assert not kserve.ModelReady(messages.ModelReadyRequest(name="tiny-lm")).ready
    kserve.RepositoryModelLoad(messages.RepositoryModelLoadRequest(model_name="tiny-lm"))
    assert kserve.ModelReady(messages.ModelReadyRequest(name="tiny-lm")).ready


def test_calls_count_in_the_metrics_of_the_method_that_does_their_work(running, kserve):
    labels = {"model": "tiny-bert/1", "method": "Embed", "code": "OK"}
    before = running.metric("attendant_calls_total", **labels)
    kserve.ModelInfer(infer_request("tiny-bert", {"TEXT": TEXTS}))
    assert running.metric("attendant_calls_total", **labels) == before + 1
    handled = {"grpc_service": "inference.GRPCInferenceService", "grpc_method": "ModelInfer"}
    assert running.metric("grpc_server_handled_total", grpc_code="OK", **handled) > 0
