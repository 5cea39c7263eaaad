"""All settings of the server, each declared once: name, default, help and bounds.

Does not know where settings come from and how they are used.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from attendant_server.setting_rules import bound_problem, contradictions

MIB = 1024 * 1024


class SettingsError(Exception):
    """Some settings are bad; ``problems`` has a line for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def _setting(
    default: Any, help: str, *, min: float = -math.inf, max: float = math.inf, choices: str = ""
) -> Any:
    metadata = {"help": help, "min": min, "max": max, "choices": tuple(choices.split())}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of a server. Limits are inclusive."""

    bundles: Path | str = _setting(
        Path("bundles"),
        "Folder of the bundles, `<name>/<version>/`, or its URL: `https://`, `s3://` or another one"
        " of fsspec",
    )
    bundles_cache_dir: str = _setting(
        "",
        "Folder for bundles from a URL; empty for `attendant/bundles` in the user's caches",
    )
    max_bundles_cache_bytes: int = _setting(
        20 * 1024 * MIB, "Size of that folder; versions that are not served make room", min=MIB
    )
    models: tuple[str, ...] = _setting(
        (), "Models to load, `name` or `name/version`, separated by commas; empty for all"
    )
    default_models: tuple[str, ...] = _setting(
        (),
        "Models for calls that name none, `name` or `name/version`, separated by commas: the first"
        " one that has the languages of the call",
    )
    glossaries: str = _setting(
        "",
        "Folder of glossaries: each `<name>.tsv`, a term and its translations on each line,"
        " separated by tabs",
    )
    pivots: tuple[str, ...] = _setting(
        (),
        "Pairs of translation models, such as `de-en+en-fr`, separated by commas: calls that name"
        " languages which no model has together are translated by the first pair that has them",
    )
    bad_bundles: str = _setting(
        "exit",
        "A bundle that cannot be loaded at the start: `exit`, or `skip` it and serve the others",
        choices="exit skip",
    )
    watch_bundles_seconds: float = _setting(
        0.0,
        "Time between two looks at the bundles' folder for bundles that were added, replaced or"
        " removed; 0 for no looks, only SIGHUP",
        min=0,
        max=86400,
    )
    model_control: str = _setting(
        "off",
        "Service that loads and unloads models; needs authentication, or a loopback address",
        choices="on off",
    )
    bundle_keys: str = _setting(
        "",
        "PEM file, or folder of `*.pem`, with Ed25519 public keys; every bundle must be signed by"
        " one of them",
    )
    try_bundles: str = _setting(
        "auto",
        "Load each bundle in a child process first: `auto` while other models are served, `always`"
        " also at the start, or `never`",
        choices="auto always never",
    )
    trial_seconds: float = _setting(
        60.0,
        "Time limit of loading a bundle on trial, and as much again per GiB",
        min=1,
        max=86400,
    )
    trial_memory_bytes: int = _setting(
        1024 * MIB,
        "Memory for loading a bundle on trial, beside 8 times the size of its files",
        min=256 * MIB,
    )
    precision: str = _setting(
        "auto",
        "Precision to run; `auto` is int8 on cpu if the bundle has it; cuda runs fp16 only",
        choices="auto fp32 int8 fp16",
    )
    device: str = _setting(
        "cpu", "Device of the models; cuda needs the GPU build of ONNX Runtime", choices="cpu cuda"
    )
    max_device_memory_bytes: int = _setting(
        0, "GPU memory for weights, caches and activations together; 0 for no limit", min=0
    )
    num_threads: int = _setting(
        0,
        "Threads of all model runs together; 0 for the number of processors that the process may"
        " use, or the CPU quota of its control group if that is lower",
        min=0,
        max=1024,
    )
    num_workers: int = _setting(
        0,
        "Number of model runs at once, among which threads and rows are divided; 0 for one on cuda"
        " and up to 4 on cpu",
        min=0,
        max=1024,
    )
    pin_workers: str = _setting(
        "auto",
        "Pin each worker to a processor: `auto` on cpu if there are as many processors as workers,"
        " or `never`",
        choices="auto never",
    )
    shortlists: str = _setting(
        "never",
        "Restrict each translation to its source's vocabulary shortlist: `auto` on cpu for models "
        "that have shortlists, or `never`",
        choices="auto never",
    )
    num_tokenizer_threads: int = _setting(2, "Threads that tokenize long texts", min=1, max=1024)

    host: str = _setting(
        "0.0.0.0", "Address that gRPC listens on, `::` for IPv6 too; `unix:/path` for a unix socket"
    )
    port: int = _setting(50051, "Port of gRPC; 0 for any free one", min=0, max=65535)
    protocols: tuple[str, ...] = _setting(
        ("attendant", "kserve", "tei"),
        "Protocols of the port of gRPC, separated by commas: `attendant`; `kserve`, which is KServe"
        " v2 with Triton's extensions; `tei`, which is that of Text Embeddings Inference",
    )
    http_host: str = _setting("0.0.0.0", "Address that HTTP listens on, `::` for IPv6 too")
    http_port: int = _setting(
        -1, "Port of HTTP; 0 for any free one, -1 for no HTTP at all", min=-1, max=65535
    )
    http_protocols: tuple[str, ...] = _setting(
        ("openai", "libretranslate", "tei", "connect", "page"),
        "Protocols of the port of HTTP, separated by commas: `openai`, `libretranslate`, `tei`;"
        " `connect`, which is Connect and gRPC-Web; `page`, the web page at `/`, which needs"
        " `connect`",
    )
    http_allowed_origins: tuple[str, ...] = _setting(
        (),
        "Origins whose web pages may call over HTTP (CORS), such as `https://app.example.com`,"
        " separated by commas; `*` for any",
    )
    metrics_host: str = _setting("0.0.0.0", "Address that `/metrics` listens on, `::` for IPv6 too")
    metrics_port: int = _setting(
        9464, "Port of `/metrics`; 0 for any free one, -1 for no metrics at all", min=-1, max=65535
    )
    tls_cert: str = _setting(
        "",
        "PEM file with the server's certificate and its chain; switches TLS on, also for HTTP and"
        " metrics",
    )
    tls_key: str = _setting("", "PEM file with the private key of `--tls-cert`")
    tls_client_ca: str = _setting(
        "", "PEM file of authorities; callers must have a certificate of one of them (mTLS)"
    )
    metrics_tls: str = _setting(
        "auto", "TLS of the metrics: `auto` as for gRPC, or `never`", choices="auto never"
    )
    api_keys: str = _setting("", "TOML file with the API keys that callers may use")
    jwt_keys: str = _setting(
        "", "Public keys of JSON Web Tokens: a file with a JWK Set or PEM, or the URL of a JWK Set"
    )
    jwt_secret: str = _setting(
        "", "File with the shared secret of HS256, HS384 or HS512, instead of `--jwt-keys`"
    )
    jwt_issuer: str = _setting("", "Issuer (`iss`) that a token must have")
    jwt_audience: str = _setting("", "Audience (`aud`) that a token must have")
    jwt_algorithms: tuple[str, ...] = _setting(
        ("RS256", "ES256", "EdDSA"), "Algorithms that a token may be signed with"
    )
    jwt_clock_skew_seconds: float = _setting(
        30.0, "Tolerance for the times in a token", min=0, max=600
    )
    jwt_permissions_claim: str = _setting(
        "attendant", "Claim with the permissions and limits of a caller"
    )
    health: str = _setting("on", "Health checks on the port of gRPC", choices="on off")
    health_port: int = _setting(
        -1,
        "Port on `--metrics-host` for health checks without TLS; 0 for any free one, -1 for none",
        min=-1,
        max=65535,
    )
    reflection: str = _setting("on", "gRPC reflection", choices="on off")
    trace_endpoint: str = _setting(
        "", "Collector that gets spans over OTLP, such as `http://host:4317`; empty: no tracing"
    )

    max_rows: int = _setting(
        128,
        "Hypotheses that a translation or language model decodes concurrently",
        min=1,
        max=65536,
    )
    max_sentences: int = _setting(
        0,
        "Texts that a translation or language model decodes concurrently, within `--max-rows`; 0"
        " for 16 per thread on cpu, 32 if the model is at least 512 wide, and no limit on cuda",
        min=0,
        max=65536,
    )
    max_cache_bytes: int = _setting(
        0,
        "Memory of the caches of one translation or language model, over all workers; texts that "
        "could exceed it wait; 0 for what all rows at full length need, at most half of the memory "
        "for all models",
        min=0,
    )
    max_encode_tokens: int = _setting(
        256,
        "Tokens of sources or prompts encoded between two decoding steps, and as many target"
        " tokens scored",
        min=1,
    )
    max_batch_tokens: int = _setting(
        512, "Tokens, padding included, in one batch of an embedding model", min=1
    )
    max_batch_seconds: float = _setting(
        0.01,
        "Time that a batch of an embedding model may delay decoding, and that a run for a caller"
        " with a flood of texts may delay other callers",
        min=0.001,
        max=10,
    )
    max_queued_texts: int = _setting(
        2048,
        "Texts that may wait for one model, those of one caller in at most three quarters of the"
        " places that others leave; further calls are refused at once",
        min=1,
    )

    max_connections: int = _setting(1000, "Open connections of gRPC", min=1, max=1_000_000)
    max_http_connections: int = _setting(
        1000,
        "Open connections of HTTP; a further one ends the one that has been idle for longest",
        min=1,
        max=1_000_000,
    )
    max_streams_per_connection: int = _setting(
        256, "Concurrent calls on one connection; clients hold further calls back", min=1, max=65536
    )
    handshake_seconds: float = _setting(
        5.0,
        "Time for the handshakes of TLS and HTTP/2 of a new connection, and for a head of HTTP",
        min=0.1,
        max=600,
    )
    max_connection_idle_seconds: float = _setting(
        300.0, "Time after which a connection without calls is closed", min=0.1, max=86400
    )
    max_connection_age_seconds: float = _setting(
        600.0, "Age at which a connection takes no new calls, to be renewed", min=0.1, max=86400
    )
    keepalive_seconds: float = _setting(
        60.0, "Time after which a silent peer is sent a ping", min=1, max=86400
    )
    keepalive_timeout_seconds: float = _setting(
        20.0, "Time that a peer has to answer a ping or to take sent bytes", min=0.1, max=600
    )
    min_ping_seconds: float = _setting(
        10.0, "Shortest time between two pings of a client that has no calls", min=0, max=86400
    )
    max_ping_strikes: int = _setting(
        2, "Earlier pings that are tolerated; 0 for any number", min=0, max=1000
    )
    max_metadata_bytes: int = _setting(
        16 * 1024, "Metadata of a call, with 32 bytes more for each entry", min=1024, max=MIB
    )
    max_metrics_connections: int = _setting(
        32, "Connections to the metrics; a further one ends the oldest", min=1, max=1024
    )
    max_metrics_seconds: float = _setting(
        10.0, "Time limit of a connection to the metrics", min=0.1, max=600
    )

    max_concurrent_calls: int = _setting(
        512, "Concurrent calls; further calls are refused at once", min=1, max=1_000_000
    )
    caller_max_concurrent_calls: int = _setting(
        0, "Concurrent calls of a caller without a limit of its own; 0 for no limit", min=0
    )
    caller_max_texts_per_minute: int = _setting(
        0, "Texts, or pairs, per minute of a caller without a limit of its own", min=0
    )
    caller_max_tokens_per_minute: int = _setting(
        0, "Tokens of texts per minute of a caller without a limit of its own", min=0
    )
    max_held_bytes: int = _setting(
        0,
        "Requests and answers, as bytes, of all calls together, unread answers included; 0 for a"
        " sixteenth of the memory",
        min=0,
    )
    max_request_seconds: float = _setting(
        60.0, "Time limit of a call, even if its deadline is later", min=0.001, max=86400
    )
    max_receive_seconds: float = _setting(
        30.0, "Time that a call has to send its request", min=0.01, max=86400
    )
    max_request_bytes: int = _setting(4 * MIB, "Largest request message", min=1024, max=2**31 - 1)
    max_response_bytes: int = _setting(
        32 * MIB, "Largest response message", min=1024, max=2**31 - 1
    )
    max_texts: int = _setting(256, "Texts, or pairs, in one call", min=1, max=2**31 - 1)
    max_text_characters: int = _setting(
        20_000, "Unicode code points in one text", min=1, max=2**31 - 1
    )
    max_beam_size: int = _setting(8, "Largest `beam_size` of a call", min=1, max=1024)
    max_top_k: int = _setting(100, "Largest `top_k` of a call", min=1, max=65536)

    lame_duck_seconds: float = _setting(
        2.0,
        "Time that a stopping server reports NOT_SERVING before it refuses calls",
        min=0,
        max=3600,
    )
    drain_seconds: float = _setting(
        20.0, "Time that a stopping server then waits for calls in progress", min=0, max=3600
    )
    log_level: str = _setting(
        "info", "Minimum level of log lines", choices="debug info warning error"
    )
    log_format: str = _setting(
        "console", "Log lines for people, or one JSON object per line", choices="console json"
    )

    def __post_init__(self) -> None:
        """Check all bounds; raises SettingsError with every problem."""
        found = (bound_problem(setting, getattr(self, setting.name)) for setting in fields(self))
        problems = [problem for problem in found if problem is not None]
        problems += contradictions(self)
        if problems:
            raise SettingsError(problems)
