"""The routes of Text Embeddings Inference."""

from collections.abc import Iterator
from typing import Any

from attendant_server.application.application import Application
from attendant_server.foreign_methods import TEI_HTTP
from attendant_server.http.json_routes import JsonRoute
from attendant_server.http.tei import messages
from attendant_server.http.tei.embed import EmbedHandler
from attendant_server.http.tei.predict import PredictHandler
from attendant_server.http.tei.tokens import TokensHandler
from attendant_server.records import Method
from attendant_server.settings import Settings


def tei_routes(application: Application, settings: Settings) -> Iterator[JsonRoute]:
    """All routes."""
    embed, predict = EmbedHandler(application), PredictHandler(application)
    tokens = TokensHandler(application, settings)
    for path, request, response, handle, summary in (
        ("/embed", messages.EmbedRequest, list[list[float]], embed.embed, "Embed texts"),
        (
            "/embed_all",
            messages.EmbedAllRequest,
            list[list[list[float]]],
            embed.embed_all,
            "Embed the tokens of texts",
        ),
        (
            "/embed_sparse",
            messages.EmbedAllRequest,
            list[list[messages.SparseValue]],
            embed.embed_sparse,
            "Embed texts sparsely",
        ),
        (
            "/predict",
            messages.PredictRequest,
            list[messages.Prediction | list[messages.Prediction]],
            predict.predict,
            "Classify texts or pairs of texts",
        ),
        (
            "/rerank",
            messages.RerankRequest,
            list[messages.Rank],
            predict.rerank,
            "Order texts by their scores for a query",
        ),
        (
            "/tokenize",
            messages.TokenizeRequest,
            list[list[messages.Token]],
            tokens.tokenize,
            "Show the tokens of texts",
        ),
        ("/decode", messages.DecodeRequest, list[str], tokens.decode, "Decode tokens"),
    ):
        yield _route(path, "POST", summary, response, handle, request, settings.max_texts)
    yield _route("/info", "GET", "Describe the model", messages.Info, tokens.info)


def _route(
    path: str,
    verb: str,
    summary: str,
    response: Any,
    handle: Any,
    request: Any = None,
    max_texts: int = 0,
) -> JsonRoute:
    name = "".join(map(str.capitalize, path[1:].split("_")))
    return JsonRoute(
        path=path,
        verb=verb,
        method=Method(TEI_HTTP, name, "unary"),
        summary=summary,
        dialect=messages.TEI_DIALECT,
        request=request,
        response=response,
        handle=handle,
        max_lists=16 * max_texts if request is messages.DecodeRequest else None,
    )
