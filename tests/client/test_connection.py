"""TLS and tokens of clients: which options fit together, and what is sent to whom."""

import sys
from pathlib import Path
from typing import Any

import pytest
from attendant_client import AsyncClient, Client
from attendant_client.__main__ import main
from attendant_client.connection import connect as connect_options
from attendant_client.connection_flags import connection_options

REMOTE, LOCAL = "server.example:50051", "localhost:50051"


def authorizations(script: Any) -> list[str]:
    return [sent["authorization"] for sent in script.metadata]


def test_a_token_is_sent_with_every_call(connect, script):
    client = connect(token="secret")
    client.translate("a")
    list(client.stream_translate("b"))
    assert authorizations(script) == ["Bearer secret"] * 2


def test_a_token_that_is_a_function_is_asked_for_each_call(connect, script):
    tokens = iter(["first", "second"])
    client = connect(token=lambda: next(tokens))
    for text in ("a", "b"):
        client.translate(text)
    assert authorizations(script) == ["Bearer first", "Bearer second"]


@pytest.mark.parametrize("token", ["", "a b", "a\n", "ä"])
def test_a_bad_token_is_refused_without_being_repeated(connect, token):
    with pytest.raises(ValueError, match="^a token must be printable ASCII without spaces$"):
        connect(token=token)
    client = connect(token=lambda: token)
    with pytest.raises(ValueError, match="printable ASCII"):
        client.translate("a")


def test_a_token_is_given_only_once(connect):
    with pytest.raises(ValueError, match="either as token or in the metadata"):
        connect(token="secret", metadata=[("authorization", "Bearer other")])


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_a_token_for_another_machine_needs_tls_or_permission(client):
    with pytest.raises(ValueError, match="use a target with grpcs://"):
        client(REMOTE, token="secret")


@pytest.mark.parametrize(
    ("target", "options"),
    [
        (LOCAL, {}),
        (f"grpc://{LOCAL}", {}),
        ("unix:/run/attendant.sock", {}),
        (REMOTE, {"allow_plain_token": True}),
    ],
)
def test_a_token_may_be_sent_plainly_to_this_machine_or_if_allowed(target, options):
    assert connect_options(target, token="secret", **options).credentials is None


@pytest.mark.parametrize(
    ("target", "options"),
    [(f"grpcs://{REMOTE}", {}), (REMOTE, {"tls": True}), (f"grpcs://{REMOTE}/", {"tls": True})],
)
def test_tls_is_asked_for_by_target_or_option(target, options):
    connection = connect_options(target, token="secret", **options)
    assert connection.credentials is not None
    assert connection.address == REMOTE


