"""The interceptors on a small service with every kind of failure."""

import asyncio
import gc
import logging
import weakref
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from attendant_server import errors
from attendant_server.application.admission import CallAdmission
from attendant_server.application.held_memory import HeldMemory
from attendant_server.failures import CODES
from attendant_server.grpc.interceptors.admission import AdmissionInterceptor
from attendant_server.grpc.interceptors.record import RecordInterceptor
from attendant_server.grpc.interceptors.serialization import SerializationInterceptor
from attendant_server.grpc.interceptors.status import StatusInterceptor
from attendant_server.records import CallRecord, Method
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from tokenizers import Tokenizer

from tests.support.serving import LoopThread, failure_of, wait_until


class TextTooLong(errors.InvalidRequest):
    """An error that is in the table only through its base class."""


SECRET = "secret words of a caller"
FAILURES: dict[str, BaseException] = {
    "ValueError": ValueError(SECRET),
    "Exception": Exception(SECRET),
    "RuntimeError": RuntimeError(SECRET),
    "TimeoutError": TimeoutError(SECRET),
    "TextTooLong": TextTooLong("texts", "is too long"),
}
for error_class in CODES:
    arguments: tuple[Any, ...] = ("a message",)
    if issubclass(error_class, errors.InvalidRequest):
        arguments = ("texts", "a message")
    if issubclass(error_class, errors.QueueFull | errors.QuotaExceeded):
        arguments = ("a message", 0.25)
    if issubclass(error_class, errors.LanguageUnknown):
        arguments = ("target_language", "a message", "xx")
    if issubclass(error_class, errors.NoModelForLanguages):
        arguments = ("a message", {"target_language": "xx"})
    FAILURES[error_class.__name__] = error_class(*arguments)


def panic() -> None:
    """Raise the error of a panic in a Rust library, which is not an Exception."""
    split = '{"type":"Split","pattern":{"Regex":"(a+)+$"},"behavior":"Isolated","invert":false}'
    model = '{"type":"BPE","vocab":{"a":0},"merges":[]}'
    content = f'{{"version":"1.0","added_tokens":[],"pre_tokenizer":{split},"model":{model}}}'
    Tokenizer.from_str(content).encode("a" * 40 + "b")


class LargeText(str):
    """A text that tells, by a weak reference, how long it is kept."""


large_texts: "list[weakref.ref[LargeText]]" = []


async def unary(request: bytes, context: Any) -> bytes:
    name = request.decode()
    if name == "panic":
        panic()
    if name == "large":
        text = LargeText(name)
        large_texts.append(weakref.ref(text))
        raise errors.InvalidRequest("texts", f"{len(text)} characters")
    if name == "wait":
        await asyncio.Event().wait()
    if name in FAILURES:
        raise FAILURES[name]
    return request


async def stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
    yield b"first"
    while request == b"endless":
        yield bytes(1_000_000)
    yield await unary(request, context)


async def echo(request: str, context: Any) -> bytes:
    return request.encode()


class Calls:
    """Records the reports of the interceptors."""

    def __init__(self) -> None:
        self.started: list[Method] = []
        self.handled: list[tuple[Method, str]] = []
        self.refused: list[str] = []

    def on_call_started(self, record: CallRecord) -> None:
        self.started.append(record.method)

    def on_part_ended(self, record: CallRecord) -> None:
        raise AssertionError("there are no streams of texts")

    def on_call_ended(self, record: CallRecord) -> None:
        assert record.ended is not None
        assert record.ended >= record.started
        self.handled.append((record.method, record.code))


@pytest.fixture(scope="module")
def loop() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def max_request_seconds() -> float:
    return 60.0


@pytest.fixture
def admission(calls: Calls, max_request_seconds: float) -> CallAdmission:
    return CallAdmission(1, max_request_seconds, calls.refused.append)


@pytest.fixture
def channel(loop: LoopThread, calls: Calls, admission: CallAdmission) -> Iterator[Any]:
    async def start() -> tuple[grpc.aio.Server, int]:
        server = grpc.aio.server(
            interceptors=[
                RecordInterceptor(calls),
                StatusInterceptor(),
                AdmissionInterceptor(admission, HeldMemory(10**6, 8, print)),
                SerializationInterceptor(),
            ]
        )
        for service in ("attendant.Test", "other.Test"):
            handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
                "Unary": grpc.unary_unary_rpc_method_handler(unary),
                "Stream": grpc.unary_stream_rpc_method_handler(stream),
                "Echo": grpc.unary_unary_rpc_method_handler(echo, bytes.decode),
            }
            generic = grpc.method_handlers_generic_handler(service, handlers)
            server.add_generic_rpc_handlers((generic,))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    async def stop(server: grpc.aio.Server) -> None:
        await server.stop(None)

    server, port = loop.run(start())
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    loop.run(stop(server))


