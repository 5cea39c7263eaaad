"""The first look: is it up, how many calls, how many fail, how slow, how full."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.dashboards.boards import board
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
    """The dashboard to begin with."""
    return board(
        "attendant-overview",
        "attendant: overview",
        "Rate, errors, latency and saturation of all attendant servers.",
        {
            "Now": _now(),
            "Calls and errors": _calls(),
            "Latency": _latency(),
            "Saturation": _saturation(),
        },
    )


def _now() -> list[Panel]:
    calls = f"sum(rate({HANDLED}{{{CALLS}}}[$__rate_interval]))"
    faults = f"sum(rate({HANDLED}{{{SERVER_FAULTS}, {CALLS}}}[$__rate_interval]))"
    seconds = f"sum by (le) (rate({UNARY_SECONDS}[$__rate_interval]))"
    return [
        number(
            "Serving",
            "Servers that report SERVING. Fewer than you run: one is starting, stopping or dead; "
            "see the alert AttendantNotServing.",
            "none",
            f"sum(attendant_serving{{{SERVER}}})",
            (None, "red"),
            (1, "green"),
        ),
        number(
            "Calls",
            "Calls that ended, each second. A sudden zero means that callers cannot reach the "
            "servers or have stopped asking.",
            "reqps",
            calls,
            (None, "blue"),
        ),
        number(
            "Errors",
            "Share of calls that the server failed (UNKNOWN, INTERNAL, UNAVAILABLE, DATA_LOSS). "
            "The objective is 0.1 %; above it callers see failures that are ours.",
            "percentunit",
            f"{faults} / ({calls} > 0)",
            (None, "green"),
            (0.001, "orange"),
            (0.0144, "red"),
        ),
        number(
            "p99 of whole calls",
            "99 % of the calls that are no streams ended sooner. The objective is 2.5 s; above it "
            "the queue is long or the calls are large.",
            "s",
            f"histogram_quantile(0.99, {seconds}) >= 0",
            (None, "green"),
            (1, "orange"),
            (2.5, "red"),
        ),
        number(
            "Restarts",
            "Starts of processes in the last hour. More than your deployments explain means "
            "crashes: see the alert AttendantRestarting.",
            "none",
            f"sum(changes(process_start_time_seconds{{{SERVER}}}[1h]))",
            (None, "green"),
            (1, "orange"),
            (3, "red"),
        ),
        number(
            "Firing alerts",
            "Alerts of attendant that are firing. Anything above zero has a runbook entry in "
            "docs/operations.md.",
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
            "Calls that ended, each second. A step down on all lines at once means that callers "
            "no longer reach the servers.",
            "reqps",
            rate(HANDLED, CALLS, "grpc_method"),
        ),
        graph(
            "Calls by model",
            "Calls to each model. One model falling to zero while others go on: its callers have "
            "lost it, or it is not serving.",
            "reqps",
            rate("attendant_calls_total", MODEL, "model, version", MODEL_LEGEND),
        ),
        graph(
            "Calls that did not end with OK",
            "Failed by the server: our fault. Too late: too slow for the caller's deadline. "
            "Refused: too full. Cancelled: the caller went away. The caller's mistake: bad "
            "requests.",
            "reqps",
            *_failures(),
            soft_max=1,
        ),
        graph(
            "Share of failed calls",
            "The server's own failures among all calls of a service; the objective is 0.1 %. A "
            "steady 1.4 % uses up a month's budget in two days.",
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
            "Calls refused at once, by reason. queue_full and concurrency: more load than these "
            "servers can take. unavailable: a server is starting, stopping or dead.",
            "reqps",
            Query(f"sum by (reason) (rate({refused}[$__rate_interval]))", "{{reason}}"),
            soft_max=1,
        ),
        graph(
            "Texts left without an answer",
            "Admitted texts that were dropped. expired: they waited longer than their callers "
            "would, so the queue is too long; cancelled: callers went away; failed: a model run "
            "failed.",
            "cps",
            rate("attendant_dropped_texts_total", MODEL, "reason"),
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
            "From the arrival of a call to a model to its answer, calls that ended with OK. A p99 "
            "that rises alone means long texts or bursts; a median that rises means overload.",
            "s",
            *percentiles("attendant_call_seconds", MODEL, 0.99, 0.9, 0.5),
        ),
        graph(
            "p95 of each phase",
            "Where the time goes. queue above the others: too few servers. encode: batches wait "
            "for each other. decode: long answers or slow steps. tokenize: very long texts.",
            "s",
            *(
                Query(q.expression, phase)
                for phase in phases
                for q in percentiles(f"attendant_{phase}_seconds", MODEL, 0.95)
            ),
        ),
        graph(
            "p99 by method",
            "The slowest percent of each method's calls. Embeddings slow while translations are "
            "not, or the other way round, points at the model, not at the machine.",
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
            "Places in use",
            "Fullest server's share of the rows or of the sentences that it can decode together, "
            "whichever is more. Near 100 % all the time: new texts wait for others to end; add "
            "servers.",
            "percentunit",
            Query(
                f"max by (model, version) (({rows}) >= ({sentences}) or ({sentences}))",
                MODEL_LEGEND,
            ),
            soft_max=1,
        ),
        graph(
            "Queue in use",
            "Fullest server's share of the texts that may wait. At 100 % further calls are refused "
            "with RESOURCE_EXHAUSTED.",
            "percentunit",
            Query(f"max by (model, version) ({queued} / {may_queue})", MODEL_LEGEND),
            soft_max=1,
        ),
        graph(
            "Calls in progress",
            "Share of the calls that a server admits together. At 100 % further calls are refused; "
            "high with an empty queue means many slow streams.",
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
            "Cores that a server keeps busy. At the number that it has, more load only makes the "
            "queue longer.",
            "none",
            Query(f"rate(process_cpu_seconds_total{{{SERVER}}}[$__rate_interval])", "{{instance}}"),
        ),
        graph(
            "Memory in use",
            "Share of the memory limit that is in use. Near 100 % the kernel kills the server: "
            "see the alert AttendantMemoryNearLimit.",
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
            "Share of those that may be open. Near 100 % no new connection is accepted: callers "
            "open too many channels, or the limit is low.",
            "percentunit",
            Query(f"process_open_fds{{{SERVER}}} / process_max_fds{{{SERVER}}}", "{{instance}}"),
            soft_max=1,
        ),
    ]
