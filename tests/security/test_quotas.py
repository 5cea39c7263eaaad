"""Quotas of callers with real servers and clients."""

import grpc
import pytest
from attendant.v1 import embedding_pb2, translation_pb2
from attendant_client import Client, OverloadedError, PermissionDeniedError, RetryPolicy
from attendant_server.security.api_keys import watched_api_keys
from attendant_server.security.watching import FileFault
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tests.support.credentials import Signer, jwt_settings, key_set
from tests.support.serving import (
    Running,
    failure_of,
    metrics_page,
    running_server,
    sum_of_metric,
    wait_until,
)

MODEL = "tiny-en-de"
TEXTS = ["The dog sees the king."] * 2


def value(server, name, **labels):
    return sum_of_metric(metrics_page(server), f"attendant_caller_{name}_total", **labels)


def wait_for_value(server, expected, name, **labels):
    """Wait for a count: the end of a call is counted after its status was sent."""
    wait_until(lambda: value(server, name, **labels) == expected)


@pytest.fixture
def limited(start, client_of, key_file):
    """Starts a server, and returns it with the client of a key with these limits."""

    def limited(limits: str, **options):
        key = key_file.add("search", limits)
        server = start(api_keys=str(key_file.path))
        return server, client_of(server, token=key, **options)

    return limited


def test_texts_beyond_the_quota_are_refused_with_a_time_to_retry(limited):
    server, client = limited("max_texts_per_minute = 3\n")
    assert len(client.embed(TEXTS)) == 2
    with pytest.raises(OverloadedError, match=r"^max_texts_per_minute: at most 3 for") as failure:
        client.embed(TEXTS)
    assert 15 < (failure.value.retry_after_seconds or 0) <= 20
    assert len(client.embed(TEXTS[:1])) == 1  # the refused call has taken nothing


def test_the_time_to_retry_is_told_like_that_of_a_full_queue(loop, settings):
    with running_server(loop, settings(caller_max_texts_per_minute=3)) as running:
        request = embedding_pb2.EmbedRequest(texts=TEXTS)
        running.embedding.Embed(request)
        failure = failure_of(running.embedding.Embed, request)
    [detail] = rpc_status.from_call(failure).details
    retry = error_details_pb2.RetryInfo()
    assert detail.Unpack(retry)
    milliseconds = int(dict(failure.trailing_metadata())["grpc-retry-pushback-ms"])
    assert 15_000 < milliseconds == retry.retry_delay.ToMilliseconds() <= 20_000


def test_tokens_beyond_the_quota_are_refused_with_a_time_to_retry(limited):
    server, client = limited("max_tokens_per_minute = 20\n")
    num_tokens = client.translate(TEXTS[0], model=MODEL).call.num_input_tokens
    assert 5 < num_tokens <= 10
    client.score([(TEXTS[0], "Der")], model=MODEL)
    with pytest.raises(OverloadedError, match="^max_tokens_per_minute: at most 20 for") as failure:
        list(client.stream_translate(TEXTS[0], model=MODEL))
    assert failure.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert failure.value.retry_after_seconds
    wait_for_value(server, 1, "refused_calls", quota="max_tokens_per_minute")
    assert value(server, "tokens", caller="key:search") > num_tokens


def test_texts_whose_language_is_detected_count(limited):
    server, client = limited("max_texts_per_minute = 3\nmethods = ['DetectLanguage']\n")
    assert len(client.detect_language(TEXTS[:2])) == 2
    with pytest.raises(OverloadedError, match="^max_texts_per_minute: at most 3 for this caller"):
        client.detect_language(TEXTS[:2])
    assert value(server, "texts", caller="key:search") == 2
    with pytest.raises(PermissionDeniedError):
        client.translate(TEXTS[0], model=MODEL)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (
            "max_texts_per_minute = 1\n",
            "max_texts_per_minute: at most 1 for this caller, so ",
        ),
        ("max_tokens_per_minute = 3\n", "max_tokens_per_minute: at most 3 for this caller, so "),
    ],
)
def test_a_call_that_can_never_be_taken_is_not_worth_a_retry(limited, limits, message):
    _, client = limited(limits)
    with pytest.raises(OverloadedError, match=message) as failure:
        client.translate(TEXTS, model=MODEL)
    assert failure.value.retry_after_seconds is None


def test_a_client_waits_for_its_quota_and_is_answered(start, key_file):
    key = key_file.add("search", "max_texts_per_minute = 600\n")
    server = start(api_keys=str(key_file.path))
    target = f"localhost:{server.port}"
    with Client(target, token=key, retry=RetryPolicy(max_attempts=3)) as client:
        num_answered = 0
        while not value(server, "refused_calls", quota="max_texts_per_minute"):
            assert len(client.tokenize(["The"] * 20, model=MODEL)) == 20
            num_answered += 1
    assert value(server, "calls", caller="key:search", result="ok") == num_answered
    assert value(server, "texts", caller="key:search") == 20 * num_answered


