"""Streams of inference requests: pieces, order, faults, cancellation, deadlines and quotas."""

import queue
from typing import Any

import grpc
import pytest
from attendant.v1.translation_pb2 import TranslateRequest
from attendant_server.app import Server
from attendant_vendored.inference import grpc_service_pb2, grpc_service_pb2_grpc

from tests.support.kserve import infer_request, values
from tests.support.serving import TIMEOUT_SECONDS, failure_of, wait_until

TEXT = "The dog sees the king. The old cat."
DOG = "The dog."
MODEL = "tiny-en-de/1"
ENDLESS: dict[str, Any] = {"min_output_tokens": 64}


def stub(server):
    return grpc_service_pb2_grpc.GRPCInferenceServiceStub(server.channel)


def is_final(response):
    return response.infer_response.parameters["triton_final_response"].bool_param


@pytest.mark.parametrize("is_column", [False, True])
def test_the_pieces_of_a_streamed_translation_make_up_its_text(running, kserve, is_column):
    request = infer_request("tiny-en-de", {"TEXT": [TEXT]}, is_column=is_column, stream=True)
    responses = list(kserve.ModelStreamInfer(iter([request])))
    assert [is_final(each) for each in responses] == [*[False] * (len(responses) - 1), True]
    assert len(responses) > 1
    found = [values(each.infer_response) for each in responses]
    own = running.translation.Translate(TranslateRequest(model="tiny-en-de", texts=[TEXT]))
    [best] = own.translations[0].hypotheses
    assert "".join(each["TEXT"].item() for each in found) == best.text
    assert found[-1]["SCORE"].item() == pytest.approx(best.score)
    assert [each["FINISH_REASON"].item() != "" for each in found] == list(map(is_final, responses))
    shape = (1, 1) if is_column else (1,)
    assert {array.shape for each in found for array in each.values()} == {shape}


def test_a_streamed_continuation_is_the_whole_one_in_pieces(kserve):
    request = infer_request("tiny-lm", {"TEXT": ["The dog"]}, max_output_tokens=12)
    whole = values(kserve.ModelInfer(request))["TEXT"].item()
    request.parameters["stream"].bool_param = True
    responses = list(kserve.ModelStreamInfer(iter([request])))
    pieces = [values(each.infer_response)["TEXT"].item() for each in responses]
    assert "".join(pieces) == whole
    assert is_final(responses[-1])


def test_requests_of_a_stream_are_answered_in_their_order_with_their_ids(kserve):
    requests = []
    for number in range(40):
        model = ("tiny-en-de", "tiny-bert", "tiny-lm")[number % 3]
        request = infer_request(model, {"TEXT": ["The dog."] * (1 + number % 4)})
        request.id = str(number)
        if model == "tiny-lm":
            request.parameters["max_output_tokens"].int64_param = 1 + number % 5
        request.parameters["triton_enable_empty_final_response"].bool_param = True
        requests.append(request)
    responses = list(kserve.ModelStreamInfer(iter(requests)))
    assert [each.infer_response.id for each in responses] == [each.id for each in requests]
    assert all(map(is_final, responses))
    for request, response in zip(requests, responses, strict=True):
        assert response.infer_response.outputs[0].shape[0] == request.inputs[0].shape[0]


@pytest.mark.parametrize(
    ("model", "texts", "options", "message"),
    [
        ("tiny-en-de", [DOG, DOG], {}, "stream: is for one text, got 2"),
        ("tiny-bert", [DOG], {}, "stream: is for models that write text"),
        ("none", [DOG], {}, "model: no such model"),
        ("tiny-en-de", [DOG], {"num_hypotheses": 2, "beam_size": 2}, "num_hypotheses: must be 1"),
        ("tiny-lm", [DOG], {"num_hypotheses": 2, "beam_size": 2}, "num_hypotheses: must be 1"),
    ],
)
def test_what_cannot_be_streamed_is_refused(kserve, model, texts, options, message):
    request = infer_request(model, {"TEXT": texts}, stream=True, **options)
    [response] = kserve.ModelStreamInfer(iter([request]))
    assert response.error_message.startswith(message)


def test_an_error_ends_the_stream_with_its_status_if_the_caller_wants_that(kserve):
    requests = [infer_request("none", {"TEXT": [DOG]})]
    stream = kserve.ModelStreamInfer(iter(requests), metadata=[("triton_grpc_error", "true")])
    assert failure_of(list, stream).code() is grpc.StatusCode.NOT_FOUND


def test_a_long_id_is_refused_because_each_response_repeats_it(kserve):
    request = infer_request("tiny-en-de", {"TEXT": [DOG]}, stream=True)
    request.id = "i" * 129
    [response] = kserve.ModelStreamInfer(iter([request]))
    assert response.error_message == "id: at most 128 characters, got 129"


def test_a_caller_that_reads_nothing_gets_its_stream_ended_once(start):
    server = start(max_request_seconds=1.0)
    request = infer_request("tiny-en-de", {"TEXT": [DOG]}, stream=True, **ENDLESS)
    request.id = "i" * 128
    narrow = [("grpc.http2.bdp_probe", 0)]  # otherwise the client buffers all responses
    with grpc.insecure_channel(f"127.0.0.1:{server.server.port}", narrow) as channel:
        connected = grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel)
        stream = connected.ModelStreamInfer(iter([request] * 200), timeout=TIMEOUT_SECONDS)
        next(stream)
        wait_until(lambda: server.metric("attendant_request_streams") == 0)
        failure = failure_of(list, stream)
    assert failure.code() is grpc.StatusCode.UNAVAILABLE
    assert failure.details() == "no answer was read for 1 seconds"


