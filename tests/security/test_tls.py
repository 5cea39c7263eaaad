"""Connections of real clients to real servers, plain and with TLS."""

import asyncio
import os
import socket
import ssl
import threading
import urllib.error
import urllib.request
from datetime import timedelta
from typing import Any

import grpc
import pytest
from attendant.v1 import model_pb2, model_pb2_grpc
from attendant_client import UnavailableError
from attendant_server.app import StartError
from attendant_server.security.certificates import watch_expiry, watched_certificate
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.credentials import Authority, Files, private_pem_of
from tests.support.serving import failure_of, metrics_page, sum_of_metric, wait_until

TLS = "grpcs://"


def tls_settings(files: Files, **values: Any) -> dict[str, Any]:
    return {"tls_cert": str(files.cert), "tls_key": str(files.key)} | values


def metrics_over_tls(server: Any, authority: Authority, files: Files | None = None) -> str:
    context = ssl.create_default_context(cafile=str(authority.file))
    if files:
        context.load_cert_chain(files.cert, files.key)
    url = f"https://localhost:{server.metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=60, context=context) as page:
        return page.read().decode()


def test_without_tls_a_server_is_reached_as_before(start, client_of):
    assert client_of(start()).health() == "serving"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_client_with_the_authority_reaches_a_server_with_tls(start, client_of, authority, host):
    server = start(**tls_settings(authority.issue("server")))
    assert client_of(server, TLS, host, tls_ca=authority.file).health() == "serving"
    assert client_of(server, host=host, tls_ca=authority.file).health() == "serving"
    assert "attendant_serving 1.0" in metrics_over_tls(server, authority)


def test_a_client_with_another_authority_is_told_what_to_do(start, client_of, authority, tmp_path):
    server = start(**tls_settings(authority.issue("server")))
    for options in ({"tls_ca": Authority(tmp_path, "other").file}, {}):
        with pytest.raises(UnavailableError, match="does not trust the server's certificate"):
            client_of(server, TLS, **options).health()


def test_a_certificate_for_another_host_is_refused_with_a_hint(start, client_of, authority):
    server = start(**tls_settings(authority.issue("server", hosts=["elsewhere.example"])))
    with pytest.raises(UnavailableError, match="is for another host name"):
        client_of(server, TLS, tls_ca=authority.file).health()


def test_an_expired_certificate_is_reported_by_server_client_and_metric(
    start, client_of, authority, caplog
):
    server = start(**tls_settings(authority.issue("server", days=-1), metrics_tls="never"))
    assert "event=certificate_expired" in caplog.text
    with pytest.raises(UnavailableError, match="certificate has expired"):
        client_of(server, TLS, tls_ca=authority.file).health()
    name = "attendant_tls_certificate_expiry_timestamp_seconds"
    assert 1.7e9 < sum_of_metric(metrics_page(server), name) < 3e9


def test_a_certificate_that_expires_ends_no_connection_and_a_new_one_is_taken(
    start, client_of, authority, caplog
):
    caplog.set_level("INFO")
    server = start(**tls_settings(authority.issue("server")))
    authority.issue("server", days=10 / (24 * 60 * 60))  # writes the same files
    wait_until(lambda: "event=security_files_reloaded" in caplog.text)
    before = client_of(server, TLS, tls_ca=authority.file)
    assert before.models()
    wait_until(lambda: "event=certificate_expired" in caplog.text)
    assert before.models()
    with pytest.raises(UnavailableError, match="certificate has expired"):
        client_of(server, TLS, tls_ca=authority.file).health()
    authority.issue("server")
    wait_until(lambda: caplog.text.count("event=security_files_reloaded") == 2)
    assert client_of(server, TLS, tls_ca=authority.file).health() == "serving"
    assert before.models()
    assert caplog.text.count("event=certificate_expired") == 1


def test_an_expiry_is_told_once_however_often_the_clock_jumps(authority, caplog):
    files = authority.issue("server")
    certificate = watched_certificate(files.cert, files.key, None)
    second = timedelta(seconds=1)
    jumps = [-second, -1000 * second, 0 * second, -second, 1000 * second, -second, second]
    times = iter([certificate.value.expires + jump for jump in jumps])
    looks: list[int] = []

    def clock():
        looks.append(caplog.text.count("event=certificate_expired"))
        return next(times)

    async def look_for_a_while():
        watching = asyncio.ensure_future(watch_expiry(files.cert, certificate, 0.0, clock))
        for _ in range(100):
            await asyncio.sleep(0)
        watching.cancel()

    asyncio.run(look_for_a_while())
    assert looks == [0, 0, 0]  # a certificate that was told is not looked at again
    assert caplog.text.count("event=certificate_expired") == 1


def test_a_plain_client_of_a_server_with_tls_is_told_what_to_do(start, client_of, authority):
    server = start(**tls_settings(authority.issue("server")))
    with pytest.raises(UnavailableError, match="use a target with grpcs://"):
        client_of(server).health()


def test_a_client_with_tls_of_a_plain_server_is_told_what_to_do(start, client_of, authority):
    with pytest.raises(UnavailableError, match="does not speak TLS on this port"):
        client_of(start(), TLS, tls_ca=authority.file).health()