def failure(channel: Any, name: str) -> Any:
    return failure_of(channel.unary_unary("/attendant.Test/Unary"), name.encode())


def subclasses(error: type[errors.AttendantError]) -> Iterator[type[errors.AttendantError]]:
    for subclass in error.__subclasses__():
        yield subclass
        yield from subclasses(subclass)


def test_every_error_class_has_a_status():
    ours = subclasses(errors.AttendantError)
    assert set(CODES) == {error for error in ours if error.__module__ == errors.__name__}


def test_an_error_derived_from_one_in_the_table_has_its_status(channel: Any):
    found = failure(channel, "TextTooLong")
    assert found.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert found.details() == "texts: is too long"


@pytest.mark.parametrize("error", CODES, ids=lambda error: error.__name__)
def test_our_errors_have_their_status_and_message(channel: Any, error: Any):
    found = failure(channel, error.__name__)
    assert found.code().name == CODES[error]
    assert found.details() == str(FAILURES[error.__name__])


def test_what_a_refused_call_has_made_is_freed_without_the_collector(channel: Any, calls: Calls):
    gc.collect()
    gc.disable()
    try:
        assert failure(channel, "large").code() == grpc.StatusCode.INVALID_ARGUMENT
        [text] = large_texts
        wait_until(lambda: bool(calls.handled) and text() is None)
    finally:
        gc.enable()


def test_a_stream_fails_like_a_unary_call_after_what_it_has_sent(channel: Any):
    for name in FAILURES:
        answers = channel.unary_stream("/attendant.Test/Stream")(name.encode())
        assert next(answers) == b"first"
        assert failure_of(next, answers).code() == failure(channel, name).code()


@pytest.mark.parametrize(
    "name", ["ValueError", "Exception", "RuntimeError", "TimeoutError", "panic"]
)
def test_other_errors_tell_the_caller_nothing_and_the_log_all_but_their_message(
    channel: Any, name: str, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.ERROR):
        found = failure(channel, name)
    assert found.code() == grpc.StatusCode.INTERNAL
    assert found.details().startswith("internal error, logged as ")
    request_id = found.details().split()[-1]
    [record] = caplog.records
    line = record.getMessage()
    kind = "PanicException" if name == "panic" else name
    expected = f"event=call_failed method=attendant.Test/Unary request_id={request_id} error={kind}"
    assert line.startswith(expected)
    assert ", in unary\n" in line
    assert SECRET not in line
    assert record.exc_info is None  # so that no formatter adds the error's message


def trailers(call: Any) -> dict[str, Any]:
    return dict(call.trailing_metadata())


@pytest.mark.parametrize("name", ["fine", "QueueFull", "ValueError"])
def test_the_id_of_a_request_comes_back_whatever_becomes_of_it(channel: Any, name: str):
    unary_call = channel.unary_unary("/attendant.Test/Unary")
    ids = []
    for metadata in ((("x-request-id", "order-17"),), (), ()):
        ended = unary_call.future(name.encode(), metadata=metadata)
        ended.exception()
        ids.append(trailers(ended)["x-request-id"])
    assert ids[0] == "order-17"
    assert len({*ids}) == 3


@pytest.mark.parametrize("unfit", ["", "two words", "a=1 event=call", "x" * 129])
def test_an_id_that_could_forge_a_line_of_the_log_is_replaced(channel: Any, unfit: str):
    metadata = (("x-request-id", unfit),)
    call = channel.unary_unary("/attendant.Test/Unary").future(b"fine", metadata=metadata)
    call.result()
    assert len(trailers(call)["x-request-id"]) == 16


def test_a_request_that_its_deserializer_cannot_read_is_invalid(channel: Any):
    call = channel.unary_unary("/attendant.Test/Echo")
    assert call("grüßt".encode()) == "grüßt".encode()
    found = failure_of(call, b"\xff")
    assert found.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert found.details() == "request: cannot be decoded"


def test_a_bad_value_is_named_in_the_details(channel: Any):
    status = rpc_status.from_call(failure(channel, "InvalidRequest"))
    bad_request = error_details_pb2.BadRequest()
    assert status is not None
    assert status.details[0].Unpack(bad_request)
    [violation] = bad_request.field_violations
    assert (violation.field, violation.description) == ("texts", "a message")


