"""Services that can be switched off, warnings of exposed servers, and secrets in no output."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from attendant_client import UnsupportedError
from attendant_server.__main__ import serve
from grpc_reflection.v1alpha import reflection_pb2

from tests.support.application import TINY_BUNDLES
from tests.support.credentials import Authority
from tests.support.processes import port_of, server_process


def reflected(server: Any, metadata: Any = ()) -> list[str]:
    """The services that reflection names."""
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call = channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        [answer] = call(iter([request]), timeout=60, metadata=metadata)
    return [service.name for service in answer.list_services_response.service]


def code_of_reflection(server: Any) -> Any:
    with pytest.raises(grpc.RpcError) as failure:
        reflected(server)
    return failure.value.code()


def test_health_can_be_switched_off(start, client_of):
    server = start(health="off")
    with pytest.raises(UnsupportedError):
        client_of(server).health()
    assert "grpc.health.v1.Health" not in reflected(server)


def test_reflection_can_be_switched_off(start):
    assert code_of_reflection(start(reflection="off")) is grpc.StatusCode.UNIMPLEMENTED


def test_reflection_needs_authentication_but_health_does_not(start, client_of, key_file):
    key = key_file.add("search", "methods = []\n")
    server = start(api_keys=str(key_file.path))
    assert code_of_reflection(server) is grpc.StatusCode.UNAUTHENTICATED
    assert "grpc.health.v1.Health" in reflected(server, [("authorization", f"Bearer {key}")])
    assert client_of(server).health() == "serving"


def test_metrics_and_the_port_for_health_can_be_switched_off(start, client_of):
    server = start(metrics_port=-1)
    assert (server.metrics_port, server.health_port) == (0, 0)
    assert client_of(server).health() == "serving"


def test_a_server_open_to_all_warns_loudly(start, caplog):
    start(host="0.0.0.0")
    assert "event=open_to_all host=0.0.0.0" in caplog.text


def test_tokens_without_tls_on_the_network_are_warned_of(start, key_file, authority, caplog):
    start(host="0.0.0.0", api_keys=str(key_file.path))
    assert "event=tokens_without_tls host=0.0.0.0" in caplog.text
    assert "event=open_to_all" not in caplog.text


@pytest.mark.parametrize("case", ["loopback", "unix", "mtls", "tls and keys"])
def test_a_protected_server_warns_of_nothing(
    start, authority: Authority, key_file, tmp_path: Path, caplog, case
):
    files = authority.issue("server")
    tls = {"tls_cert": str(files.cert), "tls_key": str(files.key)}
    values: dict[str, dict[str, Any]] = {
        "loopback": {"host": "127.0.0.1"},
        "unix": {"host": f"unix:{tmp_path / 'socket'}"},
        "mtls": {"host": "0.0.0.0", "tls_client_ca": str(authority.file)} | tls,
        "tls and keys": {"host": "0.0.0.0", "api_keys": str(key_file.path)} | tls,
    }
    start(**values[case])
    assert "WARNING" not in caplog.text


def test_no_secret_is_in_the_log_the_metrics_or_the_process_list(
    key_file, authority: Authority, tmp_path: Path
):
    key = key_file.add("search")
    files = authority.issue("server")
    token_file = tmp_path / "token"
    token_file.write_text(key + "\n")
    flags = ["--tls-cert", str(files.cert), "--tls-key", str(files.key)]
    flags += ["--api-keys", str(key_file.path), "--metrics-tls", "never"]
    with server_process(TINY_BUNDLES, *flags) as server:
        port = port_of(server)
        command = [
            sys.executable,
            "-m",
            "attendant_client",
            "--target",
            f"grpcs://localhost:{port}",
        ]
        command += ["--tls-ca", str(authority.file)]
        with subprocess.Popen(
            [*command, "--token", str(token_file), "translate", "--model", "tiny-en-de"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as client:
            shown = [
                Path(f"/proc/{process.pid}/cmdline").read_text() for process in (server, client)
            ]
            out, _ = client.communicate("The dog.\n", timeout=60)
        assert client.returncode == 0
        assert out.endswith("\n")
        refused = subprocess.run(
            [*command, "models"],
            capture_output=True,
            text=True,
            env={"ATTENDANT_TOKEN": "attendant_wrong_secret"},
        )
        assert refused.returncode == 1
        assert "not authenticated" in refused.stderr
        assert refused.stderr.count("\n") == 1
        server.terminate()
        log = server.communicate(timeout=60)[1]
    assert "caller=key:search" in log
    assert "reason=unknown_key" in log
    secrets = [key, key.removeprefix("attendant_"), "wrong_secret", files.key.read_text()[40:80]]
    for secret in secrets:
        assert not any(secret in text for text in (*shown, out, refused.stderr, log))


def test_a_new_key_is_printed_with_its_entry(monkeypatch, capfd, tmp_path, start, client_of):
    monkeypatch.setattr(sys, "argv", ["attendant-server", "--new-api-key", "search"])
    assert serve() == 0
    _, key, _, *entry = capfd.readouterr().out.splitlines()
    path = tmp_path / "keys.toml"
    path.write_text("\n".join(entry))
    assert client_of(start(api_keys=str(path)), token=key).models()


def test_a_key_with_a_bad_name_is_not_made(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["attendant-server", "--new-api-key", "a b"])
    assert serve() == 2
    assert "1 to 64 letters" in capsys.readouterr().err
