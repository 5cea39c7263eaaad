"""API keys of real calls: known, unknown, missing, changed while a server runs, and their file."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import grpc
import pytest
from attendant_client import PermissionDeniedError, UnauthenticatedError
from attendant_server.app import StartError
from attendant_server.callers import Identity
from attendant_server.errors import Unauthenticated
from attendant_server.security.api_keys import ApiKey, ApiKeys, new_api_key, watched_api_keys
from attendant_server.security.watching import FileFault, WatchedFiles, watch

from tests.support.credentials import is_known
from tests.support.serving import failure_of, metrics_page, sum_of_metric, wait_until

REFUSAL = 'not authenticated: send valid credentials as "authorization: Bearer ..."'


def num_results(server: Any, result: str) -> float:
    page = metrics_page(server)
    return sum_of_metric(page, "attendant_authentication_total", result=result)


def test_a_known_key_is_served_and_its_name_logged(start, client_of, key_file, caplog):
    caplog.set_level("INFO")
    key = key_file.add("search")
    server = start(api_keys=str(key_file.path))
    client = client_of(server, token=key)
    client.translate("The dog.", model="tiny-en-de")
    list(client.stream_translate("The dog.", model="tiny-en-de"))
    wait_until(lambda: "caller=key:search" in caplog.text)
    assert num_results(server, "authenticated") == 2


@pytest.mark.parametrize(
    ("authorizations", "result"),
    [
        ([], "no_token"),
        (["Bearer attendant_wrong"], "unknown_key"),
        (["Bearer " + "x" * 6200], "too_long"),
        (["Bearer "], "unknown_key"),
        (["Basic dXNlcjpwYXNz"], "no_token"),
        (["Bearer {key}", "Bearer {key}"], "no_token"),
        (["Bearer {key}x"], "unknown_key"),
        (["Bearer {digest}"], "unknown_key"),
    ],
)
def test_calls_without_a_known_key_are_refused_with_one_text(
    start, client_of, key_file, caplog, authorizations, result
):
    caplog.set_level("INFO")
    key = key_file.add("search")
    digest = hashlib.sha256(key.encode()).hexdigest()
    server = start(api_keys=str(key_file.path))
    metadata = [("authorization", each.format(key=key, digest=digest)) for each in authorizations]
    client = client_of(server, metadata=metadata)
    with pytest.raises(UnauthenticatedError) as failure:
        client.translate("The dog.", model="tiny-en-de")
    assert str(failure.value) == REFUSAL
    assert num_results(server, result) == 1
    wait_until(lambda: f"reason={result}" in caplog.text)
    assert key not in caplog.text
    assert "caller=anonymous" in caplog.text


def test_streams_are_refused_before_they_start(start, client_of, key_file):
    client = client_of(start(api_keys=str(key_file.path)))
    with pytest.raises(UnauthenticatedError):
        list(client.stream_translate("The dog.", model="tiny-en-de"))


def test_the_scheme_may_be_in_any_case(start, client_of, key_file):
    metadata = [("authorization", f"bearer {key_file.add('search')}")]
    assert client_of(start(api_keys=str(key_file.path)), metadata=metadata).models()


def test_refused_calls_are_not_decoded(start, key_file):
    server = start(api_keys=str(key_file.path))
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        translate: Any = channel.unary_unary("/attendant.v1.TranslationService/Translate")
        failure = failure_of(translate, b"\xff" * 100)
    assert failure.code() is grpc.StatusCode.UNAUTHENTICATED  # not INVALID_ARGUMENT


def test_keys_are_added_and_removed_without_a_restart(start, client_of, key_file):
    first = key_file.add("first")
    server = start(api_keys=str(key_file.path))
    assert client_of(server, token=first).models()
    second = key_file.add("second")
    wait_until(lambda: is_known(client_of(server, token=second)))
    key_file.remove("first")
    wait_until(lambda: not is_known(client_of(server, token=first)))
    assert is_known(client_of(server, token=second))


def test_a_broken_file_keeps_the_former_keys_and_says_where_without_secrets(
    start, client_of, key_file, caplog
):
    key = key_file.add("first")
    server = start(api_keys=str(key_file.path))
    key_file.replace(f'[[keys]]\nname = "first"\nsha256 = "{key}"\n')
    wait_until(lambda: "[[keys]] number 1: sha256 must have 64 digits 0-9a-f" in caplog.text)
    assert is_known(client_of(server, token=key))
    key_file.replace(f'[[keys]]\nname = {key}"\n')
    wait_until(lambda: "is not TOML" in caplog.text)
    assert "at line 2" in caplog.text
    key_file.path.unlink()
    wait_until(lambda: "No such file" in caplog.text)
    assert is_known(client_of(server, token=key))
    assert key not in caplog.text


def test_a_file_is_read_only_after_its_writing_has_ended(key_file):
    key = key_file.add("first")
    files = watched_api_keys(key_file.path, [])
    whole = key_file.path.read_text()
    for part in ("", whole[:5], whole + ENTRY):
        key_file.path.write_text(part)
        files.refresh()
        assert files.value.caller(key).name == "key:first"
    key_file.path.write_text(ENTRY)
    files.refresh()
    files.refresh()
    with pytest.raises(Unauthenticated):
        files.value.caller(key)


def test_files_are_watched_on_after_a_time_without_threads(key_file, monkeypatch, caplog):
    key = key_file.add("first")
    files = watched_api_keys(key_file.path, [])
    key_file.remove("first")
    failures = iter([RuntimeError("can't start new thread")])

    async def run(function: Any, *arguments: Any) -> None:
        for failure in failures:
            raise failure
        function(*arguments)

    async def watch_until_removed() -> None:
        watching = asyncio.create_task(watch([files], 0.001))
        while is_in(files, key):
            await asyncio.sleep(0.001)
            assert not watching.done()
        watching.cancel()

    monkeypatch.setattr("attendant_server.security.watching.run_blocking", run)
    asyncio.run(watch_until_removed())
    assert "event=security_files_not_checked can't start new thread" in caplog.text


def is_in(files: WatchedFiles[ApiKeys], key: str) -> bool:
    try:
        files.value.caller(key)
    except Unauthenticated:
        return False
    return True


def test_an_expired_key_is_refused(start, client_of, key_file):
    old = key_file.add("old", "expires = 2020-01-01T00:00:00Z\n")
    new = key_file.add("new", "expires = 2120-01-01T00:00:00Z\n")
    server = start(api_keys=str(key_file.path))
    assert not is_known(client_of(server, token=old))
    assert is_known(client_of(server, token=new))
    assert num_results(server, "expired") == 1


def test_one_caller_may_have_two_keys_while_one_replaces_the_other(start, client_of, key_file):
    keys = [key_file.add("search")]
    former = key_file.path.read_text()
    keys.append(key_file.add("search"))
    key_file.path.write_text(former + key_file.path.read_text())
    server = start(api_keys=str(key_file.path))
    assert all(is_known(client_of(server, token=key)) for key in keys)


def test_a_file_without_keys_refuses_everyone(start, client_of, key_file):
    assert not is_known(client_of(start(api_keys=str(key_file.path)), token="anything"))


ENTRY = '[[keys]]\nname = "a"\nsha256 = "' + "0" * 64 + '"\n'


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("keys = 1", r"must have tables \[\[keys\]\] only"),
        ("[other]", r"must have tables \[\[keys\]\] only"),
        ("[[keys]]", "name must have"),
        ('[[keys]]\nname = "a b"', "name must have"),
        ('[[keys]]\nname = "a"', "sha256 must have"),
        (ENTRY + "secret = 1", "the fields are class, expires, max_concurrent_calls, max_texts_"),
        (ENTRY + 'methods = "Embed"', "methods must be a list"),
        (ENTRY + "models = [1]", "models must be a list"),
        (ENTRY + 'methods = ["Embedd"]', "methods must be among Embed, Translate"),
        (ENTRY + "expires = 2027-01-01", "expires must be a time with a zone"),
        (ENTRY + "expires = 2027-01-01T00:00:00", "expires must be a time with a zone"),
        (ENTRY + ENTRY, "sha256 is in the file twice"),
        ("keys = " + "[" * 10_000, "cannot be used: RecursionError"),
    ],
)
def test_a_faulty_file_is_refused_with_the_entry_and_the_field(
    tmp_path: Path, content: str, problem: str
):
    path = tmp_path / "keys.toml"
    path.write_text(content)
    with pytest.raises(FileFault, match=problem):
        watched_api_keys(path, ["Translate", "Embed"])


def test_a_file_that_is_no_text_or_too_large_is_refused(tmp_path: Path):
    path = tmp_path / "keys.toml"
    for content, problem in ((b"\xff", "not UTF-8"), (bytes(2**20 + 1), "larger than")):
        path.write_bytes(content)
        with pytest.raises(FileFault, match=problem):
            watched_api_keys(path, [])


def test_a_server_does_not_start_with_a_faulty_file(start, key_file):
    key_file.replace("[other]")
    with pytest.raises(StartError, match="must have tables"):
        start(api_keys=str(key_file.path))


def test_two_keys_whose_hashes_begin_alike_are_told_apart():
    key, _ = new_api_key("a")
    digest = hashlib.sha256(key.encode()).digest()
    keys = ApiKeys([ApiKey(digest[:8] + bytes(24), Identity("key:b"), None)])
    with pytest.raises(Unauthenticated):
        keys.caller(key)


def test_a_key_may_call_its_methods_only(start, client_of, key_file):
    key = key_file.add("search", 'methods = ["Embed"]\n')
    client = client_of(start(api_keys=str(key_file.path)), token=key)
    assert client.embed("The dog.").vector.shape
    with pytest.raises(PermissionDeniedError, match="may not call Translate"):
        client.translate("The dog.")
    with pytest.raises(PermissionDeniedError, match="may not call ListModels"):
        client.models()
    assert client.health() == "serving"