def test_a_full_queue_says_when_to_come_back(channel: Any):
    found = failure(channel, "QueueFull")
    retry = error_details_pb2.RetryInfo()
    assert rpc_status.from_call(found).details[0].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 250
    assert dict(found.trailing_metadata())["grpc-retry-pushback-ms"] == "250"


def test_calls_are_reported_with_their_codes(channel: Any, calls: Calls):
    channel.unary_unary("/attendant.Test/Unary")(b"fine")
    for name in ("InvalidRequest", "QueueFull", "ValueError"):
        failure(channel, name)
    method = Method("attendant.Test", "Unary", "unary")
    codes = ["OK", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "INTERNAL"]
    wait_until(lambda: len(calls.handled) == len(codes))
    assert calls.handled == [(method, code) for code in codes]
    assert calls.started == [method] * 4


def test_only_the_first_call_of_a_method_asks_further_interceptors(calls: Calls):
    asked: list[str] = []
    unknown = "/attendant.Test/Nothing"

    async def further(details: Any) -> Any:
        asked.append(details.method)
        return grpc.unary_unary_rpc_method_handler(unary) if "Unary" in details.method else None

    async def ask() -> None:
        interceptor = RecordInterceptor(calls)
        for path in ("/attendant.Test/Unary", "/other.Test/Unary", unknown):
            details: Any = SimpleNamespace(method=path)
            found = [await interceptor.intercept_service(further, details) for _ in range(2)]
            assert found[0] is found[1]

    asyncio.run(ask())
    assert asked == ["/attendant.Test/Unary", "/other.Test/Unary", unknown, unknown]


def test_a_method_that_does_not_exist_is_not_reported(channel: Any, calls: Calls):
    found = failure_of(channel.unary_unary("/attendant.Test/Nothing"), b"")
    assert found.code() == grpc.StatusCode.UNIMPLEMENTED
    assert not calls.started


def test_calls_in_progress_are_bounded_but_not_those_of_other_packages(channel: Any, calls: Calls):
    stream = channel.unary_stream("/attendant.Test/Stream")(b"wait")
    assert next(stream) == b"first"
    found = failure(channel, "fine")
    assert found.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert calls.refused == ["concurrency"]
    assert channel.unary_unary("/other.Test/Unary")(b"fine") == b"fine"
    stream.cancel()


def test_a_cancelled_call_leaves_its_place_to_others(channel: Any, calls: Calls):
    stream = channel.unary_stream("/attendant.Test/Stream")(b"wait")
    assert next(stream) == b"first"
    stream.cancel()
    unary = channel.unary_unary("/attendant.Test/Unary")
    wait_until(lambda: unary.future(b"fine").code() == grpc.StatusCode.OK)
    codes = [code for method, code in calls.handled if method.name == "Stream"]
    assert codes == ["CANCELLED"]


def test_a_stopping_server_refuses_calls_but_not_those_of_other_packages(
    channel: Any, calls: Calls, admission: CallAdmission
):
    admission.refuse_calls()
    found = failure(channel, "fine")
    assert found.code() == grpc.StatusCode.UNAVAILABLE
    assert found.details() == "the server is stopping"
    assert calls.refused == ["unavailable"]
    assert channel.unary_unary("/other.Test/Unary")(b"fine") == b"fine"


def test_refusals_that_are_held_come_when_the_hold_ends(
    channel: Any, calls: Calls, loop: LoopThread, admission: CallAdmission
):
    async def hold_until_refused() -> bool:
        with admission.held_refusals():
            call = channel.unary_unary("/attendant.Test/Unary").future(b"fine")
            pending.append(call)
            while not calls.refused:
                await asyncio.sleep(0.005)
            return call.done()

    pending: list[Any] = []
    admission.refuse_calls()
    assert loop.run(hold_until_refused()) is False
    assert pending[0].code() == grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("max_request_seconds", [0.2])
def test_a_call_that_takes_too_long_ends_and_leaves_its_place_to_others(channel: Any):
    found = failure(channel, "wait")
    assert found.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert found.details() == "the call took more than 0.2 seconds"
    assert channel.unary_unary("/attendant.Test/Unary")(b"fine") == b"fine"


@pytest.mark.parametrize("max_request_seconds", [0.2])
def test_a_stream_whose_client_takes_nothing_gives_its_place_back_as_well(channel: Any):
    stream = channel.unary_stream("/attendant.Test/Stream")(b"endless")
    assert next(stream) == b"first"
    unary = channel.unary_unary("/attendant.Test/Unary")
    wait_until(lambda: unary.future(b"fine").code() == grpc.StatusCode.OK)
    assert failure_of(list, stream).code() == grpc.StatusCode.DEADLINE_EXCEEDED
