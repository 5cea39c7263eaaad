"""The cost of TLS and of API keys.

    python -m bench.serving.security --data-dir DATA_DIR --pairs 20

Loads two servers alternately with the same calls of one text each. Each load uses one lasting
connection, so that handshakes do not count. One server has TLS, and API keys that it checks for
each call; ``--parts tls`` or ``--parts keys`` chooses one of the two. Prints the ratios of
throughput, of latency and of the server's processor time per text.
"""

import argparse
import asyncio
import datetime
import hashlib
import ipaddress
import tempfile
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bench.loads import LoadResult, Send
from bench.reporting import Figure, figures_of, ratios_table, report
from bench.servers import ONE_OF_EACH_KIND, RunningServer, running_server
from bench.serving.overhead import CONCURRENCY, Start, load_server, measure_in_turn, parts_parser

PARTS = ("tls", "keys")
SECURED, PLAIN = "secured", "plain"
UNITS = ["texts/s", "p50 ms", "p99 ms", "server's CPU ms/text"]
KEY = "attendant_of_the_bench"


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """Write a self-signed certificate for 127.0.0.1; returns its file and that of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
    now = datetime.datetime.now(datetime.UTC)
    hosts = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    certificate = builder.add_extension(hosts, critical=False).sign(key, hashes.SHA256())
    cert_file, key_file = folder / "server.crt", folder / "server.key"
    cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    key_file.touch(0o600)
    key_file.write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    return cert_file, key_file


def write_api_keys(folder: Path) -> Path:
    """Write a file of API keys with `KEY` only; returns its path."""
    file = folder / "keys.toml"
    file.touch(0o600)
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    file.write_text(f'[[keys]]\nname = "bench"\nsha256 = "{digest}"\n', encoding="utf-8")
    return file


@contextmanager
def secured_server(
    parts: Sequence[str], flags: Sequence[str], folder: Path
) -> Iterator[RunningServer]:
    """A server with the given `PARTS`; it has what its callers need to connect."""
    own: list[str] = []
    root_certificate, token = b"", ""
    if "tls" in parts:
        cert_file, key_file = write_certificate(folder)
        own += [f"--tls-cert={cert_file}", f"--tls-key={key_file}"]
        root_certificate = cert_file.read_bytes()
    if "keys" in parts:
        own.append(f"--api-keys={write_api_keys(folder)}")
        token = KEY
    with running_server(ONE_OF_EACH_KIND, *flags, *own) as server:
        yield replace(server, root_certificate=root_certificate, token=token)


async def run(arguments: argparse.Namespace) -> None:
    """Run the measurements and report them."""
    figures: list[Figure] = []
    flags = arguments.server_flags

    def measured(
        _: str, server: RunningServer, send: Send[str], texts: Sequence[str]
    ) -> Awaitable[LoadResult]:
        return load_server(server, send, texts, CONCURRENCY, arguments.seconds)

    with tempfile.TemporaryDirectory() as folder:
        starts: dict[str, Start] = {
            SECURED: partial(secured_server, arguments.parts, flags, Path(folder)),
            PLAIN: partial(running_server, ONE_OF_EACH_KIND, *flags),
        }
        for load in arguments.loads:
            results = await measure_in_turn(load, starts, arguments, measured)
            figures += figures_of(load, results, UNITS, SECURED)
    report("security", {"parts": arguments.parts, "figures": figures}, ratios_table(figures))


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    return parts_parser(__doc__, PARTS, 5.0)


if __name__ == "__main__":
    asyncio.run(run(build_parser().parse_args()))