def test_a_stream_has_no_more_texts_in_the_engine_however_many_its_requests_have(start):
    server = start(max_queued_texts=800)
    requests = [infer_request("tiny-bert", {"TEXT": [DOG] * 256})] * 12
    responses = list(stub(server).ModelStreamInfer(iter(requests)))
    assert [each.error_message for each in responses] == [""] * len(requests)


def test_a_failed_request_of_a_stream_is_a_failure_in_the_statistics(start):
    server = start()
    requests = [infer_request("tiny-bert", {"TEXT": texts}) for texts in ([DOG] * 2, [DOG, ""])]
    list(stub(server).ModelStreamInfer(iter(requests)))
    wanted = grpc_service_pb2.ModelStatisticsRequest(name="tiny-bert")
    [found] = stub(server).ModelStatistics(wanted).model_stats
    assert (found.inference_count, found.inference_stats.fail.count) == (2, 1)


def test_a_cancelled_stream_gives_its_rows_back(start):
    server = start(max_rows=1, max_beam_size=1)
    request = infer_request("tiny-en-de", {"TEXT": [TEXT]}, stream=True, **ENDLESS)
    stream = stub(server).ModelStreamInfer(iter([request] * 3))
    next(stream)
    stream.cancel()
    wait_until(lambda: server.metric("attendant_rows_used", model=MODEL) == 0)
    wait_until(lambda: server.metric("attendant_queued_texts", model=MODEL) == 0)
    assert stub(server).ModelInfer(infer_request("tiny-en-de", {"TEXT": [DOG]})).outputs


def test_a_stream_whose_deadline_passes_is_ended_then_and_its_texts_are_dropped(start):
    server = start()
    with server.held_engine():
        request = infer_request("tiny-en-de", {"TEXT": [DOG]}, stream=True)
        stream = stub(server).ModelStreamInfer(iter([request]), timeout=0.3)
        assert failure_of(list, stream).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        server.wait_for_queued(0)
    name = "attendant_dropped_texts_total"
    wait_until(lambda: server.metric(name, model=MODEL) == 1)


def test_the_timeout_of_a_request_ends_it_alone(start):
    server = start()
    with server.held_engine():
        requests = [
            infer_request("tiny-en-de", {"TEXT": [DOG]}, timeout=200_000),
            infer_request("tiny-bert", {"TEXT": [DOG]}, timeout=60_000_000),
        ]
        failure = failure_of(stub(server).ModelInfer, requests[0])
        assert failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        [late] = stub(server).ModelStreamInfer(iter(requests[:1]))
        assert late.error_message == "timeout: the request took 0.2 seconds"
    [answer] = stub(server).ModelStreamInfer(iter(requests[1:]))
    assert answer.infer_response.outputs


def test_requests_of_a_stream_take_from_the_quota_of_their_caller(start):
    server = start(caller_max_texts_per_minute=5)
    requests = [infer_request("tiny-bert", {"TEXT": [DOG] * 2})] * 2
    assert len(list(stub(server).ModelStreamInfer(iter(requests)))) == 2
    refusal = failure_of(stub(server).ModelInfer, requests[0])
    assert refusal.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    never = infer_request("tiny-bert", {"TEXT": [DOG] * 6})
    [answer] = stub(server).ModelStreamInfer(iter([never]))
    assert answer.error_message.startswith("max_texts_per_minute: at most 5 for this caller")


def test_a_request_is_answered_while_the_stream_stays_open(kserve):
    requests: queue.Queue = queue.Queue()
    stream = kserve.ModelStreamInfer(iter(requests.get, None))
    for _ in range(3):
        requests.put(infer_request("tiny-bert", {"TEXT": [DOG]}))
        assert next(stream).infer_response.outputs
    requests.put(None)
    assert not list(stream)


def test_a_stopping_server_ends_an_idle_stream(loop, settings):
    server = Server(settings())
    loop.run(server.__aenter__())
    requests: queue.Queue = queue.Queue()
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel)
        stream = stub.ModelStreamInfer(iter(requests.get, None))
        requests.put(infer_request("tiny-bert", {"TEXT": [DOG]}))
        next(stream)
        stopping = loop.submit(server.stop())
        assert failure_of(next, stream).code() is grpc.StatusCode.UNAVAILABLE
        requests.put(None)
        stopping.result(TIMEOUT_SECONDS)


def test_a_stream_counts_for_the_model_and_the_method_of_its_first_request(start):
    server = start()
    requests = [infer_request("tiny-bert", {"TEXT": [DOG] * 3})] * 2
    list(stub(server).ModelStreamInfer(iter(requests)))
    labels = {"model": "tiny-bert/1", "method": "Embed", "code": "OK"}
    wait_until(lambda: server.metric("attendant_calls_total", **labels) == 1)
    assert server.metric("attendant_caller_texts_total", caller="anonymous") == 6