def test_concurrent_calls_of_one_caller_are_limited_streams_too(
    loop, settings, client_of, key_file
):
    one, two = (key_file.add(name, "max_concurrent_calls = 1\n") for name in ("one", "two"))
    with running_server(loop, settings(api_keys=str(key_file.path))) as running:
        first, second = (client_of(running.server, token=key) for key in (one, two))
        for is_cancelled in (True, False):
            with running.held_engine():
                stream = started_stream(running, one)
                with pytest.raises(OverloadedError, match="^max_concurrent_calls: at most 1 for"):
                    first.models()
                assert second.models()
                if is_cancelled:
                    stream.cancel()
            wait_until(lambda: running.metric("attendant_concurrent_calls") == 0)
            assert first.models()
        refused = value(running.server, "refused_calls", quota="max_concurrent_calls")
        assert refused == value(running.server, "calls", result="refused") == 2


def started_stream(running: Running, key: str):
    request = translation_pb2.StreamTranslateRequest(text=TEXTS[0], model=MODEL)
    metadata = [("authorization", f"Bearer {key}")]
    stream = running.translation.StreamTranslate(request, metadata=metadata)
    wait_until(lambda: running.metric("attendant_concurrent_calls") == 1)
    return stream


def test_a_reread_file_keeps_what_is_left_of_unchanged_limits(start, client_of, key_file):
    keys = [key_file.add(name, "max_texts_per_minute = 2\n") for name in ("same", "changed")]
    server = start(api_keys=str(key_file.path))
    same, changed = (client_of(server, token=key) for key in keys)
    for client in (same, changed):
        client.embed(TEXTS)
    key_file.replace(key_file.path.read_text().replace("= 2\n", "= 6000\n").replace("6000", "2", 1))
    wait_until(lambda: is_taken(changed))
    assert not is_taken(same)


def is_taken(client) -> bool:
    try:
        client.embed(TEXTS[0])
    except OverloadedError:
        return False
    return True


def test_tokens_of_callers_hold_their_limits(start, client_of, tmp_path):
    signer, path = Signer(), tmp_path / "keys.json"
    path.write_bytes(key_set(signer))
    server = start(**jwt_settings(jwt_keys=str(path), caller_max_texts_per_minute=1))
    limits = {"max_texts_per_minute": 2, "class": "bulk", "weight": 0.5}
    alice = client_of(server, token=signer.token(attendant=limits))
    alice.embed(TEXTS)
    with pytest.raises(OverloadedError, match="at most 2 for this caller; 0 are left"):
        alice.embed(TEXTS)
    bob = client_of(server, token=signer.token(sub="bob"))
    with pytest.raises(OverloadedError, match="at most 1 for this caller, so a call of 2"):
        bob.embed(TEXTS)
    wrong = client_of(server, token=signer.token(attendant={"max_texts_per_minute": "2"}))
    with pytest.raises(Exception, match="not authenticated"):
        wrong.embed(TEXTS)
    wait_for_value(server, 3, "calls", caller="other")
    wait_for_value(server, 1, "calls", caller="anonymous", result="failed")


def test_callers_without_authentication_share_the_limits_of_the_settings(start, client_of):
    server = start(caller_max_texts_per_minute=3)
    client_of(server).embed(TEXTS)
    with pytest.raises(OverloadedError, match="at most 3 for this caller; 1 are left"):
        client_of(server).embed(TEXTS)
    wait_for_value(server, 1, "calls", caller="anonymous", result="refused")


def test_the_series_of_a_key_exist_once_its_file_is_read(start, client_of, key_file):
    key_file.add("first")
    server = start(api_keys=str(key_file.path))
    for name in ("key:first", "other", "anonymous"):
        for result in ("ok", "refused", "failed"):
            assert value(server, "calls", caller=name, result=result) == 0
    key_file.add("second")
    wait_until(lambda: 'texts_total{caller="key:second"} 0.0' in metrics_page(server))


ENTRY = '[[keys]]\nname = "a"\nsha256 = "{}"\n'


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("max_texts_per_minute = -1", "max_texts_per_minute must be a whole number from 0, for no"),
        ("max_tokens_per_minute = 1.5", "max_tokens_per_minute must be a whole number"),
        ("max_concurrent_calls = true", "max_concurrent_calls must be a whole number"),
        ("weight = 0", "weight must be a number from 0.001 to 1000"),
        ("weight = nan", "weight must be a number"),
        ('class = "batch"', "class must be one of interactive, bulk"),
        ("class = [1]", "class must be one of"),
    ],
)
def test_a_faulty_limit_is_refused_with_the_entry_and_the_field(tmp_path, line, problem):
    path = tmp_path / "keys.toml"
    path.write_text(ENTRY.format("0" * 64) + line)
    with pytest.raises(FileFault, match=rf"\[\[keys\]\] number 1: {problem}"):
        watched_api_keys(path, [])


def test_keys_of_one_name_must_have_the_same_limits(tmp_path):
    path = tmp_path / "keys.toml"
    first, second = (ENTRY.format(digit * 64) for digit in "01")
    path.write_text(f"{first}weight = 2\n{second}weight = 2\n")
    assert watched_api_keys(path, []).value
    path.write_text(f"{first}weight = 2\n{second}")
    with pytest.raises(FileFault, match="number 2: class, max.*weight must be those of the other"):
        watched_api_keys(path, [])


def test_the_class_and_the_weight_of_a_key_are_those_of_its_caller(key_file):
    key = key_file.add("index", 'class = "bulk"\nweight = 0.5\n')
    caller = watched_api_keys(key_file.path, []).value.caller(key)
    assert caller.is_bulk
    assert caller.weight == 0.5
