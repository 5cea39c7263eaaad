"""The command's flags and environment variables for TLS and the token.

A token comes from a file or a variable: every user of a machine can read the arguments of its
processes.
"""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

from attendant_client.options import ConnectionOptions
from attendant_client.targets import split_target

FLAGS = {
    "tls": "connect with TLS, as for a target grpcs://HOST:PORT",
    "tls_ca": "PEM file of the authorities that may issue the server's certificate; "
    "default with TLS: $ATTENDANT_CA, or those that gRPC brings along",
    "cert": "PEM file of your certificate; default with TLS: $ATTENDANT_CLIENT_CERT",
    "key": "PEM file of its key; default with TLS: $ATTENDANT_CLIENT_KEY",
    "token": "file with the API key or token, since every user of this machine can see the "
    "arguments of its processes; default: the token in $ATTENDANT_TOKEN",
    "allow_plain_token": "send the token to other machines even without TLS",
}
SWITCHES = ("tls", "allow_plain_token")
ENVIRONMENT = """\
  ATTENDANT_TOKEN     the API key or token itself, if --token is not given
  ATTENDANT_CA, ATTENDANT_CLIENT_CERT, ATTENDANT_CLIENT_KEY
                      the files for connections with TLS, if --tls-ca, --cert and
                      --key are not given
"""


def add_connection_flags(parser: argparse.ArgumentParser, suppress: bool) -> None:
    """Add the flags. With `suppress`, a flag that is not given leaves its value as it is."""
    for name, text in FLAGS.items():
        flag = "--" + name.replace("_", "-")
        default = argparse.SUPPRESS if suppress else None
        if name in SWITCHES:
            parser.add_argument(flag, action="store_true", default=default, help=text)
        else:
            parser.add_argument(flag, metavar="FILE", default=default, help=text)


def connection_options(
    arguments: argparse.Namespace, environment: Mapping[str, str] = os.environ
) -> ConnectionOptions:
    """The options of the client; raises OSError for a file of a token that cannot be read."""
    files = arguments.tls_ca, arguments.cert, arguments.key
    tls = bool(arguments.tls or split_target(arguments.target)[1] or any(files))
    names = ("CA", "CLIENT_CERT", "CLIENT_KEY")
    defaults = [environment.get(f"ATTENDANT_{name}") if tls else None for name in names]
    tls_ca, tls_cert, tls_key = (
        given or default for given, default in zip(files, defaults, strict=True)
    )
    return ConnectionOptions(
        tls=tls,
        tls_ca=tls_ca,
        tls_cert=tls_cert,
        tls_key=tls_key,
        token=_token(arguments.token, environment),
        allow_plain_token=bool(arguments.allow_plain_token),
    )


def _token(path: str | None, environment: Mapping[str, str]) -> str | None:
    if path is None:
        return environment.get("ATTENDANT_TOKEN") or None
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:  # the path is left out, because it may be the token itself
        raise OSError(f"--token: no file with a token can be read: {error.strerror}") from None
