"""The routes of OpenAI's protocol."""

from collections.abc import Iterator
from functools import partial

from attendant_server.application.application import Application
from attendant_server.foreign_methods import OPENAI
from attendant_server.http.json_routes import JsonRoute
from attendant_server.http.openai.completions import (
    Completion,
    CompletionRequest,
    CompletionsHandler,
)
from attendant_server.http.openai.embeddings import (
    EmbeddingsHandler,
    EmbeddingsRequest,
    EmbeddingsResponse,
)
from attendant_server.http.openai.errors import OPENAI_DIALECT
from attendant_server.http.openai.models import Model, ModelList, ModelsHandler
from attendant_server.records import Method

Route = partial(JsonRoute, dialect=OPENAI_DIALECT)


def openai_routes(application: Application) -> Iterator[JsonRoute]:
    """All routes."""
    models = ModelsHandler(application)
    yield Route(
        path="/v1/models",
        verb="GET",
        method=Method(OPENAI, "ListModels", "unary"),
        summary="List the models",
        response=ModelList,
        handle=models.list,
    )
    yield Route(
        path="/v1/models/{model:path}",
        verb="GET",
        method=Method(OPENAI, "RetrieveModel", "unary"),
        summary="Describe a model",
        response=Model,
        handle=models.get,
        parameters={"model": "`name` or `name/version`"},
    )
    yield Route(
        path="/v1/embeddings",
        verb="POST",
        method=Method(OPENAI, "CreateEmbedding", "unary"),
        summary="Embed texts",
        request=EmbeddingsRequest,
        response=EmbeddingsResponse,
        handle=EmbeddingsHandler(application),
    )
    yield Route(
        path="/v1/completions",
        verb="POST",
        method=Method(OPENAI, "CreateCompletion", "unary"),
        summary="Continue prompts",
        description="With `stream`, server-sent events, the last of which is `[DONE]`.",
        request=CompletionRequest,
        response=Completion,
        event=Completion,
        handle=CompletionsHandler(application),
    )