@pytest.mark.parametrize(
    ("target", "options", "problem"),
    [
        (f"grpcs://{REMOTE}", {"tls": False}, "disagree about TLS"),
        (f"grpc://{REMOTE}", {"tls": True}, "disagree about TLS"),
        (REMOTE, {"tls": False, "tls_ca": "ca.pem"}, "disagree about TLS"),
        (f"grpc://{REMOTE}", {"tls_ca": "ca.pem"}, "disagree about TLS"),
        (REMOTE, {"tls_cert": "a.crt"}, "must be given together"),
        (REMOTE, {"tls_key": "a.key"}, "must be given together"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(target, options, problem):
    with pytest.raises(ValueError, match=problem):
        connect_options(target, **options)


FORM, PORT = "must be host:port", "the port must be between 1 and 65535"
BAD_TARGETS = {
    "127.0.0.1:99999": PORT,
    "host:abc": PORT,
    "host:": PORT,
    "host:0": PORT,
    "host:-1": PORT,
    "host:\u0661": PORT,
    "host:00000000050051": PORT,
    "localhost:50051/": PORT,
    "grpc://localhost:500510": PORT,
    "grpcs://localhost:x": PORT,
    "dns:///host:99999": PORT,
    "dns://1.1.1.1/host:99999": PORT,
    "10.0.0.1:50051,10.0.0.2:99999": PORT,
    "ipv4:10.0.0.1:50051,10.0.0.2:99999": PORT,
    "[::1]:99999": PORT,
    "[::1]50051": PORT,
    "": FORM,
    ":50051": FORM,
    "[::1": FORM,
    "[host]:50051": FORM,
    "host:1:2": FORM,
    "http://localhost:50051": "use grpc:// or, with TLS, grpcs://",
}


@pytest.mark.parametrize("target", BAD_TARGETS)
def test_a_target_that_can_lead_to_no_server_is_refused_at_once(target):
    with pytest.raises(ValueError, match=f"^target .*{BAD_TARGETS[target]}"):
        connect_options(target)


@pytest.mark.parametrize(
    "target",
    [
        *("localhost", "localhost:50051", "host:1", "host:65535", "a-b.example:443", "127.0.0.1"),
        *("[::1]:50051", "[::1]", "::1", "dns:host:50051", "dns:///host:50051", "dns:///host"),
        *("ipv4:10.0.0.1:1,10.0.0.2:2", "10.0.0.1,10.0.0.2:5", "ipv6:[::1]:1", "[::1]:1,[::2]:2"),
        *("unix:/a:b,c", "unix-abstract:x", "grpc://host:5/", "xds:///service", "vsock:2:50051"),
    ],
)
def test_every_form_of_a_target_is_accepted(target):
    assert connect_options(target).address


def test_an_unknown_option_is_refused():
    with pytest.raises(TypeError, match="tls_cs"):
        Client(LOCAL, tls_cs="ca.pem")  # type: ignore[call-arg]


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pem"):
        connect_options(REMOTE, tls_ca=tmp_path / "nowhere.pem")


def test_the_token_is_in_no_repr():
    client = Client(LOCAL, token="secret", metadata=[("x-key", "hidden")])
    with client:
        assert "secret" not in repr(vars(client))
        assert "hidden" not in repr(vars(client))


def options_of(*flags: str, **environment: str) -> Any:
    from attendant_client.arguments import build_parser

    arguments = build_parser().parse_args([*flags, "models"])
    return connection_options(arguments, environment)


def test_the_command_reads_the_token_from_a_file_or_a_variable(tmp_path: Path):
    file = tmp_path / "token"
    file.write_text("from-file\n")
    assert options_of(ATTENDANT_TOKEN="from-variable")["token"] == "from-variable"
    assert options_of("--token", str(file), ATTENDANT_TOKEN="x")["token"] == "from-file"
    assert options_of()["token"] is None


def test_the_files_of_variables_are_used_with_tls_only():
    variables = {
        "ATTENDANT_CA": "ca.pem",
        "ATTENDANT_CLIENT_CERT": "a.crt",
        "ATTENDANT_CLIENT_KEY": "a.key",
    }
    plain = options_of("--target", LOCAL, **variables)
    assert (plain["tls"], plain["tls_ca"], plain["tls_cert"]) == (False, None, None)
    for flags in (["--target", f"grpcs://{REMOTE}"], ["--target", REMOTE, "--tls"]):
        found = options_of(*flags, **variables)
        assert (found["tls"], found["tls_ca"]) == (True, "ca.pem")
        assert (found["tls_cert"], found["tls_key"]) == ("a.crt", "a.key")
    assert options_of("--tls-ca", "own.pem", "--tls", **variables)["tls_ca"] == "own.pem"


def test_the_command_says_in_one_line_what_is_wrong(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "stdin", None)
    for flags, problem in (
        (["--token", str(tmp_path / "nowhere")], "--token: no file with a token"),
        (["--token", "long-secret" * 50], "--token: no file with a token"),
        (["--tls-ca", str(tmp_path / "nowhere")], "nowhere"),
        (["--tls", "--cert", "a.crt"], "tls_cert and tls_key must be given together"),
    ):
        assert main(["models", *flags]) == 1
        error = capsys.readouterr().err
        assert problem in error
        assert error.count("\n") == 1
        assert "long-secret" not in error
