"""Long work for an answer runs on threads beside the event loop, whatever makes it long."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attendant.v1.embedding_pb2 import VECTOR_UNIT_SPANS, EmbedTokensRequest, Span, TextSpans
from attendant.v1.text_pb2 import MARKUP_HTML
from attendant.v1.translation_pb2 import GlossaryEntry, TranslateOptions, TranslateRequest
from attendant_server.application import (
    glossary_search,
    markup_placement,
    piece_alignment,
    piece_terms,
    token_embedding,
)
from attendant_server.grpc.services import translation

from tests.support.serving import Running, running_server

BUILT_IN = Path(__file__).parents[2] / "bundles"
ENTRIES = [GlossaryEntry(source=" ".join("a" * n), targets=["b"]) for n in range(1, 20)]


@pytest.fixture(scope="module")
def running(loop, settings) -> Iterator[Running]:
    options = {"bundles": BUILT_IN, "models": ("en-de", "bert-en-de"), "precision": "auto"}
    with running_server(loop, settings(**options)) as server:
        yield server


@pytest.fixture
def threads_of(monkeypatch):
    """Lets functions note the names of the threads that call them."""

    def watched(module: Any, name: str) -> set[str]:
        names: set[str] = set()
        function = getattr(module, name)

        def noting(*arguments: Any, **named: Any) -> Any:
            names.add(threading.current_thread().name.rstrip("_0123456789"))
            return function(*arguments, **named)

        monkeypatch.setattr(module, name, noting)
        return names

    return watched


@pytest.mark.parametrize(
    ("module", "name", "fields"),
    [
        pytest.param(
            *(piece_alignment, "word_spans", {"return_alignments": True}), id="words of copies"
        ),
        pytest.param(*(translation, "_link", {"return_alignments": True}), id="links of copies"),
        pytest.param(
            *(piece_terms, "placed_terms", {"glossary_entries": ENTRIES}), id="terms of an answer"
        ),
        pytest.param(
            *(glossary_search, "next_places", {"glossary_entries": ENTRIES}), id="places of terms"
        ),
        pytest.param(
            *(markup_placement, "escaped", {"markup": MARKUP_HTML}), id="elements of markup"
        ),
    ],
)
def test_long_texts_with_short_translations_are_answered_on_threads(
    running: Running, threads_of, module, name: str, fields: dict[str, Any]
):
    threads = threads_of(module, name)
    text = "a cat <b>1.</b> <i></i> " + "7 " * 3000
    if "glossary_entries" in fields:
        text = "a " * 900
    options = TranslateOptions(max_output_tokens=1)
    if name == "next_places":
        options.max_output_tokens = 4
    request = TranslateRequest(model="en-de", texts=[text], options=options, **fields)
    running.translation.Translate(request)
    assert threads == {"attendant-tokenizer"}


def test_many_spans_are_read_on_threads(running: Running, threads_of):
    threads = threads_of(token_embedding, "_read")
    spans = [TextSpans(spans=[Span(start=0, end=1)] * 400)]
    running.embedding.EmbedTokens(
        EmbedTokensRequest(model="bert-en-de", texts=["a cat"], unit=VECTOR_UNIT_SPANS, spans=spans)
    )
    assert threads == {"attendant-tokenizer"}
