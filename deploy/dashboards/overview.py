"""The overview dashboard: availability, rate, errors, latency and saturation of all servers."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.dashboards.boards import board
from deploy.dashboards.limits import models_and_ports, requests_and_answers
from deploy.dashboards.panels import (
    CALLS,
    MODEL,
    MODEL_LEGEND,
    SERVER,
    SERVER_FAULTS,
    Panel,
    Query,
    graph,
    number,
    percentile_by,
    percentiles,
    rate,
)

HANDLED = "grpc_server_handled_total"
UNARY_SECONDS = f'grpc_server_handling_seconds_bucket{{grpc_type="unary", {CALLS}}}'


def overview() -> Dashboard:
    """The dashboard to open first."""
    return board(
        "attendant-overview",
        "attendant: overview",
        "Rate, errors, latency and saturation of all attendant servers.",
        {
            "Now": _now(),
            "Calls and errors": _calls(),
            "Callers": _callers(),
            "Latency": _latency(),
            "Saturation": _saturation(),
            "Requests and answers": requests_and_answers(),
            "Models and ports": models_and_ports(),
        },
    )


def _now() -> list[Panel]:
    calls = f"sum(rate({HANDLED}{{{CALLS}}}[$__rate_interval]))"
    faults = f"sum(rate({HANDLED}{{{SERVER_FAULTS}, {CALLS}}}[$__rate_interval]))"
    seconds = f"sum by (le) (rate({UNARY_SECONDS}[$__rate_interval]))"
    return [
        number(
            "Serving",
            "Servers that report SERVING. Fewer than deployed: a server is starting, stopping or "
            "down; see the alert AttendantNotServing.",
            "none",
            f"sum(attendant_serving{{{SERVER}}}) or vector(0)",
            (None, "red"),
            (1, "green"),
        ),
        number(
            "Calls",
            "Completed calls per second. A sudden zero: callers cannot reach the servers or have "
            "stopped calling.",
            "reqps",
            f"{calls} or vector(0)",
            (None, "blue"),
        ),
        number(
            "Errors",
            "Share of calls that failed with UNKNOWN, INTERNAL, UNAVAILABLE or DATA_LOSS. The "
            "objective is 0.1 %. Above it, callers see failures of the server.",
            "percentunit",
            f"{faults} / ({calls} > 0)",
            (None, "green"),
            (0.001, "orange"),
            (0.0144, "red"),
        ),
        number(
            "p99 of whole calls",
            "The 99th percentile of the duration of unary calls. The objective is 2.5 s. Above it, "
            "the queue is long or the calls are large.",
            "s",
            f"histogram_quantile(0.99, {seconds}) >= 0",
            (None, "green"),
            (1, "orange"),
            (2.5, "red"),
        ),
        number(
            "Restarts",
            "Process starts in the last hour. More than your deployments explain: the server "
            "crashes; see the alert AttendantRestarting.",
            "none",
            f"sum(changes(process_start_time_seconds{{{SERVER}}}[1h]))",
            (None, "green"),
            (1, "orange"),
            (3, "red"),
        ),
        number(
            "Firing alerts",
            "Firing alerts of attendant. docs/operations.md has a runbook entry for each alert.",
            "none",
            'count(ALERTS{alertname=~"Attendant.+", alertstate="firing"}) or vector(0)',
            (None, "green"),
            (1, "red"),
        ),
    ]


def _calls() -> list[Panel]:
    refused = f"attendant_refused_calls_total{{{SERVER}}}"
    return [
        graph(
            "Calls by method",
            "Completed calls per second. All lines drop at once: callers no longer reach the "
            "servers.",
            "reqps",
            rate(HANDLED, CALLS, "grpc_method"),
        ),
        graph(
            "Calls by model",
            "Calls per second to each model. One model drops to zero: it is not serving, or its "
            "callers no longer ask for it.",
            "reqps",
            rate("attendant_calls_total", MODEL, "model, version", MODEL_LEGEND),
        ),
        graph(
            "Calls that did not end with OK",
            "failed by the server: the server's fault. too late: past the caller's deadline. "
            "refused or too large: over a limit of the server. cancelled: by the caller. the "
            "caller's mistake: bad requests.",
            "reqps",
            *_failures(),
            soft_max=1,
        ),
        graph(
            "Share of failed calls",
            "Share of the calls to a service that the server failed. The objective is 0.1 %. A "
            "steady 1.4 % uses up the error budget of a month in two days.",
            "percentunit",
            Query(
                f"sum by (grpc_service) (rate({HANDLED}{{{SERVER_FAULTS}, {CALLS}}}"
                f"[$__rate_interval])) / sum by (grpc_service) (rate({HANDLED}{{{CALLS}}}"
                "[$__rate_interval]))",
                "{{grpc_service}}",
            ),
            soft_max=0.02,
        ),
        graph(
            "Refused calls",
            "Calls refused on arrival, by reason. queue_full, queue_wait and concurrency: more "
            "load than these servers can take. memory: see the row Requests and answers. quota: "
            "over a limit of the caller. unavailable: a server is starting, stopping or down.",
            "reqps",
            Query(f"sum by (reason) (rate({refused}[$__rate_interval]))", "{{reason}}"),
            soft_max=1,
        ),
        graph(
            "Dropped texts",
            "Admitted texts that got no answer. expired: the caller's deadline passed in the "
            "queue, so the queue is too long; cancelled: by the caller; failed: a model run "
            "failed.",
            "cps",
            rate("attendant_dropped_texts_total", MODEL, "reason"),
            soft_max=1,
        ),
        graph(
            "Failed authentications",
            "Calls without valid credentials, by fault. expired: a caller's key or token needs "
            "renewal. unknown_key or bad_signature at a high rate: somebody guesses, or a key was "
            "removed that is still in use.",
            "reqps",
            Query(
                "sum by (result) (rate(attendant_authentication_total"
                f'{{{SERVER}, result!="authenticated"}}[$__rate_interval]))',
                "{{result}}",
            ),
            soft_max=1,
        ),
    ]


def _callers() -> list[Panel]:
    return [
        graph(
            "Calls by caller",
            "Completed calls per second of each API key. other: callers with tokens or "
            "certificates. anonymous: calls without valid credentials. One line far above the "
            "others: consider a quota for it.",
            "reqps",
            rate("attendant_caller_calls_total", SERVER, "caller"),
        ),
        graph(
            "Texts by caller",
            "Texts per second that count for each caller's quota. Compare it with "
            "max_texts_per_minute divided by 60.",
            "cps",
            rate("attendant_caller_texts_total", SERVER, "caller"),
        ),
        graph(
            "Tokens by caller",
            "Tokens of texts per second that count for each caller's quota. Compare it with "
            "max_tokens_per_minute divided by 60.",
            "cps",
            rate("attendant_caller_tokens_total", SERVER, "caller"),
        ),
        graph(
            "Calls refused by a quota",
            "Calls per second over a limit of their caller. A steady line: the caller does not "
            "wait as it is told, sends calls larger than its limit, or needs a higher one.",
            "reqps",
            rate(
                "attendant_caller_refused_calls_total",
                SERVER,
                "caller, quota",
                "{{caller}} {{quota}}",
            ),
            soft_max=1,
        ),
    ]


def _failures() -> list[Query]:
    codes = {
        SERVER_FAULTS: "failed by the server",
        'grpc_code="DEADLINE_EXCEEDED"': "too late",
        'grpc_code="RESOURCE_EXHAUSTED"': "refused or too large",
        'grpc_code="CANCELLED"': "cancelled",
        'grpc_code!~"OK|CANCELLED|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|UNKNOWN|INTERNAL|'
        'UNAVAILABLE|DATA_LOSS"': "the caller's mistake",
    }
    return [
        Query(f"sum(rate({HANDLED}{{{code}, {CALLS}}}[$__rate_interval]))", legend)
        for code, legend in codes.items()
    ]


def _latency() -> list[Panel]:
    phases = ("tokenize", "queue", "encode", "decode")
    return [
        graph(
            "Time of a call",
            "From the arrival of a call to a model to its answer; only calls that ended with OK. "
            "Only the p99 rises: long texts or bursts. The median rises: overload.",
            "s",
            *percentiles("attendant_call_seconds", MODEL, 0.99, 0.9, 0.5),
        ),
        graph(
            "p95 of each phase",
            "The 95th percentile of each phase. queue is the longest: too few servers. encode: "
            "batches wait for each other. decode: long outputs or slow steps. tokenize: very long "
            "texts.",
            "s",
            *(
                Query(q.expression, phase)
                for phase in phases
                for q in percentiles(f"attendant_{phase}_seconds", MODEL, 0.95)
            ),
        ),
        graph(
            "p99 by method",
            "The 99th percentile of the duration of each method. Only embeddings or only "
            "translations are slow: the cause is the model, not the machine.",
            "s",
            percentile_by("attendant_call_seconds", MODEL, 0.99, "method"),
        ),
    ]


def _saturation() -> list[Panel]:
    rows = f"attendant_rows_used{{{MODEL}}} / attendant_max_rows{{{MODEL}}}"
    sentences = f"attendant_active_sentences{{{MODEL}}} / attendant_max_active_sentences{{{MODEL}}}"
    queued, may_queue = (
        f"attendant_queued_texts{{{MODEL}}}",
        f"attendant_max_queued_texts{{{MODEL}}}",
    )
    return [
        graph(
            "Slots in use",
            "Share of the rows or of the sentences in use, whichever is higher, on the fullest "
            "server. Constantly near 100 %: new texts wait until others finish; add servers.",
            "percentunit",
            Query(
                f"max by (model, version) (({rows}) >= ({sentences}) or ({sentences}))",
                MODEL_LEGEND,
            ),
            soft_max=1,
        ),
        graph(
            "Queue in use",
            "Share of the queue in use on the fullest server. At 100 %, further calls are refused "
            "with RESOURCE_EXHAUSTED.",
            "percentunit",
            Query(f"max by (model, version) ({queued} / {may_queue})", MODEL_LEGEND),
            soft_max=1,
        ),
        graph(
            "Calls in progress",
            "Share of the limit on concurrent calls. At 100 %, further calls are refused. High "
            "with an empty queue: many slow streams.",
            "percentunit",
            Query(
                f"attendant_concurrent_calls{{{SERVER}}} / "
                f"attendant_max_concurrent_calls{{{SERVER}}}",
                "{{instance}}",
            ),
            soft_max=1,
        ),
        graph(
            "Processors in use",
            "Cores that a server keeps busy. When all its cores are busy, more load only makes the "
            "queue longer.",
            "none",
            Query(f"rate(process_cpu_seconds_total{{{SERVER}}}[$__rate_interval])", "{{instance}}"),
        ),
        graph(
            "Memory in use",
            "Share of the memory limit in use. Near 100 %, the kernel may kill the server: see the "
            "alert AttendantMemoryNearLimit.",
            "percentunit",
            Query(
                f"attendant_memory_used_bytes{{{SERVER}}} / "
                f"attendant_memory_limit_bytes{{{SERVER}}}",
                "{{instance}}",
            ),
            soft_max=1,
        ),
        graph(
            "Open files and sockets",
            "Share of the limit on open files. Near 100 %, the server accepts no new connections: "
            "callers open too many channels, or the limit is too low.",
            "percentunit",
            Query(f"process_open_fds{{{SERVER}}} / process_max_fds{{{SERVER}}}", "{{instance}}"),
            soft_max=1,
        ),
    ]
