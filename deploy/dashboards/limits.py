"""Panels of the overview: the limits of requests, answers and ports, and the models of servers."""

from deploy.dashboards.panels import SERVER, Panel, Query, graph, rate

BY_INSTANCE = "{{instance}}"


def _share(gauge: str, limit: str, legend: str = BY_INSTANCE) -> Query:
    return Query(f"{gauge}{{{SERVER}}} / {limit}{{{SERVER}}}", legend)


def requests_and_answers() -> list[Panel]:
    """What callers make the servers hold, and the limits of it."""
    open_calls = " - ".join(
        f"sum by (grpc_service) (grpc_server_{state}_total{{{SERVER}}})"
        for state in ("started", "handled")
    )
    return [
        graph(
            "Memory of requests and answers",
            "Share of max_held_bytes in use. Near 100 %, calls are refused for memory: callers "
            "send large calls, or do not read their answers (the panel of unread answers).",
            "percentunit",
            _share("attendant_held_bytes", "attendant_max_held_bytes"),
            soft_max=1,
        ),
        graph(
            "Requests that arrive",
            "Share of the requests that may arrive together, and of the streams of requests that "
            "there may be. Constantly at 100 %: callers send slowly or not to the end, or have too "
            "many bulk calls; further ones are refused.",
            "percentunit",
            _share(
                "attendant_arriving_requests",
                "attendant_max_arriving_requests",
                f"{BY_INSTANCE} requests",
            ),
            _share(
                "attendant_request_streams",
                "attendant_max_arriving_requests",
                f"{BY_INSTANCE} streams",
            ),
            soft_max=1,
        ),
        graph(
            "Requests that wait to arrive",
            "Requests that are received once others have arrived. Above zero for minutes: all "
            "places are taken; see the alert AttendantRequestsWait.",
            "none",
            Query(f"attendant_waiting_requests{{{SERVER}}}", BY_INSTANCE),
            soft_max=1,
        ),
        graph(
            "Requests to the health service",
            "Requests that are received, of which 16 may be together, and others that wait for "
            "them. Any that wait: health checks on this port are late; see the alert "
            "AttendantHealthRequestsWait.",
            "none",
            *(
                Query(f"attendant_{state}_health_requests{{{SERVER}}}", f"{BY_INSTANCE} {state}")
                for state in ("arriving", "waiting")
            ),
            soft_max=1,
        ),
        graph(
            "Answers that are not read",
            "Answers that are being sent, or that their callers do not read. A line that keeps "
            "rising: a caller has stopped reading, and its answers hold memory until its "
            "connection ends.",
            "none",
            Query(f"attendant_unread_answers{{{SERVER}}}", BY_INSTANCE),
            soft_max=1,
        ),
        graph(
            "Open calls",
            "Calls of each service that have arrived and not ended, also of health and reflection, "
            "whether or not they are admitted. Many of the health service: watchers, or requests "
            "without an end.",
            "none",
            Query(open_calls, "{{grpc_service}}"),
            soft_max=1,
        ),
        graph(
            "Connections",
            "Share of max_connections in use. At 100 %, further connections are closed at once: "
            "see the alert AttendantConnectionsNearLimit.",
            "percentunit",
            _share("attendant_connections", "attendant_max_connections"),
            soft_max=1,
        ),
    ]


def models_and_ports() -> list[Panel]:
    """Models that come and go, engines, certificates, and the port of the metrics."""
    return [
        graph(
            "Models that serve",
            "Servers on which each model is ready. Fewer than deployed: it is being loaded, could "
            "not be loaded, or its server is stopping.",
            "none",
            Query(
                f"sum by (model, version) (attendant_model_serving{{{SERVER}}})",
                "{{model}}/{{version}}",
            ),
        ),
        graph(
            "Changes of models",
            "Models that were loaded, could not be loaded, or were unloaded in the last 15 "
            "minutes. failed: see the alert AttendantModelNotLoaded.",
            "none",
            Query(
                f"sum by (result) (increase(attendant_model_changes_total{{{SERVER}}}[15m]))",
                "{{result}}",
            ),
            soft_max=1,
        ),
        *_downloads(),
        graph(
            "Restarts of the engine",
            "Engines that were started in the last hour after one had died or hung. Its calls "
            "failed: see the alert AttendantEngineRestarted.",
            "none",
            Query(f"increase(attendant_engine_restarts_total{{{SERVER}}}[1h])", BY_INSTANCE),
            soft_max=1,
        ),
        graph(
            "Time until the certificate expires",
            "Empty without TLS. Below two weeks: its renewal has failed; see the alert "
            "AttendantCertificateExpires.",
            "s",
            Query(
                f"attendant_tls_certificate_expiry_timestamp_seconds{{{SERVER}}} - time()",
                BY_INSTANCE,
            ),
        ),
        graph(
            "Connections to the metrics",
            "Ended connections to the port of the metrics, by result. too_slow or too_many: "
            "something other than Prometheus keeps connections open there; limit who can reach "
            "the port.",
            "cps",
            rate("attendant_metrics_connections_total", SERVER, "result"),
            soft_max=1,
        ),
    ]


def _downloads() -> list[Panel]:
    """What a server with bundles from a URL does for them."""
    return [
        graph(
            "Downloads of bundles",
            "Bundles from a URL that were downloaded or have failed, looks at the URL included, "
            "and interrupted requests, in the last 15 minutes. failed again and again: the log "
            "says what the store answers. Empty without a URL.",
            "none",
            Query(
                f"sum by (result) (increase(attendant_bundle_downloads_total{{{SERVER}}}[15m]))",
                "{{result}}",
            ),
            soft_max=1,
        ),
        graph(
            "Bytes of bundles that arrive",
            "Downloaded from the URL of the bundles. Little while a download goes on: the store or "
            "the network is slow.",
            "Bps",
            rate("attendant_downloaded_bytes_total", SERVER, "instance"),
        ),
        graph(
            "Share of the cache of bundles",
            "Share of max_bundles_cache_bytes in use. At 100 %, versions that are not served make "
            "room; what must be served and does not fit is not loaded.",
            "percentunit",
            _share("attendant_bundles_cache_bytes", "attendant_max_bundles_cache_bytes"),
            soft_max=1,
        ),
    ]
