"""A real Prometheus scrapes a real server. Every panel and every rule has data."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from attendant.v1.embedding_pb2 import EmbedRequest, EmbedTokensRequest, FillMaskRequest
from attendant.v1.model_pb2 import TokenizeRequest
from attendant.v1.translation_pb2 import (
    ScoreRequest,
    StreamTranslateRequest,
    TranslateRequest,
    TranslationPair,
)

from tests.support.bundles import sentence_pairs
from tests.support.monitoring import (
    DASHBOARDS,
    Prometheus,
    expressions_of,
    rules,
    running_prometheus,
    selectors_of,
)
from tests.support.serving import TRANSLATION_MODEL, Running, wait_until

pytestmark = pytest.mark.prometheus

PAIRS = [TranslationPair(source=s, target=t) for s, t in sentence_pairs()[:3]]
TEXTS = [pair.source for pair in PAIRS]


def call_every_method(running: Running) -> None:
    """Call each method once, with more texts than the server can decode together."""
    calls: list[Callable[[], object]] = [
        lambda: running.translation.Translate(TranslateRequest(texts=TEXTS * 4)),
        lambda: list(running.translation.StreamTranslate(StreamTranslateRequest(text=TEXTS[0]))),
        lambda: running.translation.Score(ScoreRequest(pairs=PAIRS)),
        lambda: running.embedding.Embed(EmbedRequest(texts=TEXTS)),
        lambda: running.embedding.EmbedTokens(EmbedTokensRequest(texts=TEXTS)),
        lambda: running.embedding.FillMask(FillMaskRequest(texts=["The [MASK] sees."])),
        lambda: running.models.Tokenize(TokenizeRequest(model=TRANSLATION_MODEL, texts=TEXTS)),
    ]
    with ThreadPoolExecutor(len(calls)) as pool:
        for done in [pool.submit(call) for call in calls]:
            done.result()


@contextmanager
def load(running: Running) -> Iterator[None]:
    """Repeat calls of every method while the block runs."""
    enough = threading.Event()

    def call() -> None:
        while not enough.is_set():
            call_every_method(running)

    with ThreadPoolExecutor(1) as pool:
        calling = pool.submit(call)
        try:
            yield
        finally:
            enough.set()
            calling.result()


@pytest.fixture
def watched(start, tmp_path) -> Iterator[Prometheus]:
    """Prometheus that scrapes a server under load."""
    running = start(max_rows=2, max_beam_size=2)
    call_every_method(running)
    # Test machines need not have a GPU, and this server has no certificate.
    running.server._metrics.watch_device_memory(lambda: (1_000, 2_000))
    running.server._metrics.watch_certificate(lambda: 2e9)
    with (
        running_prometheus(tmp_path, f"127.0.0.1:{running.server.metrics_port}") as prometheus,
        load(running),
    ):
        wait_until(lambda: prometheus.numbers("up") == [1.0])
        yield prometheus


def values_of_variable(prometheus: Prometheus, query: str) -> str:
    """Grafana's replacement for a variable when all values are selected."""
    found = re.fullmatch(r"label_values\((\w+), (\w+)\)", query)
    assert found, query
    values = prometheus.get(f"label/{found[2]}/values", **{"match[]": found[1]})
    assert values, f"{query} finds nothing"
    return "(" + "|".join(values) + ")"


def wait_for_numbers(prometheus: Prometheus, expressions: dict[str, str]) -> None:
    """Wait until every expression has a value. Fails with the expressions that never had one."""
    missing = dict(expressions)

    def none_is_missing() -> bool:
        for name, expression in list(missing.items()):
            if prometheus.numbers(expression):
                del missing[name]
        return not missing

    try:
        wait_until(none_is_missing)
    except AssertionError:
        pytest.fail(f"without data: {json.dumps(missing, indent=2)}")


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_panel_has_data(watched: Prometheus, path):
    dashboard = json.loads(path.read_text())
    variables = {
        variable["name"]: values_of_variable(watched, variable["query"]["query"])
        for variable in dashboard["templating"]["list"]
        if variable["type"] == "query"
    }
    assert set(variables) == {"instance", "model"}
    expressions = {
        f"{title}: {expression}": expression
        for title, expression in expressions_of(dashboard, variables)
    }
    wait_for_numbers(watched, expressions)


def test_every_rule_has_data_and_no_alert_fires(watched: Prometheus):
    expressions = {rule["record"]: rule["record"] for rule in rules() if "record" in rule}
    for rule in rules():
        selectors = selectors_of(rule["expr"])
        assert selectors, rule
        expressions |= {selector: selector for selector in selectors}
    wait_for_numbers(watched, expressions)
    evaluated = [rule for group in watched.get("rules")["groups"] for rule in group["rules"]]
    assert len(evaluated) == len(rules())
    assert [rule for rule in evaluated if rule["health"] != "ok"] == []
    assert watched.vector('ALERTS{alertstate="firing"}') == []
    # Before the second scrape no rate is known, so an alert may be pending.
    wait_until(lambda: watched.vector("ALERTS") == [])