def test_with_mtls_only_clients_with_a_certificate_of_the_authority_are_served(
    start, client_of, authority, tmp_path, caplog
):
    server = start(
        **tls_settings(authority.issue("server"), tls_client_ca=str(authority.file)),
    )
    caplog.set_level("INFO")
    own = authority.issue("worker 3")
    stranger = Authority(tmp_path, "other").issue("stranger")
    options = {"tls_ca": authority.file}
    certificate = {"tls_cert": own.cert, "tls_key": own.key}
    assert client_of(server, TLS, **options, **certificate).models()
    wait_until(lambda: "caller=cert:worker_3" in caplog.text)
    with pytest.raises(UnavailableError, match="give one that it accepts"):
        client_of(server, TLS, **options).health()
    with pytest.raises(UnavailableError, match="give one that it accepts"):
        client_of(server, TLS, **options, tls_cert=stranger.cert, tls_key=stranger.key).health()
    assert "attendant_serving 1.0" in metrics_over_tls(server, authority, own)
    with pytest.raises((urllib.error.URLError, OSError)):
        metrics_over_tls(server, authority)


def test_a_new_certificate_serves_new_connections_and_no_call_fails(start, client_of, authority):
    files = authority.issue("server")
    server = start(**tls_settings(files))
    stopping, failures = threading.Event(), []

    def call() -> None:
        while not stopping.is_set():
            try:
                with_fresh_connection = client_of(server, TLS, tls_ca=authority.file)
                assert with_fresh_connection.models()
                with_fresh_connection.close()
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        before = expiry(server, authority)
        authority.issue("server", days=2)  # writes the same files
        wait_until(lambda: expiry(server, authority) != before)
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
    assert not failures
    assert "attendant_serving 1.0" in metrics_over_tls(server, authority)
    assert client_of(server, TLS, tls_ca=authority.file).health() == "serving"


def expiry(server: Any, authority: Authority) -> str:
    """When the certificate expires that a new connection to the port of gRPC gets."""
    context = ssl.create_default_context(cafile=str(authority.file))
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", server.port)) as connection,
        context.wrap_socket(connection, server_hostname="localhost") as secured,
    ):
        certificate = secured.getpeercert()
    assert certificate
    return str(certificate["notAfter"])


def test_the_symbolic_links_of_kubernetes_are_followed(start, client_of, authority, tmp_path):
    for version, days in (("..1", 1), ("..2", 2)):
        (tmp_path / version).mkdir()
        authority.issue("tls", days=days, folder=tmp_path / version)
    (tmp_path / "..data").symlink_to("..1")
    files = Files(tmp_path / "tls.crt", tmp_path / "tls.key")
    files.cert.symlink_to("..data/tls.crt")
    files.key.symlink_to("..data/tls.key")
    server = start(**tls_settings(files))
    before = expiry(server, authority)
    (tmp_path / "..data_tmp").symlink_to("..2")
    os.replace(tmp_path / "..data_tmp", tmp_path / "..data")
    wait_until(lambda: expiry(server, authority) != before)
    assert client_of(server, TLS, tls_ca=authority.file).health() == "serving"


def test_a_broken_new_pair_is_logged_once_and_the_former_one_serves_on(
    start, client_of, authority, caplog
):
    files = authority.issue("server")
    server = start(**tls_settings(files))
    other = authority.issue("other")
    files.key.write_bytes(other.key.read_bytes())
    wait_until(lambda: "event=security_files_not_reloaded" in caplog.text)
    for _ in range(3):
        assert client_of(server, TLS, tls_ca=authority.file).health() == "serving"
    assert caplog.text.count("is not the key of the first certificate") == 1
    assert "PRIVATE" not in caplog.text


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        ("cert", "holds no PEM certificate"),
        ("key", "holds no PEM private key"),
        ("client_ca", "holds no PEM certificate"),
        ("missing", r"server\.crt: No such file"),
        ("encrypted", "is encrypted"),
        ("other", "is not the key"),
    ],
)
def test_a_server_does_not_start_with_faulty_files(start, authority, tmp_path, broken, problem):
    files = authority.issue("server")
    values = tls_settings(files, tls_client_ca=str(authority.file))
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate")
    if broken in ("cert", "key", "client_ca"):
        values[f"tls_{broken}"] = str(junk)
    elif broken == "missing":
        files.cert.unlink()
    elif broken == "encrypted":
        key = load_pem_private_key(files.key.read_bytes(), None)
        files.key.write_bytes(private_pem_of(key, b"password"))
    else:
        values["tls_key"] = str(authority.issue("other").key)
    with pytest.raises(StartError, match=problem):
        start(**values)


def test_a_key_that_all_users_can_read_is_warned_of(start, authority, caplog):
    files = authority.issue("server")
    files.key.chmod(0o644)
    start(**tls_settings(files))
    assert f"event=secret_readable_by_others file={files.key}" in caplog.text


def test_the_private_key_is_in_no_repr(authority):
    files = authority.issue("server")
    assert "PRIVATE" not in repr(watched_certificate(files.cert, files.key, None).value)


def test_the_port_for_health_needs_no_tls_and_serves_nothing_else(start, authority):
    server = start(**tls_settings(authority.issue("server")), health_port=0)
    with grpc.insecure_channel(f"127.0.0.1:{server.health_port}") as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        answer = health.Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        list_models: Any = model_pb2_grpc.ModelServiceStub(channel).ListModels
        failure = failure_of(list_models, model_pb2.ListModelsRequest())
        assert failure.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_client_that_sends_no_handshake_does_not_hold_up_the_metrics(start, authority):
    server = start(**tls_settings(authority.issue("server")))
    with socket.create_connection(("127.0.0.1", server.metrics_port)):
        assert "attendant_serving 1.0" in metrics_over_tls(server, authority)
